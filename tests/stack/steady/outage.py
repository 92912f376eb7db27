"""Dependencies that are away, models that change, servers that stop: real processes, a real PostgreSQL, callers all the time.

An outage of an hour or a day is compressed: the simulated clock of the installation is moved through all of it while
callers keep asking. Every scenario says what must not be; an empty list is a pass.

- the database refuses connections, for an hour; then it is frozen, for an hour: every question is answered, by the
  baseline, ``durable: false``; what was answered as stored is stored; readiness says why; it comes back by itself
- the files of all models, MLflow, and the files of a new champion are away, for a day: the last good model chooses on
- ``REWARDLOOP_UNSTORED=refuse``: 503 with ``Retry-After``, and nothing else
- models are promoted under load: no question is dropped, no answer mixes two versions
- two servers are asked one id at the same time: one decision, the same answer from both, or 409 for another body
- a flood of unknown campaigns: few queries; a campaign that another server registered is found by the first question
- SIGTERM: what is in flight is answered and stored, new connections are refused, the exit code is 0
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import text

from infra.clock import DAY, HOUR, SimulatedClock, system_clock
from infra.database import open_database, reading
from reward_models.serving.snapshot import RETRY_SECONDS, SEEK_SECONDS
from tests.stack.faults.database import Database
from tests.stack.faults.proxy import Proxy
from tests.stack.faults.waiting import until
from tests.stack.steady.crowd import Asked, asking, lasting, question_of
from tests.stack.steady.servers import Address, Answer, Server, serving
from tests.stack.steady.world import CONTEXTS, Installation, install

PATIENCE = 300.0
"""Seconds that anything may take that must come by itself."""
COUNTED = 1.5
"""Seconds after which PostgreSQL has counted a transaction."""
LOOKS = 1 / SEEK_SECONDS
"""Most looks a second that unknown names cause."""
_TOLERANCE = 1e-9


class Amount(NamedTuple):
    """How much is done: seconds of an outage, promotions, ids that are raced for, unknown campaigns."""

    seconds: float
    swaps: int
    races: int
    strangers: int


SHORT = Amount(1.0, 1, 20, 80)
LONG = Amount(20.0, 20, 500, 2_000)


class Line(NamedTuple):
    """A line of the table."""

    scenario: str
    asked: int
    failed: int
    durable: int
    baseline: int
    note: str
    faults: Sequence[str]


class Place:
    """A database behind a proxy, with an installation in it."""

    def __init__(self, database: Database, home: Path, **more: Any) -> None:
        self.url = database.new()
        self.proxy = Proxy(database.socket)
        through = database.through(self.url, self.proxy.port)
        self.home = home
        self.made: Installation = install(self.url, through, home, **more)
        self.clock = SimulatedClock(home / "clock")
        self._now = system_clock()
        self.clock.set(self._now)

    def pass_time(self, micros: int) -> None:
        """Move the simulated clock."""
        self._now += micros
        self.clock.set(self._now)

    def transactions(self) -> int:
        """How many transactions the database has seen. What is counted comes a second late."""
        engine = open_database(self.url)
        with reading(engine) as connection:
            connection.execute(text("SELECT pg_stat_clear_snapshot()"))
            query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            found = int(connection.scalar(text(query)) or 0)
        engine.dispose()
        return found


def line(scenario: str, asked: Sequence[Asked], note: str, faults: Sequence[str]) -> Line:
    """A line, with a fault for every question that was not answered."""
    failed = [one for one in asked if one.answer.status != 200]
    told = [f"{one.decision_id}: {one.answer.status} {str(one.answer.document)[:200]}" for one in failed[:3]]
    durable, baseline = sum(one.is_durable for one in asked), sum(one.is_baseline for one in asked)
    return Line(scenario, len(asked), len(failed), durable, baseline, note, [*told, *faults])


def database_away(place: Place, server: Address, how: str, seconds: float) -> Line:
    """``how``: refused or frozen."""
    begin, end = {
        "refused": (place.proxy.refuse, place.proxy.allow),
        "frozen": (place.proxy.freeze, place.proxy.thaw),
    }[how]
    steps = max(1, round(seconds * 10))
    with asking(server) as crowd:
        before = lasting(crowd, 0.5)
        begin()
        begun = time.monotonic()
        until(lambda: crowd.asked[-1].is_baseline, PATIENCE, "the baseline is answered")
        during = lasting(crowd, seconds, lambda: place.pass_time(HOUR // steps))
        during = [one for one in during if one.asked_at > begun]
        ready = server.ask("GET", "/readyz").document
        gone = time.monotonic()
        end()
        until(lambda: crowd.asked[-1].is_durable, PATIENCE, "decisions are stored again")
        back = time.monotonic() - gone
        after = lasting(crowd, 0.5)
        asked = list(crowd.asked)
    faults = _unlike(during, lambda one: one.is_baseline and not one.is_durable, "not the baseline while away")
    faults += _unlike([*before[:5], *after[-5:]], lambda one: one.is_durable, "not stored while the database was there")
    faults += _unstored(place.made, asked)
    if ready["status"] != "degraded" or ready["database"] != "away" or not ready["reason"]:
        faults.append(f"readiness said {ready}")
    slowest = max(one.answer.seconds for one in during)
    unknown = place.made.stored([one.decision_id for one in asked if one.answer.is_ok and not one.is_durable])
    note = f"slowest answer {slowest:.2f} s, stored again after {back:.1f} s; {ready['reason']}"
    note += f"; {len(unknown)} whose commit was cut off were stored all the same" if unknown else ""
    return line(f"database {how}, an hour", asked, note, faults)


def models_away(place: Place, server: Address, seconds: float) -> Line:
    """Files of every model, of the new champion too, and MLflow (which was never there), for a day."""
    steps, models = max(1, round(seconds * 10)), place.made.settings.bundles
    first, second = list(place.made.models)
    aside = models.with_name("aside")
    with asking(server) as crowd:
        models.rename(aside)
        place.made.promote(second)
        until(lambda: _loop(server)["state"] == "last_good", PATIENCE, "the new champion is refused")
        during = lasting(crowd, seconds, lambda: place.pass_time(DAY // steps))
        ready = server.ask("GET", "/readyz").document
        aside.rename(models)
        if seconds < RETRY_SECONDS / 2:  # nobody waits for the next look: the version is promoted anew
            place.made.promote(first)
            until(lambda: _loop(server)["state"] == "choosing", PATIENCE, "the champion before is in force")
            place.made.promote(second)
        until(lambda: _loop(server)["serving"] == second, PATIENCE, "the new champion serves")
        after = lasting(crowd, 0.5)
        asked = list(crowd.asked)
    faults = _unlike(during, lambda one: one.answer.document.get("model_version") == first, "not the last good model")
    faults += _unlike(
        after[-5:], lambda one: one.answer.document.get("model_version") == second, "not the new champion"
    )
    faults += _unlike(asked, lambda one: one.is_durable, "not stored")
    if ready["status"] != "degraded" or not ready["reason"]:
        faults.append(f"readiness said {ready}")
    return line("model files and MLflow away, a day", asked, str(ready["reason"]), faults)


def refusing(place: Place, server: Address) -> Line:
    """A server with ``unstored`` ``refuse`` while the database is away."""
    with asking(server, pause=0.05) as crowd:
        place.proxy.refuse()
        until(lambda: [one.answer.status for one in crowd.asked[-1:]] == [503], PATIENCE, "questions are refused")
        during = lasting(crowd, 0.5)
        place.proxy.allow()
        until(lambda: crowd.asked[-1].is_durable, PATIENCE, "decisions are stored again")
        asked = list(crowd.asked)
    faults = _unlike(during, lambda one: one.answer.status == 503, "not 503")
    faults += _unlike(during, lambda one: one.answer.headers.get("retry-after") == "1", "without Retry-After")
    faults += _unlike(during, lambda one: "again" in one.answer.document["detail"], "without a word what to do")
    faults += _unstored(place.made, asked)
    refused = sum(one.answer.status == 503 for one in asked)
    others = [one for one in asked if one.answer.status != 503]
    made = line("database refused, unstored=refuse", others, f"{refused} answered 503 with Retry-After", faults)
    return made._replace(asked=len(asked))


def models_swapped(place: Place, server: Address, swaps: int) -> Line:
    """Two versions are promoted in turn, over the API, under load."""
    versions = list(place.made.models)
    expected = {version: place.made.expected(version) for version in versions}
    with asking(server, explain=True) as crowd:
        for number in range(swaps):
            body = {"version": versions[number % 2], "actor": "test"}
            promoted = server.ask("POST", "/v1/loops/mail/promote", body)
            assert promoted.is_ok, promoted
        lasting(crowd, 0.3)
        asked = list(crowd.asked)
    seen = {one.answer.document["model_version"] for one in asked if one.answer.is_ok}
    mixed = [one for one in asked if one.answer.is_ok and not _is_whole(one, expected)]
    faults = [f"{one.decision_id}: the scores are not those of {one.answer.document['model_version']}" for one in mixed]
    if seen != set(versions):
        faults.append(f"only {seen} were seen")
    return line(f"{swaps} promotions under load", asked, f"{len(mixed)} answers mix versions", faults)


def raced(place: Place, one: Address, other: Address, races: int) -> Line:
    """Each id is asked of two servers at once; of every second one with another body."""
    asked, faults = [], []
    with one.caller() as first, other.caller() as second, ThreadPoolExecutor(2) as pool:
        for number in range(races):
            same = number % 2 == 0
            question = question_of(number) | {"decision_id": f"raced-{time.monotonic_ns()}"}
            rival = question if same else question | {"context": {"age": 99}}
            pair = pool.map(lambda way: way[0].post("/v1/rank", way[1]), ((first, question), (second, rival)))
            answers = list(pair)
            asked += [Asked(question["decision_id"], question["context"], answer, 0.0) for answer in answers]
            statuses = sorted(answer.status for answer in answers)
            if same and (statuses != [200, 200] or answers[0].document != answers[1].document):
                faults.append(f"{question['decision_id']}: two answers, {[answer.document for answer in answers]}")
            if not same and statuses != [200, 409]:
                faults.append(f"{question['decision_id']}: two bodies, {statuses}")
    conflicts = sum(one.answer.status == 409 for one in asked)
    answered = [one for one in asked if one.answer.status != 409]
    faults += _unstored(place.made, answered)
    made = line(f"{races} ids asked of two servers at once", answered, f"{conflicts} answered 409", faults)
    return made._replace(asked=len(asked))


def strangers(place: Place, server: Address, other: Address, count: int) -> Line:
    """Unknown campaigns in a flood, then campaigns that the other server has just registered."""
    time.sleep(COUNTED)  # what came before
    start = place.transactions()
    time.sleep(COUNTED)
    before, began = place.transactions(), time.monotonic()
    idle = (before - start) / COUNTED
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(lambda part: _ask_strangers(server, part, count // 8), range(8))
        answers = [answer for part in parts for answer in part]
    seconds = time.monotonic() - began
    time.sleep(COUNTED)
    queries = place.transactions() - before
    usual = 20.0 + idle * (seconds + COUNTED) + 4.0 * LOOKS * seconds  # a look is a few transactions
    faults = [f"{answer.status} for an unknown campaign" for answer in answers if answer.status != 404][:3]
    if queries > usual:
        faults.append(f"{queries} transactions in {seconds:.1f} s, {idle:.0f} a second without strangers")
    found = []
    for number in range(max(3, count // 100)):
        name = f"new-{number}"
        contents = [{"id": f"{name}-a", "slots": {"subject": "Line"}}]
        made = other.ask("POST", "/v1/campaigns", {"campaign": name, "loop": "mail", "contents": contents})
        assert made.is_ok, made
        answer = server.ask("POST", "/v1/rank", {"loop": "mail", "campaign": name})
        found.append(Asked(name, {}, answer, 0.0))
    note = f"{len(answers)} strangers: {queries} transactions in {seconds:.1f} s; {len(found)} new ones found at once"
    made_line = line("unknown campaigns", found, note, faults)
    return made_line._replace(asked=len(found) + len(answers))


def drained(place: Place, server: Server, count: int = 12) -> Line:
    """SIGTERM while commits are under way, held up by a slow database."""
    server.ask("POST", "/v1/rank", question_of(0, decision_id="before"))
    place.proxy.delay(0.2)
    with ThreadPoolExecutor(count) as pool:
        questions = [question_of(number, decision_id=f"drained-{number}") for number in range(count)]
        waiting = [pool.submit(server.ask, "POST", "/v1/rank", question) for question in questions]
        until(lambda: _in_flight(server) >= count // 2, PATIENCE, "questions are in flight")
        server.asked_to_stop()
        until(lambda: not _listens(server.port), PATIENCE, "new connections are refused")
        answers = [future.result() for future in waiting]
    place.proxy.delay(0.0)
    code = server.ended()
    pairs = zip(questions, answers, strict=True)
    asked = [Asked(question["decision_id"], question["context"], answer, 0.0) for question, answer in pairs]
    faults = _unstored(place.made, asked) + ([] if code == 0 else [f"exit code {code}: {server.said()[-500:]}"])
    return line("SIGTERM with questions in flight", asked, f"exit code {code}, then refused", faults)


def survey(database: Database, home: Path, amount: Amount = LONG) -> Iterator[Line]:
    """Every scenario, one after the other, on the same two servers."""
    place = Place(database, home, clock="simulated")
    try:
        with serving(place.made.settings) as server:
            yield database_away(place, server, "refused", amount.seconds)
            yield database_away(place, server, "frozen", amount.seconds)
            yield models_away(place, server, amount.seconds)
            yield models_swapped(place, server, amount.swaps)
            with serving(place.made.settings, unstored="refuse") as other:
                yield refusing(place, other)
                yield raced(place, server, other, amount.races)
                yield strangers(place, server, other, amount.strangers)
                yield drained(place, other)
    finally:
        place.proxy.close()


def _ask_strangers(server: Address, part: int, count: int) -> list[Answer]:
    with server.caller() as caller:
        return [
            caller.post("/v1/rank", {"loop": "mail", "campaign": f"nobody-{part}-{number}"}) for number in range(count)
        ]


def _unlike(asked: Sequence[Asked], rule: Callable[[Asked], bool], what: str) -> list[str]:
    """A complaint if any breaks the rule. What was not answered at all is counted elsewhere."""
    odd = [one for one in asked if one.answer.status in (200, 503) and not rule(one)]
    return [f"{len(odd)} of {len(asked)} {what}, first {odd[0].answer}"] if odd else []


def _unstored(made: Installation, asked: Sequence[Asked]) -> list[str]:
    """Complaints about what was answered as stored and is not."""
    durable = [one.decision_id for one in asked if one.is_durable]
    missing = set(durable) - made.stored(durable)
    return [f"{len(missing)} answered as stored are not"] if missing else []


def _is_whole(one: Asked, expected: dict[str, Sequence[Sequence[float]]]) -> bool:
    """Whether every score of an answer is its own version's."""
    document = one.answer.document
    row = expected[document["model_version"]][list(CONTEXTS).index(one.context)]
    found = [candidate["expected"] for candidate in document["candidates"]]
    return len(found) == len(row) and all(abs(a - b) <= _TOLERANCE for a, b in zip(found, row, strict=True))


def _loop(server: Address) -> dict[str, object]:
    found: dict[str, object] = server.ask("GET", "/readyz").document["loops"]["mail"]
    return found


def _in_flight(server: Address) -> float:
    lines = str(server.ask("GET", "/metrics").document).splitlines()
    return next(float(one.split()[1]) for one in lines if one.startswith("rewardloop_requests_in_flight "))


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False
