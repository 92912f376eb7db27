"""``train``, ``evaluate``, ``score``: a reward model from what is known, its proof, and its use.

Each command imports ``pipelines/modelling.py`` when it runs: LightGBM takes seconds to import, `--help` should not.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from infra.errors import BadInput
from pipelines.commands.workspace import JsonOption, LoopArgument, open_workspace
from reward_models.verification import Verifier


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(score)


def train(loop: LoopArgument, as_json: JsonOption = False) -> None:
    """Train a loop's reward model on everything known, and register it as a version.

    What serves customers is changed by `retrain` only, through the gate.

    Example: rewardloop train upworthy
    """
    from pipelines import modelling

    modelling.train(open_workspace(), loop, as_json)


def evaluate(
    loop: LoopArgument,
    metric: Annotated[list[str] | None, typer.Option(help="Only this metric; may be repeated.")] = None,
    reader: Annotated[
        Literal["standard", "cascade", "independent"] | None,
        typer.Option(help="Value lists of several contents too, for readers who read like this.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What the data of a loop can prove, on rows that the model has not seen.

    Decisions with known probabilities: every single arm, the value of a learned policy, the gate's verdict. Past
    results: how well held-out campaigns are ranked. Lists (`slots` of 2 or more): only their first positions, unless
    a reader is named, whose clicks depend on what stands there (independent), there and above (cascade), or on the
    whole list (standard).

    Example: rewardloop evaluate hillstrom
    """
    from pipelines import modelling

    modelling.evaluate_loop(open_workspace(), loop, metric or [], as_json, reader)


def score(
    loop: LoopArgument,
    file: Annotated[
        Path | None, typer.Argument(help="CSV or Parquet with `campaign` and one column per slot.", show_default=False)
    ] = None,
    destination: Annotated[
        Path | None, typer.Option("--out", help="CSV to write, for a file.", show_default=False)
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Instead of a file: a line to compare with others. May be repeated.")
    ] = None,
    slot: Annotated[
        str | None,
        typer.Option(help="With --text: where the lines stand; without it `subject`, or what the model knows."),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="Model version; without it the one in force, else the newest.", show_default=False),
    ] = None,
    why: Annotated[
        bool, typer.Option("--why", help="Add the strongest reasons for each score: words, factors, features.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score candidate texts: expected reward, its 95 % interval, and the rank within the campaign.

    Example: rewardloop score upworthy candidates.csv --out scored.csv

    Example: rewardloop score emails --text "Your order is waiting" --text "Only today: 20% off" --why
    """
    if (file is None) == (not text) or (file is None) != (destination is None):
        raise BadInput("Give either a file with --out, the file to write, or lines by --text")
    with Verifier() as verifier:
        verifier.start()  # it imports LightGBM while this process does
        from pipelines import modelling

        if file is not None and destination is not None:
            modelling.score(open_workspace(), verifier, loop, file, destination, version, as_json, why)
        else:
            modelling.score_texts(open_workspace(), verifier, loop, text or [], slot, version, as_json, why)
