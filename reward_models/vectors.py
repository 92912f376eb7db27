"""The stored embeddings of texts: unit vectors of float32, under the SHA-256 of the text and the model that made them.

Who makes them: ``embeddings.py``. Who learns from them: ``text.py``.

    load_vectors(connection, loop_id, model, until=None) -> Vectors        newest_model(connection) -> str
    keep(connection, vectors, now)                             texts_of(connection, loop_id) -> list of texts
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from infra import tables
from infra.database import insert_once
from ingestion.contents import content_of
from reward_models.features import text_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Vectors:
    """Unit vectors by text, all of one embedding model; empty without one."""

    model: str = ""
    by_text: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Numbers per vector; 0 when there is none."""
        return next((len(vector) for vector in self.by_text.values()), 0)

    def of(self, texts: Sequence[str], size: int) -> Floats:
        """The vectors of texts, shape (k, size); nan where there is none of that size."""
        found = np.full((len(texts), size), np.nan)
        for row, text in enumerate(texts):
            vector = self.by_text.get(text)
            if vector is not None and len(vector) == size:
                found[row] = vector
        return found

    @property
    def digest(self) -> str:
        """SHA-256 over model, texts and numbers, in the order of the texts; empty when there are none."""
        if not self.by_text:
            return ""
        state = hashlib.sha256(self.model.encode())
        for text in sorted(self.by_text):
            state.update(_hash(text).encode() + _packed(self.by_text[text]))
        return state.hexdigest()


NO_VECTORS = Vectors()


def keep(connection: Connection, vectors: Vectors, now: int) -> None:
    """Store vectors; those that are stored already stay as they are."""
    rows = [
        {"text_hash": _hash(text), "model": vectors.model, "vector": _packed(vector), "made_at": now}
        for text, vector in vectors.by_text.items()
    ]
    insert_once(connection, tables.embeddings, rows)


def load_vectors(connection: Connection, loop_id: str, model: str, until: int | None = None) -> Vectors:
    """The stored vectors of a loop's texts by one embedding model, made by ``until``; none for the empty name."""
    if not model:
        return NO_VECTORS
    c = tables.embeddings.c
    wanted = [c.model == model] + ([] if until is None else [c.made_at <= until])
    stored = dict(connection.execute(select(c.text_hash, c.vector).where(*wanted)).tuples().all())
    named = ((text, stored.get(_hash(text))) for text in texts_of(connection, loop_id))
    return Vectors(model, {text: _unpacked(vector) for text, vector in named if vector is not None})


def newest_model(connection: Connection) -> str:
    """The embedding model whose vectors are the newest; empty when there are none."""
    c = tables.embeddings.c
    return connection.scalar(select(c.model).order_by(c.made_at.desc(), c.model).limit(1)) or ""


def texts_of(connection: Connection, loop_id: str) -> list[str]:
    """The distinct texts of a loop's contents, by content id."""
    contents, campaigns = tables.contents, tables.campaigns
    query = (
        select(contents)
        .join(campaigns, campaigns.c.campaign_id == contents.c.campaign_id)
        .where(campaigns.c.loop_id == loop_id)
        .order_by(contents.c.content_id)
    )
    texts = (text_of(content_of(row)) for row in connection.execute(query))
    return list(dict.fromkeys(text for text in texts if text.strip()))


def unit(raw: Floats) -> Floats:
    """Vectors of length one, shape (k, size), with the numbers that they have when read back."""
    length = np.linalg.norm(raw, axis=1, keepdims=True)
    return np.asarray((raw / np.where(length > 0, length, 1.0)).astype("<f4"), dtype=np.float64)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _packed(vector: Floats) -> bytes:
    return vector.astype("<f4").tobytes()


def _unpacked(stored: bytes) -> Floats:
    return np.frombuffer(stored, dtype="<f4").astype(np.float64)
