"""Retraining on a million outcomes with 60 features: dataset, features, fit, calibration against bare LightGBM.

A database is filled with decisions of customers with a taste (numbers, words, flags; contents with texts) and their
clicks. Every measurement is a process of its own, the two kinds in turns: the product reads the database, fits and
calibrates (``load_training_set``, ``foresee``, ``fit``); the rival gets the ready matrix in memory and calls
``lightgbm.train`` with the same parameters, threads and rounds on all rows. The product boosts as many rounds, on the
four fifths of the rows that it does not keep for calibration. Memory is the peak of the process above what it had after
its imports. Time is that of the clock; the figures have that of the processor beside it.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, Table

from infra import tables
from infra.clock import DAY, HOUR
from infra.database import canonical_json, open_database, reading, writing
from infra.migrations import migrate
from ingestion.events import Content
from ingestion.loops import LoopDefinition, parse_definition
from reward_models.contexts import Contexts
from reward_models.dataset import TrainingSet
from reward_models.features import build_schema, content_rows, context_rows
from reward_models.loading import load_training_set
from tests.benchmarks.harness import Goal, finish

FEATURES = 60
QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SIZES = (200_000, 300_000) if QUICK else (250_000, 500_000, 1_000_000)
REPEATS = 1 if QUICK else 3
NOW = 400 * DAY
CAMPAIGNS, PER_CAMPAIGN = 25, 8
_SUBJECTS = (
    "Save on {}",
    "Your {} is waiting",
    "New: {} for spring",
    "{}? Look inside",
    "Last days for {}",
    "A {} for you",
)
_GOODS = ("boots", "garden chairs", "coffee", "a raincoat", "good paper", "bicycles", "lamps", "winter tyres")
_CHUNK = 20_000


def main() -> None:
    """Run the benchmark, or one measurement of it when called by itself."""
    if len(sys.argv) == 4 and sys.argv[1] in MEASURED:
        print(msgspec.json.encode(MEASURED[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))).decode())
        return
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as name:
        folder = Path(name)
        fill(folder, max(SIZES))
        found = {
            size: [(measure("product", folder, size), measure("bare", folder, size)) for _ in range(REPEATS)]
            for size in SIZES
        }
    for size, pairs in found.items():
        for product, bare in pairs:
            print(
                f"  {size:>9,} rows: {product['seconds']:6.1f} s against {bare['seconds']:6.1f} s bare; "
                f"peak {product['peak_mb']:,.0f} MB, the matrix has {bare['matrix_mb']:,.0f} MB",
                flush=True,
            )
    finish("train", goals(found), figures(found))


def goals(found: dict[int, list[tuple[dict[str, float], dict[str, float]]]]) -> list[Goal]:
    """Time and memory at the largest size; growth from the smallest to the largest."""
    pairs, first = found[max(SIZES)], found[min(SIZES)]
    times = [product["seconds"] / bare["seconds"] for product, bare in pairs]
    memory = [product["peak_mb"] / bare["matrix_mb"] for product, bare in pairs]
    seconds = [median(product["seconds"] for product, _ in each) for each in (first, pairs)]
    growth = float(np.log(seconds[1] / seconds[0]) / np.log(max(SIZES) / min(SIZES)))
    return [
        Goal("whole retrain, times bare lightgbm.train", round(median(times), 3), "<= 1.5", _range(times)),
        Goal("memory above the start, times the matrix", round(median(memory), 2), "<= 4", _range(memory)),
        Goal("exponent of time in rows", round(growth, 3), "<= 1"),
    ]


def figures(found: dict[int, list[tuple[dict[str, float], dict[str, float]]]]) -> dict[str, Any]:
    """Medians over the repeats, by size; what both sides were told; and the first goal by time of the processor."""
    from reward_models.trees import tree_parameters

    settings = definition().model
    spent = [product["processor"] / bare["processor"] for product, bare in found[max(SIZES)]]
    return {
        "features": FEATURES,
        "rounds": settings.rounds,
        "parameters": tree_parameters(settings),
        "times_bare_by_processor": round(median(spent), 3),
        "sizes": {
            str(size): {
                kind: {name: round(median(pair[place][name] for pair in pairs), 2) for name in pairs[0][place]}
                for place, kind in enumerate(("product", "bare"))
            }
            for size, pairs in found.items()
        },
    }


def measure(kind: str, folder: Path, size: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_train", kind, str(folder), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"  {kind} {size:,}: {done.stdout.strip()}", file=sys.stderr, flush=True)
    return msgspec.json.decode(done.stdout, type=dict[str, float])


def product(folder: Path, size: int) -> dict[str, float]:
    """Dataset, outcomes still to come, features, fit and calibration, as `retrain` does them."""
    from reward_models.boosted import fit
    from reward_models.delays import fit_delays
    from reward_models.hurdle import foresee

    engine = open_database(f"sqlite:///{folder / 'bench.db'}")
    watch = Watch()
    with reading(engine) as connection:
        training = load(connection, size)
    read = time.perf_counter() - watch.began
    rules = definition()
    model = fit(foresee(training, fit_delays(training, rules), rules), rules.model)
    found = watch.stop()
    matrix = assembled(training)
    np.save(folder / f"{size}.npy", matrix)
    np.save(folder / f"{size}-reward.npy", training.reward)
    if matrix.shape != (size, FEATURES) or model.report["rows"] != size:
        raise SystemExit(f"expected {size:,} rows of {FEATURES} features, not {matrix.shape}")
    return found | {
        "reading": read,
        "trees": model.booster.num_trees(),
        "calibration_error": model.calibration.error_after,
    }


def bare(folder: Path, size: int) -> dict[str, float]:
    """``lightgbm.train`` on the ready matrix of the same rows, with the product's parameters."""
    import lightgbm as lgb

    from reward_models.trees import tree_parameters

    matrix, reward = np.load(folder / f"{size}.npy"), np.load(folder / f"{size}-reward.npy")
    settings = definition().model
    watch = Watch()
    data = lgb.Dataset(matrix, label=reward, categorical_feature=categorical(), free_raw_data=False)
    booster = lgb.train({**tree_parameters(settings), "objective": "regression"}, data, num_boost_round=settings.rounds)
    return watch.stop() | {"matrix_mb": matrix.nbytes / 2**20, "trees": booster.num_trees()}


