"""What a run of the generate flow is asked to do, and what came of it."""

import msgspec


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is to do: keep ``count`` of ``count · candidates`` drafts. ``prompts``: only these; empty: all.

    ``examples``: winners and losers that are shown, each. ``seed``: the same seed orders the same."""

    campaign_id: str
    count: int = 8
    candidates: int = 8
    slots: tuple[str, ...] = ("subject",)
    locale: str | None = None
    examples: int = 5
    prompts: tuple[str, ...] = ()
    seed: int | None = None


class PromptShare(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt in a run: its probability, what it wrote, passed and had kept."""

    name: str
    probability: float
    written: int
    passed: int
    kept: int


class KeptCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A content that was kept. ``expected``, ``low``: reward per decision; null without a model."""

    content_id: str
    text: str
    prompt: str
    approval: str
    why: str
    expected: float | None = None
    low: float | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run."""

    loop_id: str
    campaign_id: str
    state: str
    """``approved``, ``waiting`` (for approval) or ``nothing``."""
    sentence: str
    ordered: int
    written: int
    known: int
    passed: int
    kept: tuple[KeptCopy, ...]
    broken: dict[str, int]
    """Drafts per rule that they broke."""
    prompts: tuple[PromptShare, ...]
    examples: int
    model_version: str | None
    generator: str
    tokens: int
    micros: int
    currency: str
    failures: tuple[str, ...] = ()
    rated: int = 0
    """Kept contents that a judge rated; what that took is in ``tokens`` and ``micros``."""
