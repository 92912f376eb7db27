"""The training set: decisions with what came of them, as of one batch, and aggregated past results.

One row per shown content of a mature decision (a slate of three is three rows). Mature: it has a start, and its
outcome is final by ``now`` (invariant 13); the others are counted in ``immature`` and left out, unless ``censored``
asks for them: those that have started are then rows with what has come so far, for training alone.

    TrainingSet.subset(rows, history)   a part of it: masks or indices
    TrainingSet.digest                  SHA-256 of everything in it

``loading.py`` reads it out of the database.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.database import canonical_json
from ingestion.events import Candidate, Content
from reward_models.choices import Choices
from reward_models.contexts import Contexts
from reward_models.vectors import NO_VECTORS, Vectors

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LISTS = ("decision_id", "unit", "group", "learning_mode")
"""Columns of a training set that are texts."""
_ARRAYS = ("decided_at", "content", "position", "propensity", "holdout", "reward")


@dataclass(frozen=True)
class History:
    """Aggregated past results, m rows. ``reward``: mean per exposure. ``metrics``: sums, in units."""

    content: Ints
    exposures: Floats
    metrics: Mapping[str, Floats]
    reward: Floats
    noise: Floats
    """Variance of the reward of one exposure, shape (m,); nan where an aggregate does not tell."""
    trusted: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.content)

    def subset(self, rows: npt.NDArray[Any]) -> "History":
        """Only these rows: a mask or indices."""
        return History(
            self.content[rows],
            self.exposures[rows],
            {name: values[rows] for name, values in self.metrics.items()},
            self.reward[rows],
            self.noise[rows],
            self.trusted[rows],
        )


@dataclass(frozen=True)
class Arrivals:
    """Outcomes of one metric, m of them: the row they belong to, and how long after its start. Shape (m,)."""

    row: Ints
    delay: Floats
    """Microseconds from the start of the decision to the event."""

    def subset(self, place: Ints) -> "Arrivals":
        """Those of the rows that are kept: ``place`` is a row's new index, -1 for one that goes."""
        kept = place[self.row] >= 0
        return Arrivals(place[self.row[kept]], self.delay[kept])


