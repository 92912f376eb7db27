"""Every fault in its short form, on a real broker and a real PostgreSQL; ``make faults`` runs the long one.

Rule of all: when the fault is over, nothing is lost, doubled, made up or joined wrongly, and what the join made is row
for row what it makes without the fault.
"""

from collections.abc import Iterator

import pytest

from tests.conftest import need_local_kafka
from tests.stack.faults.runner import perform
from tests.stack.faults.scenarios import SCENARIOS, Scenario
from tests.stack.faults.trial import Stage

SEED = 7

pytestmark = [pytest.mark.stack, pytest.mark.postgres]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One broker, one PostgreSQL and, when it is needed, a cluster of three."""
    need_local_kafka()
    with Stage() as stage:
        yield stage


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_a_fault_leaves_no_trace(stage: Stage, scenario: Scenario) -> None:
    """Whatever breaks, in the end everything is as if nothing had."""
    line = perform(stage, scenario, scenario.short, SEED)

    assert line.complaints == ()
    assert line.identical
    assert line.injections > 0
