"""Redirect links end to end: ranked, clicked, recorded first, and never an open redirect."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading, writing
from infra.errors import Unavailable
from infra.secrets import Secrets
from ingestion import store
from ingestion.events import Batch, Rejected
from ingestion.http.redirects import Click, ClickLog, click_of
from ingestion.ledger import conservation
from ingestion.links import Link, make_link
from ingestion.loops import put_loop
from ingestion.spool import Spool
from ingestion.tokens import TokenContent, read_token
from tests.ingestion.join.test_join_histories import LOOP, SECOND, decision
from tests.ingestion.tables import rows
from tests.pipelines.api import away, define, inside, rank, refused, running, trace
from tests.pipelines.test_app import wait_for

PUBLIC = "https://go.example.com"
SALE = "https://shop.example.com/sale?x=1#top"
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}
SECURE = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-robots-tag": "noindex, nofollow",
    "x-content-type-options": "nosniff",
}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestClient]:
    """The API with one host that redirects may lead to."""
    url = request.getfixturevalue(f"{request.param}_url")
    listed = {"redirect_hosts": ["shop.example.com"], "public_url": PUBLIC}
    with running(url, tmp_path / "home", **listed) as client:
        define(client)
        yield client


def linked(client: TestClient, **fields: Any) -> Any:
    """A choice with one link."""
    return rank(client, links={"cta": SALE}, **fields)


def follow(client: TestClient, link: str, method: str = "GET", **headers: str) -> Response:
    """What a link answers; nothing is followed further."""
    path = link.removeprefix(PUBLIC)
    return client.request(method, path, headers=BROWSER | headers, follow_redirects=False)


def clicks(client: TestClient) -> list[Any]:
    """The stored events, oldest first."""
    with reading(inside(client).serving.engine) as connection:
        return list(connection.execute(select(tables.events).order_by(tables.events.c.event_id)))


def words(client: TestClient) -> list[str]:
    """Why events are called a bot's."""
    with reading(inside(client).serving.engine) as connection:
        return sorted(connection.scalars(select(tables.event_labels.c.reason)))


