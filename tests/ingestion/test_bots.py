"""Machines' clicks: labelled, left out of metrics, never dropped, and anybody may take the word back."""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, select

from infra.database import open_database, reading, writing
from infra.errors import NotFound
from infra.secrets import Secrets
from infra.settings import Settings
from infra.tables import event_labels, events, outcomes
from ingestion import bots, store
from ingestion.bots import BURST, MACHINES, BotWatch, Click, in_a_burst, machine, put_label
from ingestion.events import Batch, Decision, Event, Label
from ingestion.ledger import conservation, newest_batch
from ingestion.loops import put_loop
from tests.ingestion.join.test_join_histories import LOOP, SECOND, decision, event, purchase
from tests.ingestion.join.test_join_plans import FACTS, plan
from tests.ingestion.tables import empty, rows

BROWSER = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile/15E148 Safari"
)
PERSON = {"user-agent": BROWSER, "accept": "text/html"}
SECRETS = Secrets(bytes(range(32)), {1: bytes(range(32, 64))}, {1: bytes(range(64, 96))})


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """An empty store with one loop."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
    return any_engine


def at(id_: str, micros: int, **changes: Any) -> Event:
    """A click at a moment of its decision, in microseconds."""
    return msgspec.structs.replace(event(id_, "click", 0, **({"decision_id": "d"} | changes)), occurred_at=micros)


def take(engine: Engine, *facts: Decision | Event | Label) -> None:
    """Apply facts in one batch."""
    batch = Batch(
        decisions=tuple(fact for fact in facts if isinstance(fact, Decision)),
        events=tuple(fact for fact in facts if isinstance(fact, Event)),
        labels=tuple(fact for fact in facts if isinstance(fact, Label)),
    )
    store.apply(engine, batch, SECRETS, 1_000 * SECOND)


def watch(engine: Engine, seconds: float = 1.0) -> BotWatch:
    """A sweep that begins now."""
    return BotWatch(engine, SECRETS, Settings(bot_seconds=seconds), lambda: 1_000 * SECOND)


def labelled(engine: Engine) -> dict[str, str]:
    """Events that are called a bot's, with the reason."""
    with reading(engine) as connection:
        found = connection.execute(select(event_labels).where(event_labels.c.label == "bot"))
        return {row.event_id: row.reason for row in found if row.applies}


def clicked(engine: Engine) -> int:
    """Decisions with a click that counts."""
    return sum(row[2] == "clicked" for row in rows(engine, outcomes))


class TestTheDoor:
    """How a redirect is asked for."""

    @pytest.mark.parametrize(
        ("method", "headers", "reason"),
        [
            ("GET", {}, None),
            ("GET", {"purpose": "something else"}, None),
            ("HEAD", {}, "a HEAD request"),
            ("GET", {"sec-purpose": "prefetch;prerender"}, "sec-purpose: prefetch"),
            ("GET", {"purpose": "Prefetch"}, "purpose: prefetch"),
            ("GET", {"x-moz": "prefetch"}, "x-moz: prefetch"),
            ("GET", {"x-purpose": "preview"}, "x-purpose: preview"),
            ("GET", {"user-agent": "Mozilla/5.0 (compatible; bingbot/2.0)"}, "client bingbot"),
            ("GET", {"user-agent": "Mozilla/5.0 (via ggpht.com GoogleImageProxy)"}, "client GoogleImageProxy"),
            ("GET", {"user-agent": "PYTHON-REQUESTS/2.32"}, "client PYTHON-REQUESTS"),
            ("GET", {"user-agent": "Mozilla/5.0 (Linux; Android 9; CUBOT_X19) Chrome/120 Mobile"}, None),
            ("GET", {"user-agent": ""}, "no user agent"),
        ],
    )
    def test_a_machine_gives_itself_away(self, method: str, headers: dict[str, str], reason: str | None) -> None:
        """Prefetching browsers, HEAD requests and clients with a machine's name are told apart from people."""
        assert machine(method, PERSON | headers) == reason

    @pytest.mark.parametrize("name", MACHINES)
    def test_every_name_in_the_table_counts(self, name: str) -> None:
        """Each name is found anywhere in a user agent, in any case."""
        assert machine("GET", {"user-agent": f"Mozilla/5.0 (x; {name.lower()}1.0)"}) is not None

    def test_a_request_without_a_client_is_a_machine(self) -> None:
        """Every browser says what it is."""
        assert machine("GET", {}) == "no user agent"


