"""What the API does when things break, in short: a real process, a real PostgreSQL behind a proxy, callers all the time.

``make steady`` runs the long forms.
"""

from collections.abc import Iterator

import pytest

from pipelines.app import create_app
from tests.pipelines.serving import served
from tests.stack.faults.database import Database
from tests.stack.steady import damage, outage, overload
from tests.stack.steady.outage import SHORT, Line, Place
from tests.stack.steady.servers import Address, Server, serving

pytestmark = [pytest.mark.stack, pytest.mark.postgres]

BODY_SECONDS = 0.5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An installation over a database behind a proxy."""
    with Database() as database:
        made = Place(database, tmp_path_factory.mktemp("steady") / "home", clock="simulated")
        yield made
        made.proxy.close()


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    """A server of it, as a process of its own."""
    with serving(place.made.settings, body_seconds=BODY_SECONDS) as running:
        yield running


def holds(line: Line) -> None:
    """The scenario found nothing that must not be, and all was answered."""
    assert (line.failed, list(line.faults)) == (0, [])


@pytest.mark.parametrize("how", ["refused", "frozen"])
def test_without_the_database_everybody_is_answered(place: Place, server: Server, how: str) -> None:
    """Whether it refuses or hangs: the baseline, unstored, and readiness says why; then decisions are stored again."""
    holds(outage.database_away(place, server, how, SHORT.seconds))


def test_models_change_under_load(place: Place, server: Server) -> None:
    """A promotion drops no question, and every score of an answer is of the version that the answer names."""
    holds(outage.models_swapped(place, server, 2 * SHORT.swaps))


def test_two_servers_and_one_decision(place: Place, server: Server) -> None:
    """Two servers that are asked one id at once answer one decision, or 409 for another body. A server that is told to
    refuse answers 503 while nothing can be stored. Unknown campaigns are looked for, not each on its own."""
    with served(create_app(place.made.settings.model_copy(update={"unstored": "refuse"}))) as address:
        other = Address(int(address.rpartition(":")[2]))

        holds(outage.raced(place, server, other, SHORT.races))
        holds(outage.strangers(place, server, other, SHORT.strangers))
        holds(outage.refusing(place, other))


@pytest.mark.parametrize("kind", [kind for kind, (_, wanted) in overload.nuisances().items() if wanted != "408"])
def test_what_cannot_be_worked_on_is_refused(server: Server, kind: str) -> None:
    """Bodies and heads beyond the limits are answered by the limit they break, and others do not notice."""
    sent, wanted = overload.nuisances()[kind]

    assert overload.bother(server, kind, sent, wanted, 2, 20.0).faults == []


@pytest.mark.parametrize("kind", ["half a body", "chunks without end"])
def test_slow_bodies_are_given_up(server: Server, kind: str) -> None:
    """A body that does not come is answered 408, and others do not notice."""
    sent, wanted = overload.nuisances()[kind]

    assert overload.bother(server, kind, sent, wanted, 4, 20.0).faults == []


def test_half_a_question_is_not_decided(server: Server) -> None:
    """A caller who is gone in the middle of a body leaves nothing."""
    assert overload.half_open(server, 4).faults == []


def test_sigterm_drains(place: Place, server: Server) -> None:
    """What is in flight is answered, what was answered as stored is stored, and the process ends in good order."""
    holds(outage.drained(place, server))


@pytest.mark.slow
def test_damaged_bundles_never_serve_a_wrong_leaf() -> None:
    """Whatever is damaged, and whatever its digest: the server lives, nothing hangs, and no leaf has another value."""
    lines = list(damage.survey(damage.SHORT))

    assert [fault for line in lines for fault in line.faults] == []
    assert sum(line.bundles for line in lines) == 4 * sum(damage.SHORT.values())
    assert sum(sum(line.refused.values()) for line in lines) > 0
