"""``prompts add``: a prompt of one's own; ``recommend``, ``evaluate``: which prompt for which brief or question, learned from a log.

The latter import ``pipelines/prompting.py`` when they run: scikit-learn takes seconds to import, `--help` should not.
"""

from pathlib import Path
from typing import Annotated

import typer

from infra.database import writing
from infra.errors import BadInput
from pipelines.commands.workspace import JsonOption, open_workspace, out, print_json
from pipelines.generation.prompts import LONGEST, newest, put_prompt

prompts = typer.Typer(
    name="prompts",
    help="Prompts that copy is written with, and which of them suits a brief, from a log of what they earned.",
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
def add(
    name: Annotated[str, typer.Argument(help="Its name: letters, digits, dots, dashes.", show_default=False)],
    template: Annotated[
        Path,
        typer.Argument(
            help="Text file with {{brief}} and {{count}}; it may name {{channel}}, {{slots}}, {{rules}}, {{locale}}, {{winners}}, "
            "{{losers}}.",
            show_default=False,
        ),
    ],
    strategy: Annotated[str, typer.Option(help="What kind of prompt it is, in a word.")] = "own",
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="How freely it is answered.")] = 0.9,
    who: Annotated[str, typer.Option("--as", help="Who says so; it stands in the audit.")] = "cli",
    as_json: JsonOption = False,
) -> None:
    """Register a prompt, or its next version. The same text again is the version it was.

    A version never changes: what it wrote keeps its name. `rewardloop generate` uses the newest of each.

    Example: rewardloop prompts add story story.txt --strategy story --temperature 1.1
    """
    text = _text(template)
    workspace = open_workspace()
    with writing(workspace.engine) as connection:
        known = {prompt.name for prompt in newest(connection)}
        parameters = {"temperature": temperature}
        prompt = put_prompt(connection, name, text, strategy, parameters, workspace.clock(), who)
    status = "existing" if prompt.name in known else "created"
    if as_json:
        print_json({"prompt": prompt.prompt_id, "version": prompt.version, "strategy": strategy, "status": status})
    else:
        out().print(
            f"{prompt.name}: {status}. Next: rewardloop generate <campaign> --prompt {prompt.prompt_id}", markup=False
        )


def _text(path: Path) -> str:
    """Raises :class:`BadInput` for a file that is none of text."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a template: {error}") from error


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
