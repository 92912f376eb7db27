"""Commands that make and read what links carry. They need the secrets file only: no database, no server."""

from typing import Annotated, Any

import typer

from infra.errors import BadInput, NotFound
from infra.secrets import Secrets, load_secrets
from infra.settings import Settings, load_settings
from ingestion.fields import can_name
from ingestion.links import check_destination, make_link, read_link, with_token
from ingestion.tokens import make_token, read_token
from pipelines.commands.workspace import JsonOption, out, print_json

GROUP = """The signed tokens and redirect links that tell which decision a click belongs to.

Example: rewardloop token make 0198f6f2-7a51-7cc0-a52d-3f0d8e3b2c11"""


def _decision_id(text: str) -> str:
    """The id, if /v1/rank would take it. Raises :class:`BadInput`."""
    if not can_name(text):
        raise BadInput("A decision id is a text of 1 to 256 characters; give the one that /v1/rank answered")
    return text


DecisionId = Annotated[str, typer.Argument(help="The decision.", show_default=False, callback=_decision_id)]
Position = Annotated[int | None, typer.Option(min=1, help="Position in the slate.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=GROUP, rich_markup_mode=None)
    group.command("make")(make)
    group.command("link")(link)
    group.command("show")(show)
    app.add_typer(group, name="token")


def make(decision_id: DecisionId, position: Position = None) -> None:
    """Print the signed token that names a decision.

    Example: rewardloop token make 0198f6f2-7a51-7cc0-a52d-3f0d8e3b2c11
    """
    _, secrets = _installation()
    typer.echo(make_token(secrets, decision_id, position))


def link(
    decision_id: DecisionId,
    url: Annotated[str, typer.Argument(help="Where it leads.", show_default=False)],
    position: Position = None,
    direct: Annotated[
        bool, typer.Option("--direct", help="No redirect of ours: the address itself, with `rl=<token>` in its query.")
    ] = False,
) -> None:
    """Print the redirect link that records a click on a decision and leads to an address.

    Example: rewardloop token link 0198f6f2-7a51-7cc0-a52d-3f0d8e3b2c11 https://shop.example.com/sale
    """
    settings, secrets = _installation()
    if direct:
        typer.echo(with_token(url, make_token(secrets, decision_id, position)))
        return
    check_destination(url, settings.redirect_hosts)
    public = settings.public_url or f"http://{settings.host}:{settings.port}"
    typer.echo(make_link(secrets, public, decision_id, position, url))


def show(
    text: Annotated[str, typer.Argument(metavar="TOKEN", help="A token, or a redirect link.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Print what a token or a redirect link says, if this installation signed it.

    Example: rewardloop token show 1.MDpk.bNwcVw0u3fTQZ1mQk3zv4g
    """
    settings, secrets = _installation()
    said = _said(settings, secrets, text)
    if as_json:
        print_json(said)
        return
    for name, value in said.items():
        out().print(
            f"{name:<12}{'not named' if value is None else value}", markup=False, highlight=False, soft_wrap=True
        )


def _installation() -> tuple[Settings, Secrets]:
    settings = load_settings()
    return settings, load_secrets(settings)


def _said(settings: Settings, secrets: Secrets, text: str) -> dict[str, Any]:
    _, is_link, signed = text.rpartition("/r/")
    if not is_link:
        token = read_token(secrets, text)
        return {"decision": token.decision_id, "position": token.position}
    try:
        found = read_link(secrets, signed, settings.redirect_hosts)
    except NotFound as error:
        raise BadInput(f"{error}; copy it whole") from None
    return {"decision": found.decision_id, "position": found.position, "leads to": found.url}