class TestRank:
    """Links in the answer."""

    def test_each_content_within_the_slots_has_its_own_links(self, client: TestClient) -> None:
        """Every position drawn carries every link, different ones; what is beyond the slots carries none."""
        answer = linked(client, slots=1)
        first, second = answer["ranked"]

        assert list(first["links"]) == ["cta"]
        assert first["links"]["cta"].startswith(f"{PUBLIC}/r/1.")
        assert second["links"] is None
        both = linked(client, slots=2)["ranked"]
        assert both[0]["links"]["cta"] != both[1]["links"]["cta"]

    def test_without_links_there_are_none(self, client: TestClient) -> None:
        """Who does not ask for links gets none."""
        assert [one["links"] for one in rank(client)["ranked"]] == [None, None]

    def test_links_are_not_part_of_the_decision(self, client: TestClient) -> None:
        """The same id with other links is the stored choice with these; the trace knows nothing of links, and the
        decision replays."""
        first = linked(client, decision_id="d1", unit="jane")
        traced = trace(client, "d1")
        second = rank(client, decision_id="d1", unit="jane", links={"top": "https://shop.example.com/new"})
        third = rank(client, decision_id="d1", unit="jane")
        again = linked(client, decision_id="d1", unit="jane")

        assert again == first
        assert [one["content_id"] for one in second["ranked"]] == [one["content_id"] for one in first["ranked"]]
        assert list(second["ranked"][0]["links"]) == ["top"]
        assert third["ranked"][0]["links"] is None
        assert trace(client, "d1")["decision"] == traced["decision"]
        assert (traced["replay"]["choice"], "links" in str(traced["decision"])) == ("exact", False)

    def test_a_wrong_link_stores_nothing(self, client: TestClient) -> None:
        """A link to a host that is not listed is refused before anything is decided, and named."""
        body = {"loop": "mail", "campaign": "june", "decision_id": "d1", "links": {"cta": "https://evil.example/"}}
        answer = client.post("/v1/rank", json=body)

        assert "Link 'cta': host 'evil.example' is not listed; add it to REWARDLOOP_REDIRECT_HOSTS" in refused(
            answer, 422
        )
        assert answer.json()["errors"][0]["pointer"] == "/links/cta"
        assert client.get("/v1/decisions/d1").status_code == 404

    @pytest.mark.parametrize(
        ("links", "sentence"),
        [
            ({}, "'links' needs at least 1 entry"),
            ({f"l{number}": SALE for number in range(21)}, "'links' has more than 20 entries"),
            ({"a b": SALE}, "[key]"),
            ({"cta": ""}, "at least 1 character"),
            ({"cta": "https://shop.example.com/" + "a" * 2_000}, "at most 2000 characters"),
            ([SALE], "must be an object"),
        ],
    )
    def test_limits(self, client: TestClient, links: Any, sentence: str) -> None:
        """Names, lengths and the number of links are limited."""
        assert sentence in refused(
            client.post("/v1/rank", json={"loop": "mail", "campaign": "june", "links": links}), 422
        )

    def test_copy_that_is_not_stored_still_links(self, client: TestClient) -> None:
        """In a dry run, and with the database away, the links are the addresses themselves: the copy works."""
        dry = linked(client, dry_run=True)
        with away(inside(client).serving.engine, inside(client).serving.decisions.engine):
            unstored = linked(client)

        for answer in (dry, unstored):
            assert (answer["durable"], answer["ranked"][0]["links"]) == (False, {"cta": SALE})

    def test_the_address_is_the_one_that_was_called(self, sqlite_url: str, tmp_path: Path) -> None:
        """Without a public address in the settings, links lead to where the API was asked."""
        with running(sqlite_url, tmp_path / "home", redirect_hosts=["shop.example.com"]) as client:
            define(client)
            link = linked(client)["ranked"][0]["links"]["cta"]

            assert link.startswith("http://testserver/r/1.")
            assert client.get(link, headers=BROWSER, follow_redirects=False).status_code == 302

    def test_without_listed_hosts_links_are_off(self, sqlite_url: str, tmp_path: Path) -> None:
        """An installation that lists no hosts refuses links and says which setting to set."""
        with running(sqlite_url, tmp_path / "home") as client:
            define(client)
            answer = client.post("/v1/rank", json={"loop": "mail", "campaign": "june", "links": {"cta": SALE}})

            assert "list the hosts they may lead to in REWARDLOOP_REDIRECT_HOSTS" in refused(answer, 422)


