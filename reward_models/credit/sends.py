"""Which send earned it: six ways to share each purchase among the sends before it, side by side.

    1. path: the sends of the lookback up to the purchase
    2. shares of the path by each model, among its sends and nobody: Σ = 1
    3. value of the purchase times its shares, added up by campaign or content

A purchase without sends is nobody's under every model. Rules share by place and time (``rules.py``); two models look at
who bought what after which sends: Shapley values (``shapley.py``) and removal effects (``removal.py``), by key: several sends
of one campaign share its part evenly. None of them knows what a send caused, only the holdout does (``rewardloop lift``);
where they disagree, that is the finding.

    credit_sends(journeys, settings) -> SendCredit
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from infra.clock import DAY
from reward_models.credit.paths import Journey, Touch, ended, path_of
from reward_models.credit.removal import removal_effects
from reward_models.credit.rules import last_touch, linear, position_based, time_decay
from reward_models.credit.shapley import Game

Floats = npt.NDArray[np.float64]
Model = Literal["last touch", "linear", "time decay", "position based", "Shapley", "removal effect"]

Shares = Callable[[Sequence[Touch], int], Floats]
"""Touches of a path and the time of its purchase to a share for each; what is missing to 1 is nobody's."""


class SendSettings(NamedTuple):
    """``lookback``: how long a send may lie before a purchase; ``half_life``: of time decay. Microseconds."""

    lookback: int = 30 * DAY
    half_life: int = 7 * DAY


USUAL = SendSettings()


class Row(NamedTuple):
    """One campaign or content: how often it was sent, in how many paths to a purchase it was, and its value by model."""

    key: str
    sends: int
    paths: int
    value: Mapping[Model, float]


@dataclass(frozen=True)
class SendCredit:
    """Each model's rows and ``nobody`` sum to ``total``. ``removal``: the effect of each key, in [0, 1]."""

    rows: tuple[Row, ...]
    nobody: Mapping[Model, float]
    total: float
    purchases: int
    customers: int
    without_sends: float
    """Value of the purchases that no send preceded."""
    removal: Mapping[str, float]


class Shared(NamedTuple):
    """One purchase of a journey: its sends, with the value of each, and what is nobody's, which sum to its value."""

    touches: Sequence[Touch]
    values: Floats
    nobody: float


def models(journeys: Sequence[Journey], settings: SendSettings) -> dict[Model, Shares]:
    """The six models, the learning ones fitted on these journeys."""
    return {
        "last touch": last_touch,
        "linear": linear,
        "time decay": partial(time_decay, half_life=settings.half_life),
        "position based": position_based,
        "Shapley": _shapley(journeys),
        "removal effect": _removal(removal_effects(ended(journeys, settings.lookback))),
    }


def share(journey: Journey, shares: Shares, lookback: int) -> list[Shared]:
    """Each purchase of one customer, shared by one model."""
    found = []
    for purchase in journey.purchases:
        touches = path_of(journey, purchase, lookback)
        values = purchase.value * shares(touches, purchase.at) if touches else np.zeros(0)
        found.append(Shared(touches, values, purchase.value - float(values.sum())))
    return found


def credit_sends(journeys: Sequence[Journey], settings: SendSettings = USUAL) -> SendCredit:
    """Every model's word on these journeys."""
    fitted = models(journeys, settings)
    values: dict[str, dict[Model, float]] = defaultdict(lambda: dict.fromkeys(fitted, 0.0))
    nobody: dict[Model, float] = dict.fromkeys(fitted, 0.0)
    paths: Counter[str] = Counter()
    without = 0.0
    for name, shares in fitted.items():
        for journey in journeys:
            for shared in share(journey, shares, settings.lookback):
                nobody[name] += shared.nobody
                for touch, value in zip(shared.touches, shared.values.tolist(), strict=True):
                    values[touch.key][name] += value
                if name == "last touch":
                    paths.update({touch.key for touch in shared.touches})
                    without += 0.0 if shared.touches else shared.nobody
    sends = Counter(touch.key for journey in journeys for touch in journey.touches)
    rows = tuple(Row(key, sends[key], paths[key], dict(values[key])) for key in sorted(sends))
    bought = [purchase.value for journey in journeys for purchase in journey.purchases]
    removal = removal_effects(ended(journeys, settings.lookback))
    return SendCredit(rows, nobody, float(sum(bought)), len(bought), len(journeys), without, removal)


def _shapley(journeys: Sequence[Journey]) -> Shares:
    game = Game(
        (
            frozenset(touch.key for touch in journey.touches),
            sum(purchase.value for purchase in journey.purchases),
        )
        for journey in journeys
    )

    def shares(touches: Sequence[Touch], bought_at: int) -> Floats:  # noqa: ARG001 (every model is asked alike)
        of_key = game.shares(frozenset(touch.key for touch in touches)).campaigns
        return _spread(touches, of_key)

    return shares


def _removal(effects: Mapping[str, float]) -> Shares:
    def shares(touches: Sequence[Touch], bought_at: int) -> Floats:
        of_key = {touch.key: effects.get(touch.key, 0.0) for touch in touches}
        total = sum(of_key.values())
        if total <= 0.0:
            return linear(touches, bought_at)
        return _spread(touches, {key: effect / total for key, effect in of_key.items()})

    return shares


def _spread(touches: Sequence[Touch], of_key: Mapping[str, float]) -> Floats:
    """A key's part shared evenly among its sends."""
    times = Counter(touch.key for touch in touches)
    return np.array([of_key[touch.key] / times[touch.key] for touch in touches])
