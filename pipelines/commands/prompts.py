"""``prompts recommend``, ``prompts evaluate``: which prompt for which brief or question, learned from a log.

Each command imports ``pipelines/prompting.py`` when it runs: scikit-learn takes seconds to import, `--help` should not.
"""

from pathlib import Path
from typing import Annotated

import typer

from infra.errors import BadInput
from pipelines.commands.workspace import JsonOption

prompts = typer.Typer(
    name="prompts",
    help="Choose a prompt for each brief or question, from a log of what prompts earned. No language model is asked.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Log = Annotated[
    Path | None,
    typer.Argument(help="CSV or Parquet with one row per answer: query, prompt, reward.", show_default=False),
]
Loop = Annotated[
    str | None, typer.Option(help="Instead of a file: what a loop's own copy earned, by brief and prompt.")
]
Query = Annotated[str, typer.Option("--query", help="Column of the brief or question.")]
Prompt = Annotated[str, typer.Option("--prompt", help="Column of the prompt's name.")]
Reward = Annotated[str, typer.Option("--reward", help="Column of the reward: 0 and 1, or any number.")]
Group = Annotated[
    str, typer.Option("--group", help="Column of what must not be split; without it the query's template.")
]
Clear = Annotated[
    float, typer.Option(min=0.5, max=0.999, help="Probability of being better from which a prompt is taken.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(prompts)


@prompts.command()
def recommend(
    log: Log = None,
    loop: Loop = None,
    queries: Annotated[list[str] | None, typer.Option("--for", help="A brief or question. May be repeated.")] = None,
    query: Query = "query",
    prompt: Prompt = "prompt",
    reward: Reward = "reward",
    group: Group = "group",
    clear: Clear = 0.8,
    as_json: JsonOption = False,
) -> None:
    """Name the prompt for each query: the best fixed one, unless another is clearly better and that is proven.

    Example: rewardloop prompts recommend answers.csv --for "Winter boots, new in store"
    """
    if not queries:
        raise BadInput("Say what a prompt is wanted for: --for with a brief or a question")
    from pipelines import prompting
    from reward_models.prompts.logs import Columns

    prompting.recommend(
        prompting.open_log(log, Columns(query, prompt, reward, group=group), loop), queries, clear, as_json
    )


@prompts.command()
def evaluate(
    log: Log = None,
    loop: Loop = None,
    query: Query = "query",
    prompt: Prompt = "prompt",
    reward: Reward = "reward",
    group: Group = "group",
    clear: Clear = 0.8,
    seed: Annotated[int, typer.Option(min=0, help="Deals the folds.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """What choosing prompts per query gains over the best fixed prompt, on queries that were not learned from.

    Example: rewardloop prompts evaluate answers.csv --query brief --reward clicks
    """
    from pipelines import prompting
    from reward_models.prompts.logs import Columns

    prompting.evaluate(prompting.open_log(log, Columns(query, prompt, reward, group=group), loop), clear, seed, as_json)
