"""The order in which a reader meets the slots of a content: wherever copy is shown to people.

as_read(slots) -> [(name, text)]        in_reading_order(names) -> names
"""

from collections.abc import Iterable, Mapping
from typing import Any

_PLACE = {
    name: place
    for place, name in enumerate(("subject", "preheader", "title", "headline", "push", "text", "body", "cta"))
}


def as_read(slots: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Slots with their texts."""
    return [(name, str(slots[name])) for name in in_reading_order(slots)]


def in_reading_order(names: Iterable[str]) -> list[str]:
    """Names of slots; those that are no usual ones last, by name."""
    return sorted(names, key=lambda name: (_PLACE.get(name, len(_PLACE)), name))
