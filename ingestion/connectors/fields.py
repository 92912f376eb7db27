"""Fields of vendors' records, read without trust: a missing or odd one is None, nothing raises.

And what all connectors do alike: which text is a token, which id is an id, which time is a time.
"""

import hashlib
import re
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from infra.clock import MICROS, format_time
from ingestion.connectors.items import UNTIMED, Ignored, Mark, Recognised, Record
from ingestion.events import REFUND
from ingestion.tokens import FORM, PARAMETER

NOBODY = "names nobody: no token, no customer"
NO_ORDER = "a refund that names no order"

_ID = re.compile(r"[A-Za-z0-9._:@+/=-]{1,200}")
_LONGEST_TEXT = 500
_MOST_DIGITS = 30
"""Before and after the point of an amount. Beyond, arithmetic overflows and a short text becomes a very long one."""


def at(record: Any, *path: str) -> Any:
    """The value at the end of the path, or None."""
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def text(*values: Any) -> str | None:
    """The first value that is a text or a whole number, as text without spaces around it."""
    for value in values:
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
            return str(value)
    return None


def word(value: Any) -> str:
    """A type or state of the vendor for comparisons and reasons: lower case, printable, short."""
    return clean(text(value) or "", 64).lower()


def clean(value: str, longest: int = _LONGEST_TEXT) -> str:
    """The printable characters of a text, cut."""
    return "".join(letter for letter in value[:longest] if letter.isprintable())


def email(*values: Any) -> str | None:
    """The first e-mail address, in lower case."""
    return next((found.lower() for value in values if (found := text(value)) and "@" in found), None)


def said_true(value: Any) -> bool:
    """True for ``true`` and ``"true"``: vendors write both."""
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def moment(*values: Any) -> str | None:
    """The first time among the values, as ISO 8601: seconds since 1970 as number or digits, or a text as it is."""
    for value in values:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{9,11}", value.strip()):
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e11:
            return format_time(round(value * MICROS))
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def token(*values: Any) -> str | None:
    """The first value that has the form of a token. Whether it is ours, its signature says later."""
    return next((found for value in values if (found := text(value)) and FORM.fullmatch(found)), None)


def token_in_url(*urls: Any) -> str | None:
    """The token in the query of the first URL that carries one."""
    for url in urls:
        try:
            query = urlsplit(text(url) or "").query
            found = token(*parse_qs(query, max_num_fields=100).get(PARAMETER, ()))
        except ValueError:
            continue
        if found:
            return found
    return None


def page(url: Any) -> str | None:
    """A URL without what may be private in it: no user, no query, no fragment; none for ``mailto:`` and its like."""
    try:
        parts = urlsplit(text(url) or "")
        host = f"//{parts.hostname}" if parts.hostname else ""
    except ValueError:
        return None
    if parts.scheme and not host:
        return None
    scheme = f"{parts.scheme}:" if parts.scheme else ""
    return clean(f"{scheme}{host}{parts.path}") or None


def event_id(record: Record, given: Any, placeholder: str = "", *volatile: str) -> str:
    """The vendor's id, or its digest if it is odd; of the record where it is missing or only its field's name.

    ``volatile``: fields that differ between two deliveries of the same record, left out of the digest.
    """
    found = text(given)
    if found and found != placeholder:
        return found if _ID.fullmatch(found) else _digest(found)
    return _digest({name: value for name, value in record.items() if name not in volatile})


def _digest(said: Any) -> str:
    return f"sha256:{hashlib.sha256(msgspec.json.encode(said, order='sorted')).hexdigest()}"


def order(*values: Any) -> str | None:
    """The first order id, in the form all vendors share: Shopify's global ids become their last part."""
    found = text(*values)
    return found.rsplit("/", 1)[-1] if found and found.startswith("gid://") else found


def currency(*values: Any) -> str | None:
    """The first currency, in upper case."""
    found = text(*values)
    return found.upper() if found else None


def amount(value: Any) -> Decimal | None:
    """A number, or a text that is one; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)[:40]) == 40:
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and abs(found.adjusted()) < _MOST_DIGITS else None


def plain(value: Decimal) -> str:
    """The number without an exponent."""
    return f"{value:f}"


def recognised(document: Record, *marks: Mark) -> Recognised | Ignored:
    """The event, without its empty fields; ignored, if nothing could ever be made of it."""
    time = UNTIMED if document.get("occurred_at") is None else {}
    said = {name: value for name, value in document.items() if value is not None}
    if isinstance(properties := said.pop("properties", None), dict):
        said["properties"] = {name: value for name, value in properties.items() if value is not None}
    if said["type"] == REFUND and "reverses" not in said:
        return Ignored(NO_ORDER)
    if said.keys().isdisjoint(("token", "decision_id", "unit", "reverses")):
        return Ignored(NOBODY)
    return Recognised(said | time, marks)
