"""Prompts: versioned templates, in the table ``prompts`` and, for people to read, in MLflow's prompt registry.

A template names what it needs in double braces; ``render`` fills all of them in one pass, so that a brief that holds braces
is not read again. The same template again is the same version; anything else is the next one: a version never changes.

    put_prompt(connection, "ask", template, strategy, parameters, now) -> Prompt
    newest(connection) -> [Prompt, …]      the highest version of each
    versions(connection, "ask")            all of one, the first first
    HOUSE                                  those that come with the product, one per strategy
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from infra import tables
from infra.errors import BadInput
from ingestion.audit import record

VARIABLES = ("brief", "channel", "count", "slots", "rules", "locale", "winners", "losers")
"""What a template may name."""
LONGEST = 20_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a prompt. ``strategy``: what kind it is, in a word; ``parameters``: ``temperature`` and the like."""

    prompt_id: str
    version: int
    template: str
    strategy: str
    parameters: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """How it is told from all others: ``ask@2``."""
        return f"{self.prompt_id}@{self.version}"


_ASKED = """Write {{count}} variants of copy for the channel {{channel}}.

Brief:
{{brief}}

%s

Write these slots: {{slots}}
{{locale}}
{{rules}}
{{winners}}
{{losers}}"""

_STRATEGIES = {
    "plain": "Say what it is about, in plain words.",
    "ask": "Ask a question that the reader wants answered.",
    "count": "Count something, with a number of the brief.",
    "hurry": "Say why it is better to act now.",
    "name": "Speak to the reader by name, with the placeholder {{first_name}} where the rules allow it.",
    "save": "Lead with what the reader saves, as the brief says it.",
    "explain": "Give one concrete reason more than a headline would.",
}

HOUSE = tuple(
    Prompt(
        prompt_id=strategy,
        version=1,
        template=_ASKED % instruction.replace("{{first_name}}", "first_name in double braces"),
        strategy=strategy,
        parameters={"temperature": 0.9},
    )
    for strategy, instruction in _STRATEGIES.items()
)


def render(prompt: Prompt, values: Mapping[str, str]) -> str:
    """The template with its variables filled in."""
    return _VARIABLE.sub(lambda match: values[match[1]], prompt.template)


def put_prompt(
    connection: Connection,
    prompt_id: str,
    template: str,
    strategy: str,
    parameters: Mapping[str, Any],
    now: int,
    actor: str = "cli",
) -> Prompt:
    """Register a prompt's next version; what is registered already is answered as it is.

    Raises :class:`BadInput` for a template that could not be rendered.
    """
    _check(prompt_id, template)
    stored = versions(connection, prompt_id)
    prompt = Prompt(
        prompt_id=prompt_id,
        version=1 + max((one.version for one in stored), default=0),
        template=template,
        strategy=strategy,
        parameters=dict(parameters),
    )
    for one in stored:
        if msgspec.structs.replace(one, version=prompt.version) == prompt:
            return one
    connection.execute(tables.prompts.insert().values(**msgspec.structs.asdict(prompt), created_at=now))
    record(connection, actor, "prompt", prompt.name, {"strategy": strategy}, now)
    return prompt


def newest(connection: Connection) -> list[Prompt]:
    """The highest version of every prompt, by name."""
    c = tables.prompts.c
    highest = select(c.prompt_id, func.max(c.version).label("version")).group_by(c.prompt_id).subquery()
    query = select(tables.prompts).join(
        highest, (highest.c.prompt_id == c.prompt_id) & (highest.c.version == c.version)
    )
    return [_prompt_of(row) for row in connection.execute(query.order_by(c.prompt_id))]


def versions(connection: Connection, prompt_id: str) -> list[Prompt]:
    """All versions of a prompt, in order."""
    c = tables.prompts.c
    query = select(tables.prompts).where(c.prompt_id == prompt_id).order_by(c.version)
    return [_prompt_of(row) for row in connection.execute(query)]


def _prompt_of(row: Any) -> Prompt:
    return Prompt(**{name: getattr(row, name) for name in Prompt.__struct_fields__})


def _check(prompt_id: str, template: str) -> None:
    if not _NAME.fullmatch(prompt_id):
        raise BadInput(f"Prompt id {prompt_id!r}: write 1 to 64 letters, digits, dots, dashes or underscores")
    if not template.strip() or len(template) > LONGEST:
        raise BadInput(f"The template has {len(template)} characters; write 1 to {LONGEST:,}")
    named = set(_VARIABLE.findall(template))
    if unknown := sorted(named - set(VARIABLES)):
        raise BadInput(
            f"The template names {{{{{unknown[0]}}}}}, which nobody fills in; it may name {', '.join(VARIABLES)}"
        )
    if missing := sorted({"brief", "count"} - named):
        raise BadInput(f"The template does not name {{{{{missing[0]}}}}}; without it nobody knows what to write")
