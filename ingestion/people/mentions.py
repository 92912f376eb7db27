"""Whether bytes speak of a person: the ids a person is known by, our hashes of these, and what was decided for them.

An id counts where it stands by itself, as it is or as JSON and addresses write it: ``ann`` is in ``{"unit": "ann"}``, not
in ``channel``. A decision is told by its mark (``Secrets.mark``), which is all that is left of it once it is deleted, and
so is a token, which names one.
"""

import json
import re
from collections.abc import Collection, Iterator
from urllib.parse import quote

from infra.errors import BadInput
from infra.secrets import Secrets
from ingestion.tokens import FORM, read_token

_RUN = re.compile(r"[^\s\"'<>,;(){}\[\]\\]{1,300}")
"""What may be the id of a decision: it ends where text of any of our formats would go on."""


class Mentions:
    """What to look for. ``users``: ids in clear; ``units``: their hashes; ``marks``: of decisions that were deleted."""

    def __init__(
        self, secrets: Secrets, users: Collection[str], units: Collection[str], marks: Collection[str]
    ) -> None:
        self._secrets, self._marks = secrets, frozenset(marks)
        self.words = sorted({form for user in users for form in _forms(user)} | set(units), key=len, reverse=True)
        spelled = "|".join(re.escape(word) for word in self.words).encode()
        self._pattern = re.compile(rb"(?<![A-Za-z0-9])(?:" + spelled + rb")(?![A-Za-z0-9])")

    def named(self, raw: bytes) -> bool:
        """Whether the person is named."""
        return self._pattern.search(raw) is not None

    def meant(self, raw: bytes) -> bool:
        """Whether the person is named, or a decision that was made for them."""
        return self.named(raw) or (bool(self._marks) and any(map(self.decided, _runs(raw))))

    def decided(self, text: str) -> bool:
        """Whether this is the id of such a decision, or a token that names one."""
        return self._secrets.mark(text) in self._marks or any(
            self._secrets.mark(decision_id) in self._marks for decision_id in self._named_by_tokens(text)
        )

    def without(self, raw: bytes, filler: bytes = b"") -> bytes:
        """The bytes with every name taken out; ``filler``, one byte, keeps their length."""
        return self._pattern.sub(lambda found: filler * len(found[0]) or "…".encode(), raw)

    def _named_by_tokens(self, text: str) -> Iterator[str]:
        for token in FORM.findall(text):
            try:
                yield read_token(self._secrets, token).decision_id
            except BadInput:
                continue


def _forms(user: str) -> set[str]:
    """An id as texts, JSON and addresses write it."""
    return {user, json.dumps(user)[1:-1], json.dumps(user, ensure_ascii=False)[1:-1], quote(user, safe=""), quote(user)}


def _runs(raw: bytes) -> Iterator[str]:
    return (found[0] for found in _RUN.finditer(raw.decode("utf-8", "replace")))
