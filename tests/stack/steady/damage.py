"""Damaged bundles: what becomes of them, and of the server that loads them.

Every file of a bundle is damaged in four ways: cut short, one bit flipped, a page of zeros, one digit changed. Each
damaged bundle is loaded twice, as the server loads a champion (``registry.load_verified``):

- with the digest it was registered with: it must be refused, whatever the damage is
- with a digest of its own, as if it had been damaged before it was registered: then only what is in it can give it
  away. The server must live and not hang, and where a golden row reaches the leaf a wrong score must be refused

The server is a process of its own here, so that its death is a number and not the end. What it accepts is held against
the undamaged model, row by row. A row that falls into other leaves than before was led astray by a threshold: golden
rows see that where one of them is led astray as well; these rows are counted apart.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from infra.errors import ModelRefused
from reward_models.boosted import RewardModel, fit
from reward_models.bundle import GOLDEN, MANIFEST, MODEL, TEXT, Bundle, digest, pack, unpack, write
from reward_models.dataset import TrainingSet
from reward_models.registry import load_verified
from reward_models.verification import Verifier
from tests.reward_models.training import SMALL, copy, training_set

Floats = npt.NDArray[np.float64]

FILES = (MODEL, TEXT, MANIFEST, GOLDEN)
DAMAGES = ("cut short", "bit flipped", "zero page", "digit changed")
PAGE = 4_096
HUNG_SECONDS = 300.0
"""A load that takes longer hangs; one that the verifying process gives up after its own limit does not."""
PARSE_SECONDS = 30.0
_TOLERANCE = 1e-9
_CODES = 6


class Verdict(NamedTuple):
    """What became of one damaged bundle with a digest of its own. Rows: of those that were scored by both models."""

    reason: str
    """Why it was refused; empty: it serves."""
    wrong_in_leaf: int = 0
    """Rows that fall into the leaves they always fell into, and get another score."""
    astray: int = 0
    """Rows that fall into other leaves, and get another score."""
    wrong_whole: int = 0
    """Whole questions (texts, levels, categories) that get another score although their row does not."""


class Line(NamedTuple):
    """A line of the table: one file damaged in one way."""

    file: str
    damage: str
    bundles: int
    passed_the_digest: int
    deaths: int
    hangs: int
    refused: Counter[str]
    unharmed: int
    wrong_in_leaf: int
    astray: int
    wrong_whole: int

    @property
    def faults(self) -> list[str]:
        """What must not be."""
        found = {
            "loaded with a wrong digest": self.passed_the_digest,
            "killed the server": self.deaths,
            "hung": self.hangs,
            "serve a wrong leaf": self.wrong_in_leaf,
        }
        return [f"{self.file}, {self.damage}: {count} {what}" for what, count in found.items() if count]


def training(seed: int = 5, count: int = 4_000) -> TrainingSet:
    """Decisions with numbers, categories and missing values, over texts of several campaigns."""
    rng = np.random.default_rng(seed)
    words = ("Secret", "Plain", "Early", "Quiet", "Large", "Local")
    contents = [
        copy(f"k{number}", f"{words[number % 6]} offer {number} {'?' if number % 4 else '!'}", f"c{number % 8}")
        for number in range(48)
    ]
    shown = rng.integers(0, len(contents), count)
    ages, regions = rng.normal(45.0, 15.0, count), rng.integers(0, _CODES, count)
    liked = 0.2 + 0.3 * (shown % 6 == 0) * (ages > 40.0) + 0.2 * (regions == shown % _CODES)
    contexts = [
        {
            **({} if rng.random() < 0.2 else {"age": round(float(age), 3)}),
            **({} if rng.random() < 0.2 else {"region": f"r{region}"}),
            "visits": int(rng.poisson(3)),
        }
        for age, region in zip(ages, regions, strict=True)
    ]
    reward = (rng.random(count) < liked).astype(float)
    return training_set(contents, content=shown.tolist(), contexts=contexts, reward=reward.tolist())


def damaged(content: bytes, damage: str, random: np.random.Generator) -> bytes:
    """The content of a file, damaged."""
    place = int(random.integers(len(content)))
    if damage == "cut short":
        return content[:place]
    if damage == "bit flipped":
        return content[:place] + bytes([content[place] ^ (1 << int(random.integers(8)))]) + content[place + 1 :]
    if damage == "zero page":
        return content[:place] + bytes(min(PAGE, len(content) - place)) + content[place + PAGE :]
    digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
    place = int(random.choice(digits))
    other = (int(chr(content[place])) + int(random.integers(1, 10))) % 10
    return content[:place] + str(other).encode() + content[place + 1 :]


class _Judge:
    """The server's side: loads a bundle as a server does, and compares what it accepted. One per process."""

    def __init__(self, good: Bundle) -> None:
        self._bundle, self.good = good, unpack(good)
        known = training()
        self._matrix = _rows(self.good, np.random.default_rng(8))
        self._leaves = _leaves(self.good, self._matrix)
        self._scores = self.good.relative(self._matrix)
        self._questions = known.contexts[:40], known.contents
        self._whole = self.good.grid(*self._questions)
        self._verifier = Verifier(PARSE_SECONDS)

    def warm(self) -> None:
        """Check the undamaged bundle, as often as it takes the verifying process to start."""
        for _ in range(10):
            try:
                self._verifier.check(self._bundle)
            except ModelRefused:
                continue
            return
        raise AssertionError("the undamaged bundle does not pass")

    def judge(self, folder: str, right: str) -> Verdict:
        """What becomes of this bundle under a digest that fits."""
        try:
            found = load_verified(Path(folder), right, self._verifier)
        except ModelRefused as refused:
            return Verdict(_reason(str(refused)))
        wrong = ~_close(found.relative(self._matrix), self._scores)
        same = (_leaves(found, self._matrix) == self._leaves).all(axis=1)
        questions = _close(found.grid(*self._questions), self._whole)
        whole = 0 if wrong.any() else int((~questions).sum())
        return Verdict("", int((wrong & same).sum()), int((wrong & ~same).sum()), whole)