class TestClick:
    """Following a link."""

    def test_the_whole_walk(self, client: TestClient) -> None:
        """A click through a link is recorded for its decision and position before the reader is led on, and counts."""
        answer = linked(client, decision_id="d1", slots=2)
        second = answer["ranked"][1]
        led = follow(client, second["links"]["cta"])
        stored = clicks(client)[0]
        outcome = trace(client, "d1")["outcomes"]

        assert led.status_code == 302
        assert {name: led.headers[name] for name in SECURE} == SECURE
        assert "set-cookie" not in led.headers
        assert (stored.source, stored.type, stored.decision_id, stored.position) == ("redirect", "click", "d1", 2)
        assert stored.raw == {"url": "https://shop.example.com/sale", "client": BROWSER["user-agent"]}
        assert [(one["content_id"], one["metric"], one["value"]) for one in outcome] == [
            (second["content_id"], "click", 1.0)
        ]
        assert [event["method"] for event in trace(client, "d1")["events"]] == ["token"]

    def test_the_destination_carries_the_token(self, client: TestClient) -> None:
        """The page that is led to can name decision and position: in the query, before the fragment."""
        link = linked(client, decision_id="d1")["ranked"][0]["links"]["cta"]
        location = follow(client, link).headers["location"]
        before, token = location.removesuffix("#top").split("&rl=")

        assert before == SALE.removesuffix("#top")
        assert read_token(inside(client).serving.secrets, token) == TokenContent("d1", 1)

    def test_the_token_can_be_left_out(self, sqlite_url: str, tmp_path: Path) -> None:
        """With `redirect_token` off the destination is exactly the address that was given."""
        listed = {"redirect_hosts": ["shop.example.com"], "redirect_token": False, "public_url": PUBLIC}
        with running(sqlite_url, tmp_path / "home", **listed) as client:
            define(client)
            link = linked(client)["ranked"][0]["links"]["cta"]

            assert follow(client, link).headers["location"] == SALE

    def test_every_request_is_an_event(self, client: TestClient) -> None:
        """Two clicks are two events; the metric decides what two clicks are worth."""
        link = linked(client, decision_id="d1")["ranked"][0]["links"]["cta"]
        for _ in range(3):
            follow(client, link)

        assert len({event.event_id for event in clicks(client)}) == 3
        assert trace(client, "d1")["outcomes"][0]["value"] == 1.0

    @pytest.mark.parametrize(
        ("method", "headers", "word"),
        [
            ("HEAD", {}, "a HEAD request"),
            ("GET", {"Sec-Purpose": "prefetch;prerender"}, "sec-purpose: prefetch"),
            ("GET", {"Purpose": "prefetch"}, "purpose: prefetch"),
            ("GET", {"User-Agent": "Slackbot-LinkExpanding 1.0"}, "client Slackbot"),
        ],
    )
    def test_machines_are_led_on_and_not_counted(
        self, client: TestClient, method: str, headers: dict[str, str], word: str
    ) -> None:
        """HEAD requests, prefetching browsers and known scanners get their redirect; their click is kept as a bot's."""
        link = linked(client, decision_id="d1")["ranked"][0]["links"]["cta"]
        plain = {name.lower(): value for name, value in headers.items()}
        led = follow(client, link, method, **plain)

        assert (led.status_code, led.headers["location"][:30]) == (302, SALE[:30])
        assert (len(clicks(client)), words(client)) == (1, [word])
        assert trace(client, "d1")["outcomes"] == []

    def test_speed_is_judged_by_the_tick(self, sqlite_url: str, tmp_path: Path) -> None:
        """With the default setting a click right after its decision is labelled soon, without anybody asking."""
        listed = {"redirect_hosts": ["shop.example.com"], "bot_seconds": 30, "public_url": PUBLIC}
        with running(sqlite_url, tmp_path / "home", **listed) as client:
            define(client)
            follow(client, linked(client, decision_id="d1")["ranked"][0]["links"]["cta"])
            wait_for(lambda: words(client) == ["sooner than a person could"], 30)

            assert trace(client, "d1")["events"][0]["reason"] == "labelled"

    def test_a_damaged_link_is_a_page(self, client: TestClient) -> None:
        """What we did not sign leads nowhere: a page says so, without a redirect, and nothing is recorded."""
        link = linked(client)["ranked"][0]["links"]["cta"]
        for wrong in (link[:-1], link + "A", link.replace("/r/1.", "/r/2."), f"{PUBLIC}/r/x", f"{PUBLIC}/r/%0d%0a"):
            page = follow(client, wrong)

            assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
            assert "location" not in page.headers
            assert {name: page.headers[name] for name in SECURE} == SECURE
        assert clicks(client) == []

    def test_a_signed_link_to_another_host_leads_nowhere(self, client: TestClient) -> None:
        """The list of hosts is asked again when a link is followed, whoever signed it."""
        secrets = inside(client).serving.secrets
        page = follow(client, make_link(secrets, PUBLIC, "d1", 1, "https://evil.example/"))

        assert (page.status_code, "location" in page.headers, clicks(client)) == (404, False, [])

    def test_only_get_and_head(self, client: TestClient) -> None:
        """A link cannot be posted to."""
        link = linked(client)["ranked"][0]["links"]["cta"]

        assert follow(client, link, "POST").status_code == 405
        assert clicks(client) == []


