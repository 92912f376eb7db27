"""What a log of prompts holds: which prompt answered which query, and what it earned.

    read_log(path, columns) -> PromptLog        a table with one row per answer: query, prompt, reward
    log_of(rows) -> PromptLog                   the same from values
    template_of(text) -> str                    the query with its numbers and names masked

A query is a brief, a question, anything a prompt is put before. Queries of one *group* are never split between learning and
judging. Without a column that says so the group is the template: "Ann has 5.0 apples" and "Bob has 7 apples" are one query
to a learner, and a split between them would show it the answer.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput
from ingestion.files.tables import open_table
from reward_models.folds import codes_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MOST_ROWS = 2_000_000
MOST_CHARACTERS = 20_000
"""Of a query or a prompt; a longer one is refused, not cut."""
MOST_PROMPTS = 200

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NAME = re.compile(r"\b[^\W\d_a-z]\w*")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns. ``prompt_text`` and ``group`` may be missing from the table."""

    query: str = "query"
    prompt: str = "prompt"
    reward: str = "reward"
    prompt_text: str = "prompt_text"
    group: str = "group"


@dataclass(frozen=True)
class PromptLog:
    """n answers over k queries and m prompts."""

    queries: tuple[str, ...]
    group: Ints
    """Of each query, shape (k,)."""
    prompts: tuple[str, ...]
    query: Ints
    """Of each answer, shape (n,); so are ``prompt`` and ``reward``."""
    prompt: Ints
    reward: Floats
    texts: Mapping[str, str] = field(default_factory=dict)
    """The text of each prompt that is known by more than its name."""

    def __len__(self) -> int:
        return len(self.reward)

    def part(self, kept: Mask) -> "PromptLog":
        """The answers under the mask, shape (n,); queries and prompts keep their numbers."""
        return PromptLog(
            self.queries, self.group, self.prompts, self.query[kept], self.prompt[kept], self.reward[kept], self.texts
        )

    def text_of(self, prompt: str) -> str:
        """The prompt's text; its name where no text is known."""
        return self.texts.get(prompt, prompt)


@dataclass(frozen=True)
class Answer:
    """One row of a log."""

    query: str
    prompt: str
    reward: float
    group: str = ""
    prompt_text: str = ""


def template_of(text: str) -> str:
    """The text with numbers and capitalised words masked, in single spaces."""
    return _SPACE.sub(" ", _NAME.sub("@", _NUMBER.sub("#", text))).strip()


def log_of(rows: Iterable[Answer]) -> PromptLog:
    """The log of these answers. Raises :class:`BadInput` for a query of two groups or a prompt of two texts."""
    answers = list(rows)
    groups: dict[str, str] = {}
    texts: dict[str, str] = {}
    for one in answers:
        _same(groups, one.query, one.group or template_of(one.query), "query", "groups")
        if one.prompt_text:
            _same(texts, one.prompt, one.prompt_text, "prompt", "texts")
    prompts = sorted({one.prompt for one in answers})
    if len(prompts) > MOST_PROMPTS:
        raise BadInput(
            f"{len(prompts):,} different prompts; the most is {MOST_PROMPTS}. Is the column the answer's text?"
        )
    place = {name: number for number, name in enumerate(prompts)}
    return PromptLog(
        tuple(groups),
        codes_of(list(groups.values())),
        tuple(prompts),
        codes_of([one.query for one in answers]),
        np.array([place[one.prompt] for one in answers], dtype=np.int64),
        np.array([one.reward for one in answers], dtype=np.float64),
        texts,
    )


def read_log(path: Path, columns: Columns = Columns()) -> PromptLog:
    """The log in a CSV or Parquet table. Raises :class:`BadInput`, naming the row, for what cannot be read."""
    with open_table(path) as table:
        missing = [name for name in (columns.query, columns.prompt, columns.reward) if name not in table.columns]
        if missing:
            raise BadInput(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(table.columns)}. Name yours with "
                "--query, --prompt and --reward"
            )
        log = log_of(_answers(path, table.columns, table.rows, columns))
    if not len(log):
        raise BadInput(f"{path} has no rows")
    return log


def _answers(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]], columns: Columns) -> Iterable[Answer]:
    at = {name: place for place, name in enumerate(names)}
    wanted = (columns.query, columns.prompt, columns.reward, columns.group, columns.prompt_text)
    for number, row in enumerate(rows, start=1):
        if number > MOST_ROWS:
            raise BadInput(f"{path} has more than {MOST_ROWS:,} rows; give a part of it")
        if len(row) != len(names):
            raise BadInput(f"{path}, row {number:,}: {len(row)} cells for {len(names)} columns")
        query, prompt, reward, group, text = (row[at[name]].strip() if name in at else "" for name in wanted)
        _check(f"{path}, row {number:,}", query, prompt, text)
        yield Answer(query, prompt, _number(reward, f"{path}, row {number:,}"), group, text)


def _check(where: str, query: str, prompt: str, text: str) -> None:
    if not query or not prompt:
        raise BadInput(f"{where}: the query and the prompt have to be named")
    if max(map(len, (query, prompt, text))) > MOST_CHARACTERS:
        raise BadInput(f"{where}: a text of more than {MOST_CHARACTERS:,} characters; shorten it or leave the row out")


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise BadInput(f"{where}: the reward {text[:40]!r} is no number")
    return value


def _same(known: dict[str, str], name: str, value: str, what: str, of: str) -> None:
    if known.setdefault(name, value) != value:
        raise BadInput(f"The {what} {name[:60]!r} has two {of}: {known[name][:60]!r} and {value[:60]!r}")