MEASURED = {"product": product, "bare": bare}


class Watch:
    """Wall time, time of the processor and peak memory since it was made."""

    def __init__(self) -> None:
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.processor = time.process_time()
        self.began = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Seconds and megabytes so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before
        return {
            "seconds": time.perf_counter() - self.began,
            "processor": time.process_time() - self.processor,
            "peak_mb": peak / 1024,
        }


def definition() -> LoopDefinition:
    """Clicks within a day."""
    return parse_definition(
        {"loop": "train", "metrics": [{"name": "click", "event": "click", "window": "1d"}], "reward": {"click": 1.0}}
    )


def load(connection: Connection, size: int) -> TrainingSet:
    """The first ``size`` decisions, one per millisecond: what `retrain` reads of those it learns from."""
    return load_training_set(
        connection, definition(), 1, as_of=1, now=NOW, before=DAY + size * 1_000, censored=True, choices_since=NOW
    )


def contents() -> list[Content]:
    """A subject line and two features each."""
    return [
        Content(
            content_id=f"content-{campaign:02}-{number}",
            campaign_id=f"campaign-{campaign:02}",
            slots={
                "subject": _SUBJECTS[(campaign + number) % len(_SUBJECTS)].format(
                    _GOODS[(campaign * 3 + number * 5) % len(_GOODS)]
                )
            },
            features={"tone": ("warm", "plain", "loud")[(campaign + 2 * number) % 3], "discount": 5.0 * (number % 4)},
        )
        for campaign in range(CAMPAIGNS)
        for number in range(PER_CAMPAIGN)
    ]


def names() -> list[str]:
    """Of the context's features: as many as make the columns of a row 60 with those of the contents."""
    others = len(build_schema([], contents()).columns)
    return [f"feature_{number:02}" for number in range(FEATURES - others)]


def categorical() -> list[int]:
    """Columns that hold words."""
    return build_schema(
        Contexts.of([context for _, context in zip(range(2_000), _contexts(2_000), strict=True)]), contents()
    ).categorical


def assembled(training: TrainingSet) -> Any:
    """The matrix a bare trainer would be given."""
    schema = build_schema(training.contexts, training.contents)
    rows = context_rows(schema, training.contexts, training.position)
    of_contents = content_rows(schema, training.contents, np.zeros(len(training.contents)))
    return np.hstack([rows, of_contents[training.content]])


def fill(folder: Path, size: int) -> None:
    """The database: campaigns, contents, decisions and clicks of one batch."""
    engine = open_database(f"sqlite:///{folder / 'bench.db'}")
    migrate(engine)
    copy = contents()
    with writing(engine) as connection:
        _insert(connection, tables.campaigns, [_campaign(number) for number in range(CAMPAIGNS)])
        _insert(connection, tables.contents, [_content(content) for content in copy])
    made = _decisions(size, copy)
    for _ in range(0, size, _CHUNK):
        rows = [pair for _, pair in zip(range(_CHUNK), made, strict=False)]
        with writing(engine) as connection:
            _insert(connection, tables.decisions, [row for row, _ in rows])
            _insert(connection, tables.events, [click for _, click in rows if click])
    engine.dispose()


def _contexts(size: int) -> Iterator[dict[str, Any]]:
    """Numbers of several shapes, a sixth of the names words, a sixth flags; some are missing."""
    draw, columns = np.random.default_rng(4), names()
    for begun in range(0, size, _CHUNK):
        count = min(_CHUNK, size - begun)
        values = [_column(place, count, draw) for place in range(len(columns))]
        gone = (draw.random((len(columns), count)) < 0.03).T.tolist()
        for row, missing in zip(zip(*values, strict=True), gone, strict=True):
            yield {name: value for name, value, lost in zip(columns, row, missing, strict=True) if not lost}


