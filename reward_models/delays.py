"""How late outcomes are: which share of what will come has come in, by age of a decision, learned from the log.

Only outcomes that have come are seen with their delay, and a young decision can only show a short one: the delays at
hand are too short. They are right-truncated by the age a of their decision, which the reversed product limit takes
into account (Lynden-Bell 1971; Lagakos, Barraj & De Gruttola 1988), without assuming any family of laws:

    F(t) = Π_{s > t} (1 − e(s) / R(s)),   e(s) = outcomes with delay s,   R(s) = outcomes with delay ≤ s and age ≥ s

F(window) is 1: what comes later does not count. Steps of ``fit_delays``, per metric of the reward:

1. bins that follow the delays at hand; e and R per content and bin
2. the loop's law: e and R with ``PRIOR`` pseudo-outcomes of a law that is vague about the scale
3. each content's law: its e and R with n pseudo-outcomes of the loop's law. n is chosen by marginal likelihood
   (reversed hazards of a Dirichlet law are independent betas), so contents that do not differ share one law
4. what is left unsure: the variance of log F, the sum of what each of these betas leaves of it
5. the share of the reward that each metric brings

An outcome is seen once it has happened and its event has come in: ``lags`` are quantiles of the time on the way.

    fit_delays(training, definition) -> Delays
    Delays.arrived(age_micros, content_id) -> share           of the reward, in [0, 1]
    Delays.of(metric, age_micros, content_id) -> share        of one metric
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import betaln, polygamma

from ingestion.loops import LoopDefinition
from reward_models.dataset import TrainingSet
from reward_models.folds import codes_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PRIOR = 5.0
"""Pseudo-outcomes of the vague law: a handful of real ones outvote it."""
VAGUE = 1_000.0
"""The vague law is flat in log(1 + VAGUE · t / window): minutes to days of a weekly window are equally likely."""
LEAST = 20
"""A content with fewer outcomes than this keeps the loop's law."""
_CONCENTRATIONS = 2.0 ** np.arange(1, 12)
_BINS = 32
_ON_ITS_WAY = 0.95
_DIGITS = 5
_MOST = 1e3


class Law(msgspec.Struct, frozen=True):
    """F at ``times`` (microseconds, ascending, the last one the window), linear in between; 0 before 0."""

    times: tuple[float, ...]
    shares: tuple[float, ...]
    contents: dict[str, tuple[float, ...]] = {}
    """F at the same times of the contents that differ from the loop."""
    doubt: tuple[float, ...] = (0.0,)
    """Variance of log F of a content without a law of its own, at the same times."""
    doubts: dict[str, tuple[float, ...]] = {}
    """The same of the contents that have one."""
    lags: tuple[float, ...] = (0.0,)
    """Equally likely times on the way, microseconds."""
    weight: float = 1.0
    """Share of the reward that this metric brings."""

    def arrived(self, age: npt.ArrayLike, content_id: str | None = None) -> Floats:
        """Share of the outcomes that have come in at an age (microseconds), of the shape of ``age``."""
        shares = self.shares if content_id is None else self.contents.get(content_id, self.shares)
        at = np.subtract.outer(np.asarray(age, dtype=np.float64), np.array(self.lags))
        return np.asarray(np.where(at < 0.0, 0.0, np.interp(at, self.times, shares)).mean(axis=-1))

    def unsure(self, age: npt.ArrayLike, content_id: str | None = None) -> Floats:
        """Variance of the logarithm of :meth:`arrived`, of the shape of ``age``; 0 once all has come in."""
        doubt = self.doubt if content_id is None else self.doubts.get(content_id, self.doubt)
        at = np.asarray(age, dtype=np.float64) - float(np.mean(self.lags))
        return np.asarray(np.interp(at, self.times[-len(doubt) :], doubt))