@dataclass(frozen=True)
class Timing:
    """When the outcomes came, by which ``delays.py`` learns how many are still to come."""

    age: Floats
    """Microseconds from the start of each row's decision to ``now``, shape (n,)."""
    maturity: int
    arrivals: Mapping[str, Arrivals]
    """By metric: of ``count`` and ``sum`` the first and the last event, else the one that counts."""
    lags: Mapping[str, tuple[float, ...]]
    """By metric: equally likely times from event to us, microseconds."""

    @property
    def mature(self) -> npt.NDArray[np.bool_]:
        """Rows whose outcome is final, shape (n,)."""
        return np.asarray(self.age >= self.maturity)

    def subset(self, kept: Ints) -> "Timing":
        """Of some rows, by index."""
        place = np.full(len(self.age), -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        arrivals = {name: came.subset(place) for name, came in self.arrivals.items()}
        return replace(self, age=self.age[kept], arrivals=arrivals)


@dataclass(frozen=True)
class TrainingSet:
    """Mature decisions (n rows) and past results (m rows) of a loop. ``content``: index into ``contents``."""

    loop_id: str
    loop_version: int
    as_of: int
    contents: tuple[Content, ...]
    decision_id: tuple[str, ...]
    unit: tuple[str | None, ...]
    decided_at: Ints
    contexts: Sequence[Mapping[str, Any]]
    content: Ints
    position: Ints
    propensity: Floats
    """Shape (n,); nan where it is unknown."""
    holdout: Floats
    """Probability with which the row's unit had been held out, shape (n,); 0 where nobody was."""
    group: tuple[str, ...]
    learning_mode: tuple[str, ...]
    candidates: Sequence[tuple[Candidate, ...]]
    """With their contents and probabilities; what the policy knew of them is not kept."""
    metrics: Mapping[str, Floats]
    """Value per row, in units: one click is 1.0."""
    reward: Floats
    history: History
    immature: int = 0
    """Decisions whose outcome is not final; they are rows only of a set that was loaded with ``censored``."""
    timing: Timing | None = None
    """None: every row is mature, and nobody knows when its outcome came."""
    exposures: Floats | None = None
    """Share of each row's reward that has come in, shape (n,), ``reward`` being scaled up by it; None: all of it."""
    vectors: Vectors = NO_VECTORS
    """Embeddings of the contents' texts, where an embedder is configured."""

    def __len__(self) -> int:
        return len(self.decision_id)

    @property
    def campaign_id(self) -> list[str]:
        """Campaign of each row."""
        return [self.contents[index].campaign_id for index in self.content]

    @property
    def chosen(self) -> list[str]:
        """Content id of each row."""
        return [self.contents[index].content_id for index in self.content]

    @cached_property
    def index(self) -> dict[tuple[str, str], int]:
        """Index into ``contents`` by campaign and content id."""
        return {(content.campaign_id, content.content_id): index for index, content in enumerate(self.contents)}

    @property
    def mature(self) -> npt.NDArray[np.bool_]:
        """Rows whose outcome is final, shape (n,)."""
        return np.ones(len(self), dtype=np.bool_) if self.timing is None else self.timing.mature

    def matured(self) -> "TrainingSet":
        """Only the rows whose outcome is final: what may be valued and reported (invariant 13)."""
        return self if self.mature.all() else self.subset(self.mature)

    def candidate_contents(self, row: int) -> list[Content]:
        """The contents that could have been chosen in a row, in the order of its ``candidates``."""
        campaign = self.contents[self.content[row]].campaign_id
        return [self.contents[self.index[campaign, candidate.content_id]] for candidate in self.candidates[row]]

    def subset(self, rows: npt.NDArray[Any] | None = None, history: npt.NDArray[Any] | None = None) -> "TrainingSet":
        """Only these rows of decisions and of history, each a mask or indices; None keeps all."""
        kept = np.arange(len(self)) if rows is None else np.arange(len(self))[rows]
        past = self.history if history is None else self.history.subset(history)
        parts: dict[str, Any] = {name: _some(getattr(self, name), kept) for name in LISTS}
        parts |= {
            "contexts": Contexts.of(self.contexts).take(kept),
            "candidates": Choices.of(self.candidates).take(kept),
        }
        parts |= {name: getattr(self, name)[kept] for name in _ARRAYS}
        metrics = {name: values[kept] for name, values in self.metrics.items()}
        parts["timing"] = None if self.timing is None else self.timing.subset(kept)
        parts["exposures"] = None if self.exposures is None else self.exposures[kept]
        return replace(self, **parts, metrics=metrics, history=past)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in the set, in order."""
        state = hashlib.sha256(canonical_json([self.loop_id, self.loop_version, self.as_of]))
        for content in self.contents:
            about = [content.campaign_id, content.content_id, content.fingerprint]
            state.update(canonical_json([*about, content.measured] if content.measured else about))
        for name in LISTS:
            state.update(canonical_json(getattr(self, name)))
        Contexts.of(self.contexts).update(state)
        Choices.of(self.candidates).update(state)
        for name in _ARRAYS:
            state.update(getattr(self, name).tobytes())
        _update(state, self.metrics)
        past = self.history
        for values in (past.content, past.exposures, past.reward, past.noise, past.trusted):
            state.update(values.tobytes())
        _update(state, past.metrics)
        if self.timing is not None:
            _update(
                state, {"age": self.timing.age, **{name: came.delay for name, came in self.timing.arrivals.items()}}
            )
            state.update(canonical_json(self.timing.lags))
        _update(state, {} if self.exposures is None else {"exposures": self.exposures})
        state.update(self.vectors.digest.encode())
        return state.hexdigest()


def _some(values: Sequence[Any], rows: Ints) -> tuple[Any, ...]:
    return tuple([values[row] for row in rows.tolist()])


def _update(state: Any, metrics: Mapping[str, Floats]) -> None:
    for name in sorted(metrics):
        state.update(name.encode())
        state.update(metrics[name].tobytes())
