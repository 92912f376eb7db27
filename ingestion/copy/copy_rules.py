"""What a loop demands of its copy: the ``copy_rules`` part of its definition. ``guardrails.py`` holds texts against it.

Nothing is demanded where nothing is said, so a loop without this part takes every text as before.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Phrase = Annotated[str, Field(min_length=1, max_length=200)]
Phrases = Annotated[tuple[Phrase, ...], Field(max_length=500)]
Host = Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?$")]
LocaleRange = Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$")]
Placeholder = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,63}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SlotRule(_Part):
    """Length of one slot, in characters as a reader counts them: a placeholder counts as it is written."""

    least: int = Field(0, ge=0, le=100_000, description="Least length; 1 or more makes the slot obligatory.")
    most: int = Field(100_000, ge=1, le=100_000, description="Largest length.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"the least length {self.least} is above the largest, {self.most}; swap them")
        return self


class CopyRules(_Part):
    """Rules that every new content of the loop has to pass; one that breaks any is rejected, with the reason."""

    slots: dict[str, SlotRule] = Field(
        default_factory=dict, max_length=20, description="`{slot: {least, most}}`: length per slot."
    )
    banned: Phrases = Field((), description="Words and phrases that must not occur, whatever their case.")
    required: Phrases = Field((), description="Words and phrases that each content must hold.")
    links: Annotated[tuple[Host, ...], Field(max_length=200)] | None = Field(
        None,
        description="Hosts that links may lead to: `shop.example.com`, `*.example.com`. Empty: no links at all. Null: any.",
    )
    facts: Literal["free", "brief"] = Field(
        "free",
        description="brief: no number, price, percentage or date but those of the campaign's brief. free: not looked at.",
    )
    personal_data: bool = Field(
        True,
        description="Whether personal data may occur. false: no e-mail address, telephone, card or account number.",
    )
    locales: Annotated[tuple[LocaleRange, ...], Field(max_length=100)] = Field(
        (), description="Locales the copy may be in: `de` takes `de-AT` too. Empty: any."
    )
    placeholders: Annotated[tuple[Placeholder, ...], Field(max_length=100)] | None = Field(
        None, description="Names that `{{…}}` may hold: `first_name`. Empty: no placeholders. Null: not looked at."
    )
    most_similar: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Copy that is this similar to other copy of its campaign is a near duplicate: 0.8 is a good start, 1 "
        "means equal but for case, blanks and signs. Null: not looked at.",
    )

    @property
    def any(self) -> bool:
        """Whether anything is demanded."""
        return self != CopyRules()
