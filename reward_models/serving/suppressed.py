"""Who is suppressed, in memory, so that it holds without the database too. About 40 bytes a customer.

Per scope (a loop, or every loop): sorted unit hashes with the number of their reason, and what has changed since they
were sorted. Immutable: a change gives another one, which shares what did not change.

    suppressed.reason(loop_id, units) -> "unsubscribe" | None          units: every hash of one customer
    suppressed.changed(entries) -> Suppressed
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ingestion.people.suppressions import EVERY_LOOP, Entry

Ints = npt.NDArray[np.int32]

RECENT = 5_000
"""Changes of a scope that are kept beside the sorted hashes; more are sorted in."""


@dataclass(frozen=True)
class _Scope:
    hashes: npt.NDArray[np.bytes_] = field(default_factory=lambda: np.zeros(0, dtype="S1"))
    numbers: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    words: tuple[str, ...] = ()
    """Reasons, by number."""
    recent: Mapping[str, str | None] = field(default_factory=dict)
    """Reason by hash; null: lifted."""

    def reason(self, unit: str) -> str | None:
        """Why this customer is suppressed."""
        if unit in self.recent:
            return self.recent[unit]
        wanted = unit.encode()
        if len(wanted) > self.hashes.itemsize:  # comparing it would copy all of them to that length
            return None
        place = int(np.searchsorted(self.hashes, np.array(wanted, dtype=self.hashes.dtype)))
        found = place < len(self.hashes) and self.hashes[place] == wanted
        return self.words[self.numbers[place]] if found else None

    def changed(self, reasons: Mapping[str, str | None]) -> "_Scope":
        """With these changes."""
        recent = {**self.recent, **reasons}
        if len(recent) <= RECENT:
            return _Scope(self.hashes, self.numbers, self.words, recent)
        now = {unit.encode(): reason for unit, reason in recent.items()}
        words = tuple(dict.fromkeys((*self.words, *(reason for reason in now.values() if reason is not None))))
        number = {word: place for place, word in enumerate(words)}
        kept = ~np.isin(self.hashes, np.array(list(now)))
        added = {unit: number[reason] for unit, reason in now.items() if reason is not None}
        hashes: npt.NDArray[Any] = np.concatenate([self.hashes[kept], np.array(list(added), dtype=np.bytes_)])
        numbers = np.concatenate([self.numbers[kept], np.array(list(added.values()), dtype=np.int32)])
        order = np.argsort(hashes, kind="stable")
        return _Scope(hashes[order], numbers[order], words)


@dataclass(frozen=True)
class Suppressed:
    """Everybody who is suppressed, by scope."""

    scopes: Mapping[str, _Scope] = field(default_factory=dict)

    def reason(self, loop_id: str, units: Iterable[str]) -> str | None:
        """Why a customer, known under these hashes, must not be sent anything in this loop; null: may be."""
        units = tuple(units)
        found = (
            self.scopes[scope].reason(unit) for scope in (EVERY_LOOP, loop_id) if scope in self.scopes for unit in units
        )
        return next((reason for reason in found if reason is not None), None)

    def changed(self, entries: Iterable[Entry]) -> "Suppressed":
        """With these entries as they are now."""
        by_scope: dict[str, dict[str, str | None]] = {}
        for entry in entries:
            by_scope.setdefault(entry.scope, {})[entry.unit] = entry.reason if entry.holds else None
        changed = {scope: self.scopes.get(scope, _Scope()).changed(reasons) for scope, reasons in by_scope.items()}
        return Suppressed({**self.scopes, **changed}) if changed else self
