"""Choosing by context against Vowpal Wabbit, LinUCB, LinTS and bootstrapped trees: mean rank, time per decision.

Every policy meets the same customers, contents and luck, learns online, and is measured by the mean value of what it
chose, from the first round on. Worlds: the tables scikit-learn ships turned into bandits, Hillstrom's mailing, and
the simulator's customers with 5 to 500 contents, stationary, drifting and delayed (``bandit_worlds.py``).

The product is what ``/v1/rank`` calls: ``ranker.score`` over a snapshot, ``policies.pmf``, ``policies.choose``, with the settings
of a loop that names none. The snapshot is renewed by ``posterior.content_effects`` and, when ``recent.most_moved`` says
that it is worth it, ``contextual.fit_contextual``. Traffic is a decision in five seconds, so the product may look at its
newest decisions after each, as its rivals do. No model is promoted: a few thousand decisions are less than a first
gate's window.

Widths and rates of the rivals were chosen on the seeds 1 to 3 of these very worlds; the product was developed on other
tables and tastes. Those reported are other seeds (``SEEDS``). The rank of a policy is taken in each world on its mean
over the seeds, and its interval resamples worlds; the lead in one world is paired over ``BLOCKS`` spans of each play.
Times are of the processor, for the choice alone: snapshots are renewed beside the requests.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import rankdata
from scipy.stats import t as student

from ingestion.loops import parse_definition
from reward_models.contextual import WINDOW, Contextual, fit_contextual
from reward_models.policies import choose as draw
from reward_models.policies import pmf
from reward_models.serving.campaigns import Campaign
from reward_models.serving.ranker import score
from reward_models.serving.recent import Layer, most_moved
from reward_models.serving.snapshot import Loop, Snapshot
from reward_models.statistics import Counts, StatRow
from tests.benchmarks.bandit_worlds import CAMPAIGN, Rounds, mailing, shop, tables
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.rivals import BootstrappedTrees, Learner, Linear, VowpalWabbit

Floats = npt.NDArray[np.float64]

FOLDER = Path(os.environ.get("REWARDLOOP_DATA", Path(__file__).parents[3] / "shared" / "data"))
MAILING = FOLDER / "hillstrom" / "hillstrom.csv"
QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SEEDS = (301,) if QUICK else (301, 302)
ROUNDS = 500 if QUICK else 2_000
SHOPS = (
    *((contents, "stationary") for contents in (5, 20, 100, 500)),
    *((contents, "drifting") for contents in (5, 20, 100)),
    *((contents, "delayed") for contents in (5, 20, 100)),
)
OURS = "Rewardloop"
BLOCKS = 10
RETRAINS = frozenset(int(50 * 1.6**k) for k in range(14))
"""Rounds after which the bootstrapped trees are fitted again."""


class Rewardloop:
    """The product as it serves a new campaign: counts and contexts within seconds, no model promoted yet."""

    def __init__(self, world: Rounds, seed: int) -> None:
        self.world, self.rng = world, np.random.default_rng(seed)
        self.contents = list(world.contents)
        self.ids = [content.content_id for content in world.contents]
        self.features = [content.features if world.f is not None else {} for content in world.contents]
        document = {"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}}
        self.loop = Loop(parse_definition(document), 1)
        copy = {content.content_id: content for content in world.contents}
        self.campaign = Campaign(CAMPAIGN, "mail", "running", {}, copy)
        self.snapshot = Snapshot()
        self.log: list[tuple[int, int, float]] = []
        self.counts = np.zeros((2, len(self.ids)))

    def choose(self, t: int) -> int:
        """As ``/v1/rank`` does: scores, probabilities, draw."""
        scores = score(self.snapshot, self.loop, self.campaign, self.contents, self.world.contexts[t])
        return draw(pmf(self.loop.policy, scores.mean, scores.sd), float(self.rng.random()))

    def learn(self, t: int, chosen: int, reward: float) -> None:
        """Counted at once; the newest decisions are looked at as soon as there are enough new ones."""
        self.log.append((t, chosen, reward))
        self.counts[:, chosen] += (1, reward)
        rows = [
            StatRow(name, "click", int(shown), int(total * 1e6), total * 1e8, 0)
            for name, (shown, total) in zip(self.ids, self.counts.T, strict=True)
            if shown
        ]
        statistics, layers = {CAMPAIGN: {"": rows}}, self.snapshot.layers
        if most_moved(statistics, {CAMPAIGN: ""}, layers) is not None:
            layers = {CAMPAIGN: Layer("", len(self.log), self._look())}
        self.snapshot = Snapshot(counts=Counts(statistics, {}, 0), layers=layers)
        self.snapshot.standing(self.loop, self.campaign)  # computed once, and kept for all choices that follow

    def _look(self) -> Contextual | None:
        newest = self.log[-WINDOW:]
        contexts = [self.world.contexts[t] for t, _, _ in newest]
        content, reward = np.array([chosen for _, chosen, _ in newest]), np.array([earned for _, _, earned in newest])
        return fit_contextual(contexts, content, reward, self.ids, self.features)


LEARNERS: Mapping[str, Callable[[Rounds, int], Learner]] = {
    OURS: Rewardloop,
    "LinUCB": lambda world, seed: Linear(world, seed, sampled=False, width=0.3),
    "LinTS": lambda world, seed: Linear(world, seed, sampled=True, width=0.3),
    "bootstrapped LightGBM": lambda world, seed: BootstrappedTrees(world, seed, RETRAINS),
    "VW RegCB": lambda world, seed: VowpalWabbit(world, seed, "--regcbopt --mellowness 0.01"),
    "VW SquareCB": lambda world, seed: VowpalWabbit(world, seed, "--squarecb --gamma_scale 1000"),
    "VW cover": lambda world, seed: VowpalWabbit(world, seed, "--cover 5 --psi 0.1 --nounif"),
    "VW bag": lambda world, seed: VowpalWabbit(world, seed, "--bag 5"),
}


def main() -> None:
    """Play all worlds on both cores, print the tables and the goals."""
    names = [name for name in LEARNERS if find_spec("vowpalwabbit") or not name.startswith("VW")]
    jobs = [(place, seed) for place in reversed(range(len(_worlds(0, 1)))) for seed in SEEDS]
    console = Console(stderr=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        played = pool.map(_play_all, [(*job, names) for job in jobs])
        found = list(track(played, "bandits", total=len(jobs), console=console, transient=True))
    worlds = list(dict.fromkeys(name for name, _, _ in reversed(found)))
    blocks = [np.concatenate([v for name, v, _ in found if name == world], axis=1) for world in worlds]
    value = np.array([of.mean(axis=1) for of in blocks])
    spent = np.array([np.mean([ms for name, _, ms in found if name == world], axis=0) for world in worlds])
    ranks = rankdata(-value, axis=1)
    mean = ranks.mean(axis=0)
    ours, best = names.index(OURS), min(range(len(names)), key=lambda k: (names[k] == OURS, mean[k]))
    leads = {world: _lead(of[ours] - of[best]) for world, of in zip(worlds, blocks, strict=True)}
    _print(worlds, names, value, spent, ranks, leads)
    figures = _figures(worlds, names, value, spent, ranks)
    finish("bandits", _goals(names, ranks, spent, ours, best), figures | {f"lead over {names[best]}": leads})


def play(world: Rounds, learner: Learner) -> tuple[Floats, float]:
    """Mean value per counted round, in each of ``BLOCKS`` spans of equal length, and milliseconds per decision (median)."""
    waiting: list[tuple[int, int, int, float]] = []
    value, spent = [], []
    for t in range(len(world)):
        began = time.thread_time()
        chosen = learner.choose(t)
        spent.append(time.thread_time() - began)
        reward = world.reward[t, chosen]
        if not np.isnan(reward):
            value.append(world.value[t, chosen])
            waiting.append((t + world.delay, t, chosen, float(reward)))
        while waiting and waiting[0][0] <= t:
            learner.learn(*waiting.pop(0)[1:])
    return np.array([np.mean(part) for part in np.array_split(value, BLOCKS)]), 1e3 * float(np.median(spent))


def _lead(difference: Floats) -> tuple[float, float, float]:
    """Mean, and its interval over blocks (95 %, Student)."""
    width = student.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean()), float(difference.mean() - width), float(difference.mean() + width)


def _worlds(seed: int, rounds: int) -> list[Callable[[], Rounds]]:
    """Makers of all worlds, the slowest last. The mailing is longer: one row in three counts."""
    made: list[Callable[[], Rounds]] = [partial(_table, seed, rounds, place) for place in range(5)]
    if MAILING.exists():
        made.append(partial(mailing, MAILING, seed, 4 * rounds))
    sizes = sorted(SHOPS, key=lambda size: size[0])
    return made + [partial(shop, seed, _length(rounds, contents), contents, kind) for contents, kind in sizes]


def _table(seed: int, rounds: int, place: int) -> Rounds:
    return tables(seed, rounds)[place]


def _length(rounds: int, contents: int) -> int:
    """Half as many with hundreds of contents, where Vowpal Wabbit reads as many lines in every round."""
    return rounds // 2 if contents >= 200 else rounds


def _play_all(job: tuple[int, int, Sequence[str]]) -> tuple[str, Floats, list[float]]:
    """Name of the world; values, (policies, blocks); milliseconds."""
    place, seed, names = job
    world = _worlds(seed, ROUNDS)[place]()
    played = [play(world, LEARNERS[name](world, seed)) for name in names]
    return world.name, np.array([value for value, _ in played]), [spent for _, spent in played]


def _goals(names: Sequence[str], ranks: Floats, spent: Floats, ours: int, best: int) -> list[Goal]:
    lead = ranks[:, ours] - ranks[:, best]
    picked = np.random.default_rng(0).integers(0, len(lead), (2_000, len(lead)))
    low, high = np.quantile(lead[picked].mean(axis=1), [0.025, 0.975])
    return [
        Goal(
            f"mean rank less that of the best rival ({names[best]})",
            float(lead.mean()),
            "<= 0",
            (float(low), float(high)),
        ),
        Goal("milliseconds of processor per decision, slowest world", float(spent[:, ours].max()), "<= 1"),
    ]


def _figures(
    worlds: Sequence[str], names: Sequence[str], value: Floats, spent: Floats, ranks: Floats
) -> dict[str, object]:
    return {
        "rounds": ROUNDS,
        "seeds": list(SEEDS),
        "mean_rank": dict(zip(names, ranks.mean(axis=0).tolist(), strict=True)),
        "ms_per_decision": dict(zip(names, np.median(spent, axis=0).tolist(), strict=True)),
        "value": {world: dict(zip(names, row, strict=True)) for world, row in zip(worlds, value.tolist(), strict=True)},
        "vowpal_wabbit": any(name.startswith("VW") for name in names),
    }


def _print(
    worlds: Sequence[str],
    names: Sequence[str],
    value: Floats,
    spent: Floats,
    ranks: Floats,
    leads: Mapping[str, tuple[float, float, float]],
) -> None:
    table = Table(title=f"Mean value per decision, {ROUNDS:,} rounds, {len(SEEDS)} seeds", title_justify="left")
    table.add_column("world")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("lead, 95 %", justify="right")
    for world, row, rank in zip(worlds, value, ranks, strict=True):
        table.add_row(
            world,
            *(f"[bold]{v:.3f}[/]" if r == rank.min() else f"{v:.3f}" for v, r in zip(row, rank, strict=True)),
            "{:+.3f} [{:+.3f}, {:+.3f}]".format(*leads[world]),
        )
    table.add_section()
    table.add_row("mean rank", *(f"{rank:.2f}" for rank in ranks.mean(axis=0)))
    table.add_row("ms, median world", *(f"{ms:.3f}" for ms in np.median(spent, axis=0)))
    table.add_row("ms, slowest world", *(f"{ms:.3f}" for ms in spent.max(axis=0)))
    console = Console(width=180)
    console.print(table)
    if not find_spec("vowpalwabbit"):
        console.print("Vowpal Wabbit is not installed: its four policies are missing.")


if __name__ == "__main__":
    main()