def _column(place: int, count: int, draw: np.random.Generator) -> list[Any]:
    match place % 6:
        case 0 | 1:
            return list(draw.normal(size=count).round(3).tolist())
        case 2:
            return list(draw.gamma(2.0, 30.0, count).round(2).tolist())
        case 3:
            return list(draw.poisson(4, count).tolist())
        case 4:
            return [f"word {code}" for code in draw.integers(0, 12, count).tolist()]
        case _:
            return list((draw.random(count) < 0.4).tolist())


def _decisions(size: int, copy: list[Content]) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Decisions of four candidates each and their clicks."""
    draw = np.random.default_rng(5)
    taste, worth = draw.normal(size=(len(copy), 2)) * 0.5, draw.normal(size=len(copy)) * 0.3
    pmf, four = (0.4, 0.3, 0.2, 0.1), np.array([0, 2, 3, 5])
    numbers = zip(draw.integers(CAMPAIGNS, size=size), draw.choice(4, size=size, p=pmf), draw.random(size), strict=True)
    for number, (context, (campaign, chosen, luck)) in enumerate(zip(_contexts(size), numbers, strict=True)):
        offered = campaign * PER_CAMPAIGN + (four + number) % PER_CAMPAIGN
        liked = offered[chosen]
        known = [float(context.get(f"feature_{place:02}", 0.0)) for place in (0, 1)]
        clicked = luck < 1.0 / (1.0 + np.exp(2.8 - worth[liked] - taste[liked] @ known))
        shown = [copy[index].content_id for index in offered]
        yield _decision(number, int(campaign), context, shown, pmf, int(chosen)), _click(number) if clicked else None


def _decision(
    number: int, campaign: int, context: dict[str, Any], shown: list[str], pmf: Sequence[float], chosen: int
) -> dict[str, Any]:
    candidates = [
        {
            "content_id": name,
            "score": p / 3,
            "expected": p / 4,
            "mean": p / 3,
            "sd": p / 9,
            "policy_p": p,
            "behaviour_p": p,
        }
        for name, p in zip(shown, pmf, strict=True)
    ]
    return {
        "decision_id": f"decision-{number:09}",
        "request_digest": f"{number:064x}",
        "loop_id": "train",
        "loop_version": 1,
        "campaign_id": f"campaign-{campaign:02}",
        "unit": f"u1:{number * 2_654_435_761 % 2**61:064x}",
        "context": _text(context),
        "group": "treatment",
        "learning_mode": "online",
        "candidates": _text(candidates),
        "excluded": "[]",
        "chosen": _text([{"position": 1, "content_id": shown[chosen], "propensity": pmf[chosen]}]),
        "policy_version": "bench",
        "model_version": None,
        "stats_version": None,
        "feature_schema": None,
        "sampler": "bench",
        "floor": 0.0,
        "constraints": '{"holdout":0.1,"slots":1}',
        "seed": f"{number:064x}",
        "deferred": False,
        "decided_at": DAY + number * 1_000,
        "batch_no": 1,
    }


def _click(number: int) -> dict[str, Any]:
    at = DAY + number * 1_000 + HOUR
    row: dict[str, Any] = dict.fromkeys(column.name for column in tables.events.columns)
    return row | {
        "source": "http",
        "event_id": f"click-{number:09}",
        "type": "click",
        "decision_id": f"decision-{number:09}",
        "link": "decision_id",
        "occurred_at": at,
        "received_at": at,
        "raw": "{}",
        "batch_no": 1,
    }


def _campaign(number: int) -> dict[str, Any]:
    return {
        "campaign_id": f"campaign-{number:02}",
        "loop_id": "train",
        "brief": "",
        "channel": "email",
        "baseline": "{}",
        "state": "running",
        "created_at": 0,
    }


def _content(content: Content) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(column.name for column in tables.contents.columns)
    return row | {
        "content_id": content.content_id,
        "campaign_id": content.campaign_id,
        "slots": _text(content.slots),
        "features": _text(content.features),
        "parameters": "{}",
        "approval": "approved",
        "fingerprint": content.fingerprint,
        "created_at": 0,
    }


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Rows whose JSON is text already, as the driver takes them."""
    columns = list(rows[0])
    quoted, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    statement = f"INSERT INTO {table.name} ({quoted}) VALUES ({marks})"
    connection.exec_driver_sql(statement, [tuple(row.values()) for row in rows])


def _text(value: Any) -> str:
    return canonical_json(value).decode()


def _range(values: list[float]) -> tuple[float, float]:
    return round(min(values), 3), round(max(values), 3)


if __name__ == "__main__":
    main()
