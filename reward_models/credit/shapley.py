"""Shapley values: what each campaign adds to what customers buy, on average over the orders in which they could join.

    v(S)     mean value per customer among those who got exactly the campaigns S; of an S that nobody got, the mean among
             those who got some of S and nothing else
    φ_j(S)   Σ_{T ⊆ S∖j} |T|!·(|S|−|T|−1)!/|S|! · (v(T ∪ j) − v(T))                 (Shapley 1953)

A purchase after the campaigns S is shared as v(S) is: φ_j/v(S) to each campaign of S, v(∅)/v(S) to nobody, because so much
is bought without any send. Together that is 1, as Σ φ_j = v(S) − v(∅). A share may be below 0: those who got it too bought
less. As a game on who got what (Dalessandro et al. 2012) it is causal only if who got what was decided by chance.

Beyond ``EXACT`` campaigns in one path the orders are drawn, the same for everybody; each order gives v(S) − v(∅) away, so
that the sum stays exact.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from math import factorial
from typing import NamedTuple

import numpy as np

EXACT = 8
"""Most campaigns in one path whose subsets are all looked at."""
ORDERS = 200
"""Orders that are looked at beyond it, about: drawn ones, turned so that each campaign stands at each place as often, and
all of them backwards."""

Campaigns = frozenset[str]


class Shares(NamedTuple):
    """Shares of a purchase: of each campaign, and of nobody. They sum to 1."""

    campaigns: Mapping[str, float]
    nobody: float


class Game:
    """v, from customers: the campaigns each got, and what each bought. Answers are remembered."""

    def __init__(self, customers: Iterable[tuple[Campaigns, float]]) -> None:
        self._count: dict[Campaigns, int] = defaultdict(int)
        self._total: dict[Campaigns, float] = defaultdict(float)
        for got, bought in customers:
            self._count[got] += 1
            self._total[got] += bought
        self._values: dict[Campaigns, float] = {}
        self._shares: dict[Campaigns, Shares] = {}

    def value(self, campaigns: Campaigns) -> float:
        """v(S)."""
        if campaigns not in self._values:
            exact = campaigns in self._count
            within = [campaigns] if exact else [got for got in self._count if got <= campaigns]
            count = sum(self._count[got] for got in within)
            self._values[campaigns] = sum(self._total[got] for got in within) / count if count else 0.0
        return self._values[campaigns]

    def shapley(self, campaigns: Campaigns) -> dict[str, float]:
        """φ_j(S) of each campaign of S; they sum to v(S) − v(∅)."""
        names = sorted(campaigns)
        if len(names) > EXACT:
            return self._drawn(names)
        return {name: self._exact(name, [other for other in names if other != name]) for name in names}

    def shares(self, campaigns: Campaigns) -> Shares:
        """How a purchase after these campaigns is shared. All to nobody where such customers bought nothing."""
        if campaigns not in self._shares:
            whole = self.value(campaigns)
            if whole <= 0.0:
                self._shares[campaigns] = Shares(dict.fromkeys(campaigns, 0.0), 1.0)
            else:
                parts = {name: value / whole for name, value in self.shapley(campaigns).items()}
                self._shares[campaigns] = Shares(parts, 1.0 - sum(parts.values()))
        return self._shares[campaigns]

    def _exact(self, name: str, others: list[str]) -> float:
        size, total = len(others) + 1, 0.0
        for chosen in range(1 << len(others)):
            without = frozenset(other for at, other in enumerate(others) if chosen >> at & 1)
            weight = factorial(len(without)) * factorial(size - len(without) - 1) / factorial(size)
            total += weight * (self.value(without | {name}) - self.value(without))
        return total

    def _drawn(self, names: list[str]) -> dict[str, float]:
        orders = list(_orders(len(names)))
        found = dict.fromkeys(names, 0.0)
        for order in orders:
            so_far: Campaigns = frozenset()
            for place in order:
                more = so_far | {names[place]}
                found[names[place]] += (self.value(more) - self.value(so_far)) / len(orders)
                so_far = more
        return found


def _orders(n: int) -> Iterator[list[int]]:
    random = np.random.default_rng(n)
    for _ in range(max(1, ORDERS // (2 * n))):
        drawn = random.permutation(n).tolist()
        for turn in range(n):
            order = drawn[turn:] + drawn[:turn]
            yield order
            yield order[::-1]
