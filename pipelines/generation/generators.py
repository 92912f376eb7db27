"""What writes copy: orders in, drafts out. A generator knows no database, and nothing of what its drafts will earn.

    generator.write([Order, …]) -> Written      as many drafts as it can; what failed is told in sentences

Two of them: a language model behind an endpoint (``language_model.py``) and templates (``templated.py``), which are
offline, free, and good enough to show the loop.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ingestion.copy.copy_rules import CopyRules
from ingestion.events import Content
from pipelines.generation.prompts import Prompt


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` variants of copy by one prompt. ``winners``, ``losers``: earlier copy to learn from, the clearest first."""

    prompt: Prompt
    count: int
    seed: int
    brief: str
    channel: str = "email"
    slots: tuple[str, ...] = ("subject",)
    locale: str | None = None
    rules: CopyRules = CopyRules()
    winners: tuple[str, ...] = ()
    losers: tuple[str, ...] = ()


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A variant, with where it comes from: as a content it keeps all of this."""

    slots: dict[str, str]
    prompt: Prompt
    generator: str
    model: str
    seed: int | None = None
    """None: it was written without one."""
    parameters: Mapping[str, Any] = {}
    """What it was really written with."""
    tokens_read: int = 0
    tokens_written: int = 0
    micros: int = 0
    currency: str = ""
    locale: str | None = None
    parent_id: str | None = None

    def content(self, campaign_id: str) -> Content:
        """Not yet admitted by its loop."""
        return Content(
            content_id="",
            campaign_id=campaign_id,
            slots=self.slots,
            locale=self.locale,
            prompt_id=self.prompt.prompt_id,
            generator=self.generator,
            parameters={
                **self.parameters,
                "prompt_version": self.prompt.version,
                "model": self.model,
                **({} if self.seed is None else {"seed": self.seed}),
                "tokens_read": self.tokens_read,
                "tokens_written": self.tokens_written,
                "cost_micros": self.micros,
                "currency": self.currency,
            },
            parent_id=self.parent_id,
        )


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the orders. ``tokens`` and ``micros`` of everything, also of what failed."""

    drafts: tuple[Draft, ...] = ()
    failures: tuple[str, ...] = ()
    tokens: int = 0
    micros: int = 0
    currency: str = ""
    away: bool = False
    """Whether the generator did not answer at all: trying again may help."""


class Generator(Protocol):
    """Writes copy."""

    name: str

    def write(self, orders: Sequence[Order]) -> Written:
        """All that it can of what was ordered."""


def shares(total: int, parts: int) -> list[int]:
    """A whole number in as many nearly equal parts: they sum to it."""
    return [total * (part + 1) // parts - total * part // parts for part in range(parts)]