_judge: _Judge | None = None


def _begin(good: Bundle) -> None:
    global _judge
    _judge = _Judge(good)


def _warm() -> None:
    """The verifying process has started too once this is done."""
    assert _judge is not None
    _judge.warm()


def _judged(folder: str, right: str) -> Verdict:
    assert _judge is not None
    return _judge.judge(folder, right)


class Bench:
    """Loads damaged bundles in a process that may die."""

    def __init__(self, good: Bundle) -> None:
        self._good = good
        self._pool = self._start()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def load(self, folder: Path, right: str) -> Verdict | str:
        """The verdict, ``died`` or ``hung``; after those another process takes over."""
        try:
            return self._pool.submit(_judged, str(folder), right).result(HUNG_SECONDS)
        except BrokenProcessPool:
            self._pool = self._start()
            return "died"
        except Late:
            for process in (self._pool._processes or {}).values():
                process.kill()
            self._pool = self._start()
            return "hung"

    def _start(self) -> ProcessPoolExecutor:
        """A process that is ready to load: what its start takes is nobody's hang."""
        pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, (dict(self._good),))
        pool.submit(_warm).result()
        return pool


def survey(counts: dict[str, int], seed: int = 1, progress: Callable[[], object] = lambda: None) -> Iterator[Line]:
    """A line per file and damage. counts: damaged bundles of each kind, by file."""
    random = np.random.default_rng(seed)
    good = pack(fit(training(), SMALL), cutoff=5)
    bench = Bench(good)
    try:
        with TemporaryDirectory() as home:
            for file in FILES:
                for damage in DAMAGES if file in good else ():
                    bundles = [{**good, file: damaged(good[file], damage, random)} for _ in range(counts.get(file, 0))]
                    yield _line(file, damage, good, bundles, bench, Path(home), progress)
    finally:
        bench.close()


def _line(
    file: str,
    damage: str,
    good: Bundle,
    bundles: Sequence[Bundle],
    bench: Bench,
    home: Path,
    progress: Callable[[], object],
) -> Line:
    passed, refused, verdicts = 0, Counter[str](), list[Verdict]()
    fates = Counter[str]()
    for number, bundle in enumerate(bundles):
        folder = home / f"{file}-{damage}-{number}".replace(" ", "-")
        write(bundle, folder)
        passed += _loads(folder, digest(good)) and bundle != good
        found = bench.load(folder, digest(bundle))
        if isinstance(found, str):
            fates[found] += 1
        elif found.reason:
            refused[found.reason] += 1
        else:
            verdicts.append(found)
        progress()
    return Line(
        file=file,
        damage=damage,
        bundles=len(bundles),
        passed_the_digest=passed,
        deaths=fates["died"],
        hangs=fates["hung"],
        refused=refused,
        unharmed=sum(one == Verdict("") for one in verdicts),
        wrong_in_leaf=sum(one.wrong_in_leaf > 0 for one in verdicts),
        astray=sum(one.astray > 0 and not one.wrong_in_leaf for one in verdicts),
        wrong_whole=sum(one.wrong_whole > 0 for one in verdicts),
    )


def _loads(folder: Path, registered: str) -> bool:
    """Whether a bundle is loaded under the digest it was registered with. Nothing is parsed before that is checked."""
    try:
        load_verified(folder, registered)
    except ModelRefused as refused:
        return "do not have the digest" not in str(refused)
    return True


def _rows(model: RewardModel, random: np.random.Generator, count: int = 2_000) -> Floats:
    """Rows as they may be asked: numbers within what the trees split, categories, missing values; and golden rows."""
    golden = model.golden.matrix
    low, high = np.nanmin(golden, axis=0), np.nanmax(golden, axis=0)
    low, high = np.nan_to_num(low), np.nan_to_num(high)
    rows = random.uniform(low - 0.1, high + 0.1, size=(count, golden.shape[1]))
    rows[:, model.schema.categorical] = random.integers(0, _CODES + 1, size=(count, len(model.schema.categorical)))
    rows[random.random(rows.shape) < 0.1] = np.nan
    return np.vstack([golden, rows])


def _leaves(model: RewardModel, rows: Floats) -> npt.NDArray[np.int64]:
    return np.asarray(model.booster.predict(rows, pred_leaf=True, num_threads=1), dtype=np.int64)


def _close(found: Floats, expected: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(found - expected) <= _TOLERANCE * np.maximum(1.0, np.abs(expected)))


def _reason(sentence: str) -> str:
    """The kind of refusal, for the table."""
    kinds = {
        "killed the process": "killed the parser",
        "did not end within": "hung the parser",
        "does not give the scores": "golden rows",
        "trees of the model cannot be parsed": "anatomy",
    }
    return next((kind for words, kind in kinds.items() if words in sentence), "unreadable")


LONG = {MODEL: 170, TEXT: 40, MANIFEST: 40, GOLDEN: 40}
SHORT = {MODEL: 8, TEXT: 2, MANIFEST: 2, GOLDEN: 2}
