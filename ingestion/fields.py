"""The field types of every body that comes in over HTTP, with their limits: checked once, at the edge."""

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

ID = r"^[A-Za-z0-9._:@-]{1,256}$"
LONG_ID = r"^[A-Za-z0-9._:@+/=-]{1,256}$"
FEATURES_LIMIT = 200
TEXT_LIMIT = 1_000


def storable(text: str) -> str:
    """The text, unchanged. Raises ``ValueError`` for what no database keeps."""
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must not hold U+0000 or half of a surrogate pair; leave it out")
    return text


def can_name(text: str) -> bool:
    """Whether a decision or a customer may have this text as id: 1 to 256 characters that every database keeps."""
    try:
        return 0 < len(storable(text)) <= 256
    except ValueError:
        return False


Id = Annotated[str, Field(pattern=ID, description="1 to 256 of the characters `A-Z a-z 0-9 . _ : @ -`.")]
DecisionId = Annotated[
    str, Field(min_length=1, max_length=256, description="Any text of 1 to 256 characters."), AfterValidator(storable)
]
Person = Annotated[str, Field(min_length=1, max_length=256, description="The customer's id, in clear; stored hashed.")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Moment = Annotated[str, Field(min_length=10, max_length=40, examples=["2026-11-22T10:02:00Z"])]


_MEMBER = re.compile("<.*>")
"""What the members of a union are tagged with, where they are told apart before they are read."""


def scalar(value: Any) -> Any:
    """The value of a feature, unchanged. Raises ``ValueError`` that says what a feature may be."""
    if not isinstance(value, float | int | str | bool | None):
        raise ValueError("must be a number, a text, true, false or null; flatten it into several features")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number; leave the feature out when it is unknown")
    if isinstance(value, int) and abs(value) > 2**53:
        raise ValueError("must be within ±2^53; send larger numbers as text")
    if isinstance(value, str) and len(value) > TEXT_LIMIT:
        raise ValueError(f"must have at most {TEXT_LIMIT} characters")
    return value


Scalar = Annotated[float | int | str | bool | None, Field(union_mode="smart"), BeforeValidator(scalar)]
Features = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=128)], Scalar],
    Field(max_length=FEATURES_LIMIT, description="`{name: number, text, boolean or null}`, at most 200."),
]


DOCUMENTED = ConfigDict(use_attribute_docstrings=True)
"""Makes the sentence below a field its description in the OpenAPI document: ``__pydantic_config__`` of a dataclass."""


class Body(BaseModel):
    """A body: frozen, and no field that we do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def sentence(error: Any) -> str:
    """One pydantic error as a sentence that says what to do."""
    steps = _steps(error["loc"])
    if not steps:
        return _message(error)
    name = f"{str(steps[-1])!r}" if isinstance(steps[-1], str) or len(steps) == 1 else f"'{steps[-2]}' [{steps[-1]}]"
    match error["type"]:
        case "missing":
            return f"{name} is missing; add it"
        case "extra_forbidden":
            return f"{name} is not a field here; leave it out or correct its name"
        case "string_pattern_mismatch":
            return f"{name} does not have the form {error['ctx']['pattern']}; correct it"
        case "too_short":
            return f"{name} needs at least {error['ctx']['min_length']} entry; it has {error['ctx']['actual_length']}"
        case "too_long":
            return f"{name} has more than {error['ctx']['max_length']} entries; send fewer"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"{name} must be an object of fields and values; correct it"
    message = _message(error)
    return f"{name}: {message[:1].lower()}{message[1:]}"


def pointer(location: Any) -> str:
    """A JSON pointer (RFC 6901) to the offending part of a body."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in _steps(location))


def _steps(location: Any) -> list[str | int]:
    """The path without the tags of unions, which no body holds."""
    return [step for step in location if not (isinstance(step, str) and _MEMBER.fullmatch(step))]


def _message(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")
