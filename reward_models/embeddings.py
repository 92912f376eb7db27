"""Embeddings: a text as a vector, computed once by an OpenAI-compatible server, and kept.

Optional: without ``REWARDLOOP_EMBEDDINGS_URL`` nothing is asked for. With it, before a loop is trained:

1. the loop's texts that have no vector by this model yet
2. ``POST {url}/embeddings`` with ``{"model", "input": [texts]}``, ``BATCH`` at a time
3. stored (``vectors.py``) and never asked for again

They are one more block of the text contrasts (``text.py``), out of fold like the others. A text without a vector is
scored by its words and factors alone.

    embedder_of(settings) -> Embedder or None       embedder.vectors(texts) -> Vectors
    embed_loop(engine, embedder, loop_id, now) -> how many were new          embed_if_asked(settings, engine, loop_id, now)
"""

from collections.abc import Sequence

import httpx2
import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from infra.database import reading, writing
from infra.errors import Misconfigured, Unavailable
from infra.logs import log
from infra.settings import Settings
from reward_models.vectors import Vectors, keep, load_vectors, texts_of, unit

Floats = npt.NDArray[np.float64]

BATCH = 64
"""Texts per request."""
_TIMEOUT = 60.0


class _Item(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Item]


class Embedder:
    """The server that makes vectors. Raises :class:`Unavailable` when it does not answer as it should."""

    def __init__(self, url: str, model: str, key: str = "") -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.model = model
        self._url = f"{url}/embeddings"
        self._client = httpx2.Client(headers=headers, timeout=_TIMEOUT)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """A unit vector of each distinct text."""
        distinct = list(dict.fromkeys(texts))
        found: dict[str, Floats] = {}
        for start in range(0, len(distinct), BATCH):
            part = distinct[start : start + BATCH]
            found |= dict(zip(part, self._ask(part), strict=True))
        return Vectors(self.model, found)

    def _ask(self, texts: Sequence[str]) -> Floats:
        try:
            answer = self._client.post(self._url, json={"model": self.model, "input": list(texts)})
            answer.raise_for_status()
            items = sorted(msgspec.json.decode(answer.content, type=_Answer).data, key=lambda item: item.index)
            raw = np.array([item.embedding for item in items], dtype=np.float64)
        except (httpx2.HTTPError, msgspec.MsgspecError, ValueError) as error:
            raise Unavailable(f"The embedding server at {self._url} gave no vectors: {error}") from None
        if raw.ndim != 2 or len(raw) != len(texts) or not np.isfinite(raw).all():
            raise Unavailable(f"The embedding server at {self._url} answered {len(raw)} vectors for {len(texts)} texts")
        return unit(raw)


def embedder_of(settings: Settings) -> Embedder | None:
    """The embedder these settings ask for; None without one. Raises :class:`Misconfigured` for a key file not there."""
    if not settings.embeddings_url:
        return None
    try:
        key = "" if settings.embeddings_key_file is None else settings.embeddings_key_file.read_text().strip()
    except OSError as error:
        raise Misconfigured(f"REWARDLOOP_EMBEDDINGS_KEY_FILE cannot be read: {error.strerror}") from None
    return Embedder(settings.embeddings_url, settings.embeddings_model, key)


def embed_if_asked(settings: Settings, engine: Engine, loop_id: str, now: int) -> None:
    """:func:`embed_loop` where a server is configured. One that is away is no reason not to learn: it is logged."""
    embedder = embedder_of(settings)
    if embedder is None:
        return
    try:
        made = embed_loop(engine, embedder, loop_id, now)
        log.info("texts_embedded", loop=loop_id, model=embedder.model, made=made)
    except Unavailable as error:
        log.warning("texts_not_embedded", loop=loop_id, model=embedder.model, reason=str(error))


def embed_loop(engine: Engine, embedder: Embedder, loop_id: str, now: int) -> int:
    """Make and keep the vectors that a loop's texts lack; returns how many. Each batch is kept as it comes."""
    with reading(engine) as connection:
        known = load_vectors(connection, loop_id, embedder.model).by_text
        missing = [text for text in texts_of(connection, loop_id) if text not in known]
    for start in range(0, len(missing), BATCH):
        made = embedder.vectors(missing[start : start + BATCH])
        with writing(engine) as connection:
            keep(connection, made, now)
    return len(missing)
