"""One scenario from beginning to end, and its line in the table."""

import time
from dataclasses import dataclass

from tests.stack.faults.scenarios import Amount, Scenario
from tests.stack.faults.trial import Stage

SHOWN = 20
"""Complaints that are printed; there may be thousands."""


@dataclass(frozen=True)
class Line:
    """What became of a scenario."""

    fault: str
    injections: int
    records: int
    seconds: float
    lost: int
    doubled: int
    phantom: int
    misjoined: int
    altered: int
    unaccounted: int
    identical: bool
    complaints: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Nothing lost, doubled, made up, joined wrongly, altered or uncounted, and as without the fault."""
        return self.identical and not self.complaints


def perform(stage: Stage, scenario: Scenario, amount: Amount, seed: int) -> Line:
    """Run a scenario and compare what is left with the ledger and with the faultless run."""
    expected = stage.faultless(seed, amount.customers)
    started = time.monotonic()
    brokers = stage.cluster if scenario.cluster else stage.broker
    database = stage.small_database if scenario.small_disk else stage.database
    with stage.trial(brokers, database, seed, amount.customers) as trial:
        injected = scenario.run(trial, amount.repeats)
        verdict = trial.verdict(again=injected.again)
    return Line(
        fault=scenario.name,
        injections=injected.times,
        records=verdict.records,
        seconds=time.monotonic() - started,
        lost=len(verdict.lost),
        doubled=len(verdict.doubled),
        phantom=len(verdict.phantom),
        misjoined=len(verdict.misjoined),
        altered=len(verdict.altered),
        unaccounted=len(verdict.unaccounted),
        identical=verdict.digest == expected,
        complaints=tuple(verdict.wrong[:SHOWN]),
    )
