"""The Upworthy archive as the product sees it: tests are campaigns, headlines are contents, results are history.

Rows of one test with the same headline are one arm: they differ in the picture only. That leaves 9,010 arms in 2,053
trusted tests. Arms are linked by test and by headline; folds are dealt by these components, so that no headline is ever
predicted by a model that saw it elsewhere.

    load_archive() -> Archive              load_pairs(archive) -> Pairs
    archive.part(mask)                     archive.training(mask) -> TrainingSet for ``boosted.fit``

Source: Matias, Munger, Le Quere and Ebersole 2021, CC BY 4.0. In ``randomization_risk_week`` its authors found faulty
randomisation: those tests are left out unless they are asked for.
"""

import csv
import gzip
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingestion.events import Content
from reward_models.dataset import History, TrainingSet
from reward_models.features import plain
from reward_models.folds import codes_of, components

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FOLDER = Path(os.environ.get("REWARDLOOP_DATA", Path(__file__).parents[3] / "shared" / "data")) / "upworthy"


@dataclass(frozen=True)
class Archive:
    """Arms of tests with at least two headlines, k of them; the arms of a test stand together."""

    contents: npt.NDArray[np.object_]
    """:class:`Content` each: the test as campaign, one slot ``headline``."""
    test: Ints
    """0, 1, 2 … in the order of appearance."""
    impressions: Floats
    clicks: Floats
    component: Ints
    week: Ints
    trusted: Mask

    def __len__(self) -> int:
        return len(self.test)

    def part(self, kept: Mask) -> "Archive":
        """The arms under the mask; whole tests, or the arms that are left compete alone."""
        parts = {each.name: getattr(self, each.name)[kept] for each in fields(self)}
        return Archive(**parts | {"test": codes_of(parts["test"].tolist())})

    def training(self, kept: Mask) -> TrainingSet:
        """The arms under the mask as past results of one loop, without decisions."""
        contents = tuple(self.contents[kept])
        shown, clicks = self.impressions[kept], self.clicks[kept]
        rate = clicks / shown
        past = History(
            np.arange(len(contents)), shown, {"click": clicks}, rate, rate.copy(), np.ones(len(contents), np.bool_)
        )
        none, ints, floats = (), np.zeros(0, dtype=np.int64), np.zeros(0)
        return TrainingSet(
            loop_id="upworthy",
            loop_version=1,
            as_of=1,
            contents=contents,
            decision_id=none,
            unit=none,
            decided_at=ints,
            contexts=none,
            content=ints,
            position=ints,
            propensity=floats,
            holdout=floats,
            group=none,
            learning_mode=none,
            candidates=none,
            metrics={"click": floats},
            reward=floats,
            history=past,
        )


@dataclass(frozen=True)
class Pairs:
    """The archive's clear pairs, n of them: indices of two arms, and whether the first one won."""

    first: Ints
    second: Ints
    first_won: Mask


def load_archive(trusted_only: bool = True) -> Archive:
    """All arms that compete, in the order of the file. Ends the benchmark when the data is not there."""
    places: dict[tuple[str, str], int] = {}
    kept: list[dict[str, Any]] = []
    for row in _rows("upworthy_exploratory.csv.gz"):
        trusted = row["randomization_risk_week"] == "0"
        if trusted_only and not trusted:
            continue
        place = places.setdefault((row["clickability_test_id"], row["headline"]), len(kept))
        if place == len(kept):
            kept.append(row | {"shown": 0.0, "clicked": 0.0, "trusted": trusted})
        kept[place]["shown"] += float(row["impressions"])
        kept[place]["clicked"] += float(row["clicks"])
    tests = codes_of([row["clickability_test_id"] for row in kept])
    order = np.argsort(tests, kind="stable")
    competing = [kept[place] for place in order[np.bincount(tests)[tests[order]] > 1]]
    names = [row["clickability_test_id"] for row in competing]
    contents = np.empty(len(competing), dtype=np.object_)
    contents[:] = [
        Content(content_id=f"a{number}", campaign_id=row["clickability_test_id"], slots={"headline": row["headline"]})
        for number, row in enumerate(competing)
    ]
    return Archive(
        contents,
        codes_of(names),
        np.array([row["shown"] for row in competing]),
        np.array([row["clicked"] for row in competing]),
        components(names, [plain(row["headline"]) for row in competing]),
        np.array([int(row["test_week"]) for row in competing], dtype=np.int64),
        np.array([row["trusted"] for row in competing], dtype=np.bool_),
    )


def load_pairs(archive: Archive) -> Pairs:
    """The published pairs whose two headlines are arms of ``archive``, all 1,459 of them with the faulty weeks."""
    place = {(each.campaign_id, each.slots["headline"]): number for number, each in enumerate(archive.contents)}
    pairs = []
    for row in _rows("winner_pairs_exploratory.csv.gz"):
        first, second = (place.get((row["clickability_test_id"], row[name])) for name in ("headline_1", "headline_2"))
        if first is not None and second is not None:
            pairs.append((first, second, row["higher_CTR"] == "1"))
    firsts, seconds, won = zip(*pairs, strict=True)
    return Pairs(np.array(firsts), np.array(seconds), np.array(won))


def _rows(name: str) -> Iterator[dict[str, str]]:
    path = FOLDER / name
    if not path.is_file():
        sys.exit(f"{path} is not there; set REWARDLOOP_DATA to the folder with the real data sets")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
