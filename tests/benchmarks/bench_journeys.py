"""Values of journey policies against an exact truth: importance sampling, fitted Q, and both.

The world is that of the tests (``tests/reward_models/episodes/worlds.py``): four messages, a loud one that pays once and tires.
Many logs are drawn, three policies are valued on each: the one that drew, one that shouts, one that is careful. Shown are
bias and error relative to the truth, and how often the 95 % interval holds it. FQE's interval knows customers only, not its
model's error: it is shown, and promises nothing.
"""

import os

import numpy as np

from infra.errors import EstimateRefused
from reward_models.episodes.stepwise import compare, judged, value
from reward_models.offpolicy import Estimate
from tests.benchmarks.harness import Goal, finish
from tests.reward_models.episodes.worlds import careful, journeys, logging, shouting, truth

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
LOGS = 10 if QUICK else 100
UNITS = 1_000
POLICIES = {"as it was": logging, "shouting": shouting, "careful": careful}
EXACT = {name: truth(policy) for name, policy in POLICIES.items()}


def main() -> None:
    """Print the table and the goals."""
    found: dict[tuple[str, str], list[Estimate]] = {}
    apart: list[Estimate] = []
    for seed in range(LOGS):
        episodes, tables = journeys(UNITS, 10_000 + seed, *POLICIES.values())
        said = {name: judged(episodes, table) for name, table in zip(POLICIES, tables, strict=True)}
        for name, scores in said.items():
            for each in value(episodes, scores).estimates:
                found.setdefault((name, each.name), []).append(each)
        try:
            apart.append(compare(episodes, said["careful"], said["shouting"]))
        except EstimateRefused as error:
            print(f"  log {seed}: {error}")
    print(f"{LOGS} logs of {UNITS:,} customers with four messages each")
    print(f"  {'policy':10} {'by':5} {'truth':>7} {'bias':>7} {'error':>7} {'holds':>7} {'width':>7}")
    rows = {f"{name}, {by}": _row(estimates, EXACT[name]) for (name, by), estimates in found.items()}
    rows["careful − shouting, DR"] = _row(apart, EXACT["careful"] - EXACT["shouting"])
    for name, row in rows.items():
        policy, by = name.split(", ")
        numbers = " ".join(f"{row[key]:7.3f}" for key in ("truth", "bias", "error", "holds", "width"))
        print(f"  {policy:20} {by:5} {numbers}")
    corrected = [row for name, row in rows.items() if not name.endswith("FQE")]
    holds = float(np.mean([row["holds"] for row in corrected]))
    errors = {by: np.mean([row["error"] for name, row in rows.items() if name.endswith(by)]) for by in ("PDIS", "FQE")}
    dr = float(np.mean([rows[f"{name}, DR"]["error"] for name in POLICIES]))
    finish(
        "journeys",
        [
            Goal("95 % intervals of PDIS and DR that hold the truth", holds, ">= 0.93"),
            Goal("error of DR over that of PDIS", dr / float(errors["PDIS"]), "<= 1"),
            Goal("error of FQE over that of PDIS", float(errors["FQE"]) / float(errors["PDIS"]), "<= 1"),
        ],
        rows,
    )


def _row(estimates: list[Estimate], exact: float) -> dict[str, float]:
    """Bias and root mean squared error relative to the truth; how often it is held; width of the interval likewise."""
    values = np.array([each.value for each in estimates])
    return {
        "truth": exact,
        "bias": float(values.mean() - exact) / abs(exact),
        "error": float(np.sqrt(((values - exact) ** 2).mean())) / abs(exact),
        "holds": float(np.mean([each.low < exact < each.high for each in estimates])),
        "width": float(np.mean([each.high - each.low for each in estimates])) / abs(exact),
    }


if __name__ == "__main__":
    main()