class TestSpeed:
    """What no person can do."""

    def test_sooner_than_a_person_could(self, database: Engine) -> None:
        """A click within the second after its decision is a machine's; one before it or after a second is not."""
        times = {"early": -1, "at once": 0, "soon": SECOND - 1, "later": SECOND}
        take(database, decision("d", 10), *(at(name, 10 * SECOND + after) for name, after in times.items()))

        assert watch(database).label_bots() == 2
        assert labelled(database) == dict.fromkeys(("at once", "soon"), "sooner than a person could")

    def test_the_clock_starts_with_the_activation(self, database: Engine) -> None:
        """What was sent later than it was decided is measured from when it was sent."""
        take(
            database,
            decision("d", 10),
            at("soon after the decision", 10 * SECOND + 1),
            at("soon after it was sent", 20 * SECOND + 1),
            event("sent", "activation", 20, decision_id="d"),
        )
        watch(database).label_bots()

        assert list(labelled(database)) == ["soon after it was sent"]

    def test_too_many_at_once(self, database: Engine) -> None:
        """Four clicks of one decision within a second are a machine's, three are a nervous finger's."""
        four = [at(f"m{number}", (20 * number + 2_000) * SECOND // 100) for number in range(4)]
        three = [at(f"p{number}", 50 * SECOND + number, decision_id="p") for number in range(3)]
        take(database, decision("d", 0), decision("p", 0), *four, *three)
        watch(database).label_bots()

        assert labelled(database) == dict.fromkeys(("m0", "m1", "m2", "m3"), "too many at once")

    def test_too_many_of_one_customer(self, database: Engine) -> None:
        """A gateway that follows the links of several mails to one customer is seen by the customer."""
        clicks = [at(f"c{number}", 50 * SECOND + number, decision_id=None, unit="u1:ann") for number in range(4)]
        for click in clicks:
            take(database, click)
        watch(database).label_bots()

        assert len(labelled(database)) == 4

    def test_orders_are_not_doubted(self, database: Engine) -> None:
        """Money that a shop reports at once, even often, is not a machine's click."""
        orders = [purchase(f"o{number}", 10, 5, decision_id="d", unit=None) for number in range(5)]
        take(database, decision("d", 10), *orders)

        assert watch(database).label_bots() == 0

    def test_speed_can_be_left_out(self, database: Engine) -> None:
        """With `bot_seconds` 0 only clients that name themselves are labelled."""
        named = at("named", 10 * SECOND + 1, raw={"client": "Barracuda Sentinel"})
        take(database, decision("d", 10), at("soon", 10 * SECOND), named)
        watch(database, 0).label_bots()

        assert labelled(database) == {"named": "client Barracuda"}


class TestTheWord:
    """What a label does, and how it is taken back."""

    def test_a_label_takes_the_click_out_and_back(self, database: Engine) -> None:
        """A labelled click is stored and not counted; when a person takes the label back it counts again."""
        take(database, decision("d", 10), at("soon", 10 * SECOND))
        before = clicked(database)
        watch(database).label_bots()
        during = clicked(database)
        put_label(database, SECRETS, "shop", "soon", "bot", False, "it was me", 2_000 * SECOND)

        assert (before, during, clicked(database)) == (1, 0, 1)
        assert [row[2] for row in rows(database, events)] == ["soon"]
        assert conservation(database) == 0

    def test_the_sweep_never_contradicts_a_person(self, database: Engine) -> None:
        """A label that a person took back is not put back, whoever sweeps again and whatever comes after."""
        take(database, decision("d", 10), at("soon", 10 * SECOND))
        sweep = watch(database)
        sweep.label_bots()
        put_label(database, SECRETS, "shop", "soon", "bot", False, "it was me", 0)
        take(database, at("another", 10 * SECOND + 5))
        again = sweep.label_bots(), watch(database).label_bots()

        assert again == (1, 0)
        assert clicked(database) == 1

    def test_even_a_race_leaves_the_persons_word(self, database: Engine) -> None:
        """A sweep that looked before a person spoke and wrote after changes nothing: its word is dated earlier."""
        take(database, decision("d", 10), at("soon", 10 * SECOND, received_at=11 * SECOND))
        with reading(database) as connection:
            words = bots.suspects(connection, [], ["d"], SECOND)
        put_label(database, SECRETS, "shop", "soon", "bot", False, "it was me", 12 * SECOND)
        take(database, *words)

        assert [word.labelled_at for word in words] == [11 * SECOND]
        assert clicked(database) == 1

    def test_a_vendors_word_is_enough(self, database: Engine) -> None:
        """What a vendor called a bot's is not labelled a second time."""
        take(
            database,
            decision("d", 10),
            at("soon", 10 * SECOND),
            Label(source="shop", event_id="soon", label="bot", labelled_at=0, reason="the vendor says so"),
        )

        assert watch(database).label_bots() == 0
        assert clicked(database) == 0

    def test_a_person_may_label_too(self, database: Engine) -> None:
        """Label, take back, label: each word holds until the next, even when the clock stands still."""
        take(database, decision("d", 10), at("late", 20 * SECOND))
        found = []
        for applies in (True, False, True):
            put_label(database, SECRETS, "shop", "late", "test", applies, "", 5)
            found.append(clicked(database))

        assert found == [0, 1, 0]

    def test_an_unknown_event_cannot_be_labelled(self, database: Engine) -> None:
        """A misspelt id is said to be one."""
        with pytest.raises(NotFound, match="No event 'sooon' of source 'shop'"):
            put_label(database, SECRETS, "shop", "sooon", "bot", True, "", 0)


class TestTheSweep:
    """When it looks at what."""

    def test_a_sweep_with_nothing_new_writes_nothing(self, database: Engine) -> None:
        """Labels are written once; later sweeps leave no batch behind."""
        take(database, decision("d", 10), at("soon", 10 * SECOND))
        sweep = watch(database)
        labels = [sweep.label_bots() for _ in range(3)]
        with reading(database) as connection:
            newest = newest_batch(connection)

        assert (labels, newest) == ([1, 0, 0], 2)

    def test_a_decision_that_comes_late(self, database: Engine) -> None:
        """A click that waited for its decision is judged when the decision comes, and again when it is activated."""
        take(database, at("soon", 10 * SECOND), at("after", 30 * SECOND))
        sweep = watch(database)
        found = [sweep.label_bots()]
        take(database, decision("d", 10))
        found.append(sweep.label_bots())
        take(database, event("sent", "activation", 30, decision_id="d"))
        found.append(sweep.label_bots())

        assert found == [0, 1, 1]

    def test_a_burst_over_batches(self, database: Engine) -> None:
        """Clicks that arrive one by one are a burst all the same."""
        sweep = watch(database)
        take(database, decision("d", 0))
        found = []
        for number in range(5):
            take(database, at(f"c{number}", 50 * SECOND + number))
            found.append(sweep.label_bots())

        assert found == [0, 0, 0, 4, 1]

    def test_a_large_backlog_is_taken_in_ranges(self, database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        """The ledger is looked at in parts of bounded size, one after the other, and nothing is left out."""
        ranges = []

        def recent(connection: Connection, since: int, upto: int) -> Any:
            ranges.append((since, upto))
            return looked_up(connection, since=since, upto=upto)

        looked_up = bots._recent
        monkeypatch.setattr(bots, "_recent", recent)
        monkeypatch.setattr(bots, "RANGE", 6)
        for number in range(5):
            take(database, decision(f"d{number}", 10), at(f"c{number}", 10 * SECOND, decision_id=f"d{number}"))

        assert watch(database).label_bots() == 5
        assert ranges[:3] == [(0, 2), (2, 4), (4, 6)]  # two batches of three records each; the sixth holds labels

    @pytest.mark.parametrize("name", ["_recent", "_attributed", "_of_decisions", "_of_units", "_words"])
    def test_a_sweep_reads_no_table_whole(self, name: str, engine: Engine) -> None:
        """Every statement finds its rows by an index, however large the store has grown."""
        steps = plan(engine, getattr(bots, name).__wrapped__)

        assert [step for step in steps if re.match(rf"SCAN ({FACTS})\b", step)] == []
        assert name != "_recent" or ["ix_events_watched" in step for step in steps] == [True]

    @settings(max_examples=25, deadline=None)
    @given(st.randoms(use_true_random=False), st.lists(st.integers(0, 30), min_size=1, max_size=12))
    def test_order_and_batches_do_not_matter(
        self, tmp_path_factory: pytest.TempPathFactory, migrated_file: Path, random: random.Random, tenths: list[int]
    ) -> None:
        """Whatever order the facts come in, and wherever a sweep falls between them, the same clicks are labelled."""
        path = tmp_path_factory.mktemp("order") / "rewardloop.db"
        path.write_bytes(migrated_file.read_bytes())
        engine = open_database(f"sqlite:///{path}")
        with writing(engine) as connection:
            put_loop(connection, LOOP, 0)
        facts: list[Decision | Event] = [decision("d", 0), decision("e", 1)]
        facts += [
            at(f"c{number}", tenth * SECOND // 10, decision_id="de"[number % 2]) for number, tenth in enumerate(tenths)
        ]
        take(engine, *facts)
        watch(engine).label_bots()
        at_once = labelled(engine)
        empty(engine)
        random.shuffle(facts)
        sweep = watch(engine)
        for some in split(facts, random):
            take(engine, *some)
            sweep.label_bots()
        one_by_one = labelled(engine)
        engine.dispose()

        assert set(at_once) == set(one_by_one)


def split(facts: Sequence[Decision | Event], random: random.Random) -> list[list[Decision | Event]]:
    """The facts in batches of one to four."""
    parts, left = [], list(facts)
    while left:
        size = random.randint(1, 4)
        parts.append(left[:size])
        left = left[size:]
    return parts


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), max_size=14), st.integers(1, 6))
def test_a_burst_is_any_window_with_too_many(found: list[tuple[str, int]], fastest: int) -> None:
    """The sliding window finds exactly the clicks that some window of that length shares with enough others."""
    clicks = [Click(group, "s", f"e{number}", moment, 0) for number, (group, moment) in enumerate(found)]
    expected = {
        click
        for group in "ab"
        for start in range(13)
        for window in [[c for c in clicks if c.group == group and start <= c.occurred_at < start + fastest]]
        for click in window
        if len(window) >= BURST
    }

    assert in_a_burst(clicks, fastest) == expected
