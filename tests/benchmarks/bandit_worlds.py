"""Worlds for bandits: tables with classes, a randomised mailing, and customers of a known taste.

Every world is drawn from NumPy's PCG64 under a stated seed and holds the reward of every content in every round, so
that all policies meet the same customers and the same luck. Rewards that nobody can know are nan (the mailing: only
the content that was really sent has an outcome; a round counts when it is chosen, Li et al. 2011).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import datasets

from ingestion.events import Content
from pipelines.simulator import World, draw_customers, true_values
from pipelines.templates import FACTORS

Floats = npt.NDArray[np.float64]
CAMPAIGN = "june"


@dataclass(frozen=True)
class Rounds:
    """T customers and K contents. ``reward``: (T, K), what happens; ``value``: (T, K), what it is worth on average."""

    name: str
    contexts: Sequence[dict[str, Any]]
    x: Floats
    """The contexts as numbers, categories one column per value, scaled to mean 0 and variance 1: shape (T, d)."""
    contents: tuple[Content, ...]
    f: Floats | None
    """Features of the contents, (K, f); None: nothing is known of them but their names."""
    reward: Floats
    value: Floats
    delay: int = 0
    """Rounds until a reward is heard of."""

    def __len__(self) -> int:
        return len(self.x)


def tables(seed: int, rounds: int) -> list[Rounds]:
    """The tables scikit-learn ships; one content per class, reward 1 for the right one. Rows in random order, repeated."""
    loaders = (datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer, datasets.load_digits)
    found = [(loader.__name__.removeprefix("load_"), *loader(return_X_y=True)) for loader in loaders]
    x, progress = datasets.load_diabetes(return_X_y=True)
    found.append(("diabetes", x, np.digitize(progress, np.quantile(progress, [1 / 3, 2 / 3]))))
    return [
        _table(name, x, y, np.random.default_rng([seed, place]), rounds) for place, (name, x, y) in enumerate(found)
    ]


def mailing(path: Path, seed: int, rounds: int) -> Rounds:
    """Hillstrom's mailing, out of its file: three arms, reward a visit."""
    rng = np.random.default_rng(seed)
    table = pd.read_csv(path)
    table = table.iloc[rng.permutation(len(table))[:rounds]].reset_index(drop=True)
    columns = ["recency", "history", "mens", "womens", "newbie", "zip_code", "channel"]
    contexts = table[columns].to_dict("records")
    arms = sorted(table["segment"].unique())
    reward = np.full((len(table), len(arms)), np.nan)
    reward[np.arange(len(table)), table["segment"].map(arms.index)] = table["visit"]
    x = pd.get_dummies(table[columns], dtype=float).to_numpy()
    return Rounds("hillstrom", contexts, _scaled(x), _named(len(arms)), None, reward, reward)


def shop(seed: int, rounds: int, contents: int, kind: str) -> Rounds:
    """The simulator's customers and contents: ``stationary``; ``drifting`` (twice other quirks, and the level moves);
    ``delayed`` (clicks are heard of 200 rounds later)."""
    rng = np.random.default_rng(seed)
    customers = draw_customers(World(bots=0.0), rng, rounds)
    f = rng.integers(0, 2, (contents, len(FACTORS))).astype(float)
    copy = tuple(
        Content(
            content_id=f"c{number:03d}",
            campaign_id=CAMPAIGN,
            slots={"subject": f"Subject {number}"},
            features={**{name: bool(on) for name, on in zip(FACTORS, row, strict=True)}, "variant": number},
            approval="approved",
        )
        for number, row in enumerate(f)
    )
    world = World(seed=seed, quirk=0.4)
    value = np.empty((rounds, contents))
    for part, rows in enumerate(np.array_split(np.arange(rounds), 3 if kind == "drifting" else 1)):
        now = replace(world, seed=seed + 1_000 * part, base=world.base + 0.5 * part * (kind == "drifting"))
        value[rows] = true_values(now, [customers[row] for row in rows], [c.features for c in copy]).click
    contexts = [customer.context for customer in customers]
    x = np.array(
        [[c["tier"] == "new", c["tier"] == "gold", c["device"] == "mobile", c["days_since_order"]] for c in contexts],
        dtype=float,
    )
    visible = tuple(_visible(content) for content in copy)
    reward = (rng.random((rounds, 1)) < value).astype(float)
    return Rounds(
        f"shop {contents} {kind}", contexts, _scaled(x), visible, f, reward, value, 200 if kind == "delayed" else 0
    )


def _visible(content: Content) -> Content:
    """The content without its running number, which only the world's quirk needs."""
    known = {name: value for name, value in content.features.items() if name != "variant"}
    return msgspec.structs.replace(content, features=known)


def _table(name: str, x: Floats, y: npt.NDArray[Any], rng: np.random.Generator, rounds: int) -> Rounds:
    order = np.concatenate([rng.permutation(len(x)) for _ in range(-(-rounds // len(x)))])[:rounds]
    scaled, reward = _scaled(x), np.eye(int(y.max()) + 1)[y[order]]
    contexts = [{f"x{place}": value for place, value in enumerate(row)} for row in x[order].tolist()]
    return Rounds(name, contexts, scaled[order], _named(reward.shape[1]), None, reward, reward)


def _named(count: int) -> tuple[Content, ...]:
    return tuple(
        Content(
            content_id=f"c{number:03d}",
            campaign_id=CAMPAIGN,
            slots={"subject": f"Subject {number}"},
            features={"arm": f"c{number}"},
            approval="approved",
        )
        for number in range(count)
    )


def _scaled(x: Floats) -> Floats:
    spread = x.std(axis=0)
    return np.asarray((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