class TestTheLogIsAway:
    """Clicks while the database does not answer."""

    def test_the_reader_is_led_on_and_the_click_comes_later(self, client: TestClient, tmp_path: Path) -> None:
        """With the database away the click is on disk before the answer; when it is back the click counts, once."""
        link = linked(client, decision_id="d1")["ranked"][0]["links"]["cta"]
        with away(inside(client).serving.engine):
            led = [follow(client, link) for _ in range(3)]
            spooled = b"".join(path.read_bytes() for path in (tmp_path / "home" / "spool").glob("*.spool"))
        wait_for(lambda: len(clicks(client)) == 3, 30)
        wait_for(lambda: list((tmp_path / "home" / "spool").glob("*.spool")) == [], 30)

        assert [answer.status_code for answer in led] == [302, 302, 302]
        assert spooled.count(b"\n") == 3
        assert trace(client, "d1")["outcomes"][0]["count"] == 3
        assert conservation(inside(client).serving.engine) == 0

    def test_a_start_drains_what_was_left(self, sqlite_url: str, tmp_path: Path) -> None:
        """Clicks that an earlier process spooled are recorded by the next one, with their labels; a damaged line is
        put into quarantine, a torn one is passed over."""
        home = tmp_path / "home"
        listed = {"redirect_hosts": ["shop.example.com"], "public_url": PUBLIC}
        with running(sqlite_url, home, **listed) as client:
            define(client)
            link = linked(client, decision_id="d1")["ranked"][0]["links"]["cta"]
            with away(inside(client).serving.engine):
                follow(client, link)
                follow(client, link, "HEAD")
                inside(client).redirects.clicks.stop()
        file, *others = sorted((home / "spool").glob("*.spool"))  # a sweep in between begins another
        first, second = filter(None, b"".join(one.read_bytes() for one in (file, *others)).split(b"\n"))
        for other in others:
            other.unlink()
        file.write_bytes(b"\n".join((first, b"00000000 {}", second, first[:40])))
        with running(sqlite_url, home, **listed) as client:
            wait_for(lambda: len(clicks(client)) == 2, 30)
            wait_for(lambda: not file.exists(), 30)
            held = rows(inside(client).serving.engine, tables.quarantine)

            assert words(client) == ["a HEAD request"]
            assert [row[1:3] for row in held] == [("redirect", f"spool/{file.name}/2")]


class Clicked(NamedTuple):
    """Somebody clicks."""

    name: str


class Away(NamedTuple):
    """The log does not answer from now on."""


class Back(NamedTuple):
    """The log answers again."""


class Forgets(NamedTuple):
    """The log commits once more, and its answer is lost on the way."""


class Crash(NamedTuple):
    """The process is killed and started again."""


class Drain(NamedTuple):
    """The spool is drained; it may fail."""


Step = Clicked | Away | Back | Forgets | Crash | Drain

HISTORIES: dict[str, list[Step]] = {
    "all is well": [Clicked("a"), Clicked("b")],
    "away and back": [Clicked("a"), Away(), Clicked("b"), Drain(), Clicked("c"), Back(), Drain(), Clicked("d")],
    "killed while away": [Away(), Clicked("a"), Crash(), Clicked("b"), Crash(), Back(), Drain()],
    "killed with the log back": [Away(), Clicked("a"), Back(), Crash(), Drain()],
    "the answer is lost": [Forgets(), Clicked("a"), Drain()],
    "the answer to the drain is lost": [
        Away(),
        Clicked("a"),
        Clicked("b"),
        Forgets(),
        Drain(),
        Crash(),
        Back(),
        Drain(),
    ],
    "lost again and again": [Forgets(), Clicked("a"), Forgets(), Drain(), Forgets(), Drain(), Crash(), Drain()],
}


class FlakyLog:
    """The real store behind a line that breaks when told to."""

    def __init__(self, engine: Engine, secrets: Secrets) -> None:
        self.engine, self.secrets = engine, secrets
        self.answers, self.forgets = True, False

    def record(self, clicks: Sequence[Click], damaged: Sequence[Rejected]) -> None:
        """Apply, unless the line is broken."""
        if not self.answers and not self.forgets:
            raise Unavailable("The log is away")
        labels = tuple(label for click in clicks for label in click.labels)
        batch = Batch(events=tuple(click.event for click in clicks), labels=labels, rejected=tuple(damaged))
        store.apply(self.engine, batch, self.secrets, 0)
        if self.forgets:
            self.forgets = False
            raise Unavailable("The connection was lost during the commit")


