"""``episodes``: what several decisions for one customer are worth together, and what early outcomes say of late ones."""

from typing import Annotated

import typer

from pipelines.commands.credit import duration
from pipelines.commands.workspace import JsonOption, LoopArgument, open_workspace

GROUP = """Journeys of several decisions, and outcomes that come much later.

Example: rewardloop episodes value email-subjects --horizon 28d"""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=GROUP, rich_markup_mode=None)
    group.command("value")(value)
    group.command("surrogate")(surrogate)
    app.add_typer(group, name="episodes")


def value(
    loop: LoopArgument,
    horizon: Annotated[str, typer.Option(help="How long an episode lasts from its first decision.")] = "28d",
    discount: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="What a reward is worth a day later, relative to now.")
    ] = 1.0,
    longest: Annotated[int, typer.Option(min=1, max=100, help="Most decisions of one episode.")] = 12,
    as_json: JsonOption = False,
) -> None:
    """What policies of journeys earn per episode: by importance sampling, by a model of what follows, and by both.

    Example: rewardloop episodes value email-subjects --horizon 14d --discount 0.98
    """
    from pipelines import journeys  # LightGBM takes seconds to import

    journeys.print_values(open_workspace(), loop, duration("--horizon", horizon), discount, longest, as_json)


def surrogate(
    loop: LoopArgument,
    early: Annotated[
        str, typer.Option(help="What customers do so long after their first decision foretells …")
    ] = "14d",
    late: Annotated[str, typer.Option(help="… what they do so long after it.")] = "90d",
    metric: Annotated[
        str | None, typer.Option(help="The late outcome; default: the first metric of money.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The late effect of the loop against its holdout, foretold from early outcomes, and whether that can be believed.

    Ends with exit code 3 when something speaks against it.

    Example: rewardloop episodes surrogate email-subjects --early 14d --late 63d --metric revenue
    """
    from pipelines import journeys  # LightGBM takes seconds to import

    spans = (duration("--early", early), duration("--late", late))
    journeys.print_surrogate(open_workspace(), loop, metric, spans, as_json)