class Delays(msgspec.Struct, frozen=True):
    """The delay laws of a loop's reward, by metric. Without any law everything has come in at once."""

    laws: dict[str, Law] = {}

    def arrived(self, age_micros: npt.ArrayLike, content_id: str | None = None) -> Floats:
        """Share of a content's reward that has come in at an age, in [0, 1], of the shape of ``age_micros``.

        An unknown content, or None, has the loop's law.
        """
        if not self.laws:
            return np.ones(np.shape(age_micros))
        parts = [law.weight * law.arrived(age_micros, content_id) for law in self.laws.values()]
        return np.clip(sum(parts, np.zeros(np.shape(age_micros))), 0.0, 1.0)

    def of(self, metric: str, age_micros: npt.ArrayLike, content_id: str | None = None) -> Floats:
        """Share of one metric's outcomes; 1 for a metric without a law."""
        law = self.laws.get(metric)
        return np.ones(np.shape(age_micros)) if law is None else law.arrived(age_micros, content_id)

    def of_rows(self, metric: str, training: TrainingSet) -> tuple[Floats, Floats]:
        """Of each row of a set with times: the share of one metric's outcomes that has come in, and how unsure it is
        (variance of its logarithm), shape (n,) each."""
        assert training.timing is not None
        law, shares, doubts = self.laws[metric], np.ones(len(training)), np.zeros(len(training))
        young = np.flatnonzero(~training.mature)
        age, content = training.timing.age[young], training.content[young]
        shares[young], doubts[young] = law.arrived(age), law.unsure(age)
        order = np.argsort(content, kind="stable")
        ends = np.cumsum(np.bincount(content, minlength=len(training.contents)))
        for index, one in enumerate(training.contents):
            if one.content_id in law.contents:
                rows = order[ends[index - 1] if index else 0 : ends[index]]
                shares[young[rows]] = law.arrived(age[rows], one.content_id)
                doubts[young[rows]] = law.unsure(age[rows], one.content_id)
        return shares, doubts


def fit_delays(training: TrainingSet, definition: LoopDefinition) -> Delays:
    """The laws of every metric that the reward weighs. A set without times has none: all of it has come in."""
    if training.timing is None:
        return Delays()
    timing, laws = training.timing, {}
    for name in sorted(name for name, weight in definition.reward.items() if weight):
        came = timing.arrivals[name]
        ids = [training.contents[index].content_id for index in training.content[came.row]]
        laws[name] = fit_law(
            came.delay, timing.age[came.row], ids, definition.metric(name).window, timing.lags.get(name, (0.0,))
        )
    return _weighed(Delays(laws), training, definition)


def fit_law(
    delay: Floats, age: Floats, content_ids: Sequence[str], window: int, lags: tuple[float, ...] = (0.0,)
) -> Law:
    """Steps 1 to 3 for one metric, from the outcomes that have come, shape (m,): delay and age in microseconds.

    Looked at from so long ago that hardly any event of that time is still on its way: what came later is left out.
    """
    delay, age = np.clip(delay, 0.0, window), age - float(np.quantile(lags, _ON_ITS_WAY))
    times = _edges(delay, float(window))
    names = list(dict.fromkeys(content_ids))
    events, at_risk = _counts(times, delay, age, codes_of(content_ids), len(names))
    vague = np.log1p(VAGUE * np.maximum(times / window, 1e-9)) / np.log1p(VAGUE)
    events_of_all, at_risk_of_all = events.sum(axis=0), at_risk.sum(axis=0)
    loop = _product_limit(events_of_all, at_risk_of_all, PRIOR, vague)
    law = Law(times=tuple(times.tolist()), shares=_rounded(loop), lags=lags)
    concentration = _concentration(events, at_risk, loop)
    if np.isinf(concentration):
        return msgspec.structs.replace(law, doubt=_rounded(_doubt(events_of_all, at_risk_of_all, PRIOR, vague)))
    none, enough = np.zeros(len(times)), np.flatnonzero(events.sum(axis=1) >= LEAST)
    prior = (concentration, loop)
    return msgspec.structs.replace(
        law,
        contents={names[k]: _rounded(_product_limit(events[k], at_risk[k], *prior)) for k in enough},
        doubt=_rounded(_doubt(none, none, *prior)),
        doubts={names[k]: _rounded(_doubt(events[k], at_risk[k], *prior)) for k in enough},
    )