@pytest.mark.parametrize("name", HISTORIES)
def test_crash_histories(name: str, engine: Engine, secrets: Secrets, tmp_path: Path) -> None:
    """Every click that was led on is stored exactly once when the spool is empty, whatever broke on the way."""
    with writing(engine) as connection:
        put_loop(connection, LOOP, 0)
    store.apply(engine, Batch(decisions=(decision("d", 0),)), secrets, 0)
    line = FlakyLog(engine, secrets)
    log = started(line, tmp_path)
    sent = set()
    for step in HISTORIES[name]:
        match step:
            case Clicked(who):
                click = click_of(Link("d", 1, f"https://shop.example.com/{who}"), "GET", BROWSER, 5 * SECOND)
                assert log.keep(click) in ("recorded", "spooled")
                sent.add(click.event.event_id)
            case Away():
                line.answers = False
            case Back():
                line.answers = True
            case Forgets():
                line.forgets = True
            case Crash():
                log.stop()
                log = started(line, tmp_path)
            case Drain():
                try:
                    log.drain()
                except Unavailable:
                    assert line.forgets is False
    log.drain()
    log.stop()
    stored = rows(engine, tables.events)

    assert {row[2] for row in stored} == sent
    assert len(stored) == len(sent)
    assert [row[4:6] for row in rows(engine, tables.outcomes)] == [(1_000_000, len(sent))]
    assert list(tmp_path.glob("*.spool")) == []
    assert conservation(engine) == 0


def started(line: FlakyLog, folder: Path) -> ClickLog:
    """A click log over that line."""
    log = ClickLog(line.record, Spool(folder, 1_000_000))
    log.start()
    return log


def a_click() -> Click:
    """A click of nobody in particular."""
    return click_of(Link("d", 1, SALE), "GET", BROWSER, 5 * SECOND)


def test_a_log_that_hangs_holds_readers_up_once(tmp_path: Path) -> None:
    """While the log hangs the first reader waits for it, later ones do not, and every click is on disk."""
    release = threading.Event()

    def hang(*_: object) -> None:
        release.wait(30)

    log = ClickLog(hang, Spool(tmp_path, 1_000_000), patience=0.2)
    log.start()
    kept = [log.keep(a_click())]
    began = time.monotonic()
    kept += [log.keep(a_click()) for _ in range(20)]
    waited = time.monotonic() - began
    lines = sum(path.read_bytes().count(b"\n") for path in tmp_path.glob("*.spool"))
    release.set()
    log.stop()

    assert kept == ["spooled"] * 21
    assert lines == 21
    assert waited < 20 * 0.2  # every one would have waited that long


def test_a_click_that_nothing_keeps_is_said_to_be_lost(tmp_path: Path) -> None:
    """With the log away and the spool full the reader is led on all the same, and the loss is not hidden."""

    def broken(*_: Any) -> None:
        raise RuntimeError("a mistake in the log")

    log = ClickLog(broken, Spool(tmp_path, 10))
    log.start()
    kept = log.keep(a_click())
    log.stop()

    assert kept == "lost"


def test_many_readers_share_a_commit(engine: Engine, secrets: Secrets, tmp_path: Path) -> None:
    """Clicks that come at once are recorded in fewer commits than there are clicks, each exactly once."""
    line = FlakyLog(engine, secrets)
    first = threading.Event()
    sizes: list[int] = []

    def record(clicks: Sequence[Click], damaged: Sequence[Rejected]) -> None:
        sizes.append(len(clicks))
        first.wait(30)
        line.record(clicks, damaged)

    log = ClickLog(record, Spool(tmp_path, 1_000_000), patience=30)
    log.start()
    readers = [threading.Thread(target=lambda: log.keep(a_click())) for _ in range(12)]
    for reader in readers:
        reader.start()
    wait_for(lambda: log._queue.qsize() + sum(sizes) == 12)
    first.set()
    for reader in readers:
        reader.join()
    log.stop()

    assert sum(sizes) == 12
    assert len(sizes) == 2
    assert len(rows(engine, tables.events)) == 12


def test_a_client_may_call_itself_anything() -> None:
    """What a request says of itself is cut and cleaned before it is stored."""
    headers = BROWSER | {"user-agent": "x\x00\ud800é\n" + "y" * 10_000}

    stored = click_of(Link("d", 1, SALE), "GET", headers, 0).event.raw["client"]
    assert stored == "x" + "y" * 199
