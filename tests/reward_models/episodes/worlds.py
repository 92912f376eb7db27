"""A small world of journeys whose truth is known exactly.

A customer has a kind (0 or 1, on record), a fatigue (0, 1, 2: not on record, but what was shown before is) and gets
``STEPS`` messages, each one of three: a plain one, a loud one, a kind one. Rates of an answer:

    plain 0.10      loud 0.30 · 0.5^fatigue      kind: 0.25 for kind 1, else 0.05

Loud raises the fatigue, by one up to two; the others leave it. An answer is worth 1, 0.9 of it at each further step. Always
loud wins the first step and loses the journey. Values of policies are computed by going through every fatigue.
"""

from collections.abc import Callable

import numpy as np

from reward_models.episodes.steps import Episodes, Floats, repeats_of

STEPS, GAMMA = 4, 0.9
PLAIN, LOUD, KIND = range(3)

Policy = Callable[[int, int, int], list[float]]
"""Kind, step and how often loud was shown before to a pmf over the three."""


def logging(kind: int, step: int, loud: int) -> list[float]:
    """What drew: a bit of everything."""
    return [0.4, 0.35, 0.25]


def shouting(kind: int, step: int, loud: int) -> list[float]:
    """Mostly loud: the best at the first step."""
    return [0.15, 0.7, 0.15]


def careful(kind: int, step: int, loud: int) -> list[float]:
    """Loud once, then what the kind likes."""
    if not loud:
        return [0.2, 0.6, 0.2]
    return [0.2, 0.1, 0.7] if kind else [0.7, 0.1, 0.2]


def rate(kind: int, loud: int, action: int) -> float:
    """Chance of an answer."""
    return (0.10, 0.30 * 0.5 ** min(loud, 2), 0.25 if kind else 0.05)[action]


def truth(policy: Policy) -> float:
    """Exact value of a policy per episode."""

    def worth(kind: int, step: int, loud: int) -> float:
        if step == STEPS:
            return 0.0
        return sum(
            p * (rate(kind, loud, action) + GAMMA * worth(kind, step + 1, loud + (action == LOUD)))
            for action, p in enumerate(policy(kind, step, loud))
        )

    return (worth(0, 0, 0) + worth(1, 0, 0)) / 2


def journeys(units: int, seed: int, *policies: Policy, per_unit: int = 1) -> tuple[Episodes, list[Floats]]:
    """Episodes drawn by ``logging``, and what the policies would have done at each step, (n, 3) each. A customer's
    episodes share the kind."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, int, int, int, float]] = []
    kinds = random.integers(0, 2, units)
    for episode in range(units * per_unit):
        kind, loud = int(kinds[episode // per_unit]), 0
        for step in range(STEPS):
            action = int(random.choice(3, p=logging(kind, step, loud)))
            rows.append((episode, step, kind, action, float(random.random() < rate(kind, loud, action))))
            loud += action == LOUD
    episode_of, steps, kind_of, actions = (
        np.array(column, dtype=np.int64) for column in list(zip(*rows, strict=True))[:4]
    )
    n = len(rows)
    candidate = np.tile(np.arange(3), (n, 1))
    repeats = repeats_of(steps, candidate, actions)
    shown = repeats[:, LOUD].astype(int)

    def table(policy: Policy) -> Floats:
        return np.array([policy(*each) for each in zip(kind_of.tolist(), steps.tolist(), shown.tolist(), strict=True)])

    found = Episodes(
        episode=episode_of,
        step=steps,
        units=tuple(f"u{number // per_unit}" for number in range(units * per_unit)),
        reward=np.array([row[4] for row in rows]),
        weight=np.power(GAMMA, steps.astype(np.float64)),
        chosen=actions,
        behaviour=table(logging),
        state=np.column_stack([kind_of, steps, shown]).astype(np.float64),
        action=np.eye(3),
        candidate=candidate,
        repeats=repeats,
        policies={},
    )
    return found, [table(policy) for policy in policies]