def _edges(delay: Floats, window: float) -> Floats:
    """0, then the upper ends of the bins: quantiles of the delays, and of the vague law for where there are none."""
    vague = window / VAGUE * np.expm1(np.linspace(0.0, 1.0, _BINS // 2 + 1)[1:-1] * np.log1p(VAGUE))
    seen = np.quantile(delay, np.linspace(0.0, 1.0, _BINS + 1)[1:]) if len(delay) else np.zeros(0)
    return np.unique(np.round(np.concatenate([[0.0], vague, seen, [window]])))


def _counts(times: Floats, delay: Floats, age: Floats, content: Ints, contents: int) -> tuple[Floats, Floats]:
    """e and R, shape (contents, bins). An outcome is at risk from its own bin up to the one its age ends in, and there
    for the part of it that has passed, as in life tables."""
    seen = delay <= age
    delay, age, content = delay[seen], age[seen], content[seen]
    first = np.searchsorted(times, delay, side="left")
    ends = np.searchsorted(times, age, side="right")
    width = np.diff(times, append=np.inf)[ends - 1]
    events, at_risk = np.zeros((contents, len(times))), np.zeros((contents, len(times) + 1))
    np.add.at(events, (content, first), 1.0)
    np.add.at(at_risk, (content, first), 1.0)
    np.add.at(at_risk, (content, ends), -1.0)
    at_risk = np.cumsum(at_risk, axis=1)
    np.add.at(at_risk, (content, ends), (age - times[ends - 1]) / width)
    return events, np.maximum(at_risk[:, :-1], events)


def _product_limit(events: Floats, at_risk: Floats, pseudo: float, prior: Floats) -> Floats:
    """F at the ends of the bins, with ``pseudo`` outcomes of the law ``prior``."""
    hazard = (events[1:] + pseudo * np.diff(prior)) / (at_risk[1:] + pseudo * prior[1:])
    return np.append(np.cumprod((1.0 - hazard)[::-1])[::-1], 1.0)


def _doubt(events: Floats, at_risk: Floats, pseudo: float, prior: Floats) -> Floats:
    """Variance of log F at the ends of the bins."""
    whole = at_risk[1:] + pseudo * prior[1:]
    later = at_risk[1:] - events[1:] + pseudo * prior[:-1]
    each = polygamma(1, later) - polygamma(1, whole)
    return np.append(np.cumsum(each[::-1])[::-1], 0.0)


def _concentration(events: Floats, at_risk: Floats, loop: Floats) -> float:
    """n of step 3: the most likely of a grid, infinite where contents do not differ by more than chance."""
    below, inside = loop[:-1], np.diff(loop)
    e, rest = events[:, 1:], (at_risk - events)[:, 1:]
    hazard = inside / loop[1:]
    best = float((e * np.log(hazard) + rest * np.log1p(-hazard)).sum())
    found = np.inf
    for n in _CONCENTRATIONS:
        likelihood = float((betaln(e + n * inside, rest + n * below) - betaln(n * inside, n * below)).sum())
        if likelihood > best:
            best, found = likelihood, float(n)
    return found


def _weighed(delays: Delays, training: TrainingSet, definition: LoopDefinition) -> Delays:
    """Step 5: what a metric has brought, over the exposures that have had the time to."""
    brought = {}
    for name in delays.laws:
        exposures = float(delays.of_rows(name, training)[0].sum())
        total = abs(definition.reward[name]) * float(np.abs(training.metrics[name]).sum())
        brought[name] = total / exposures if exposures > 0.0 else 0.0
    whole = sum(brought.values())
    share: Mapping[str, float] = {
        name: value / whole if whole > 0.0 else 1.0 / len(brought) for name, value in brought.items()
    }
    return Delays({name: msgspec.structs.replace(law, weight=share[name]) for name, law in delays.laws.items()})


def _rounded(shares: Floats) -> tuple[float, ...]:
    return tuple(np.round(np.minimum(shares, _MOST), _DIGITS).tolist())
