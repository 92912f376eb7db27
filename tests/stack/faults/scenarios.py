"""Every fault, as a scenario: what is sent, what is broken while it is worked on, what must hold besides.

A scenario defines the loops, starts workers, sends the whole world of its trial and injects its fault; it returns
when the fault is over and workers that can finish are running. The runner (``runner.py``) then waits until everything
is read and compares with the ledger and with the faultless run. ``repeats`` is how often the fault is injected.
"""

import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from sqlalchemy import select

from infra import tables
from infra.clock import DAY
from infra.database import reading
from ingestion.events import Decision
from ingestion.stream.topics import topics
from tests.stack.faults import kafka
from tests.stack.faults.ledger import Sending
from tests.stack.faults.poison import bomb, poison
from tests.stack.faults.proxy import Break
from tests.stack.faults.trial import BATCH, Trial
from tests.stack.faults.wire import conflicting, with_more_fields
from tests.stack.faults.workers import KILLED, STEPS, Halt

BOMB_MEGABYTES = 50
PROGRESS_SECONDS = 60.0
"""How long after a fault work may take to go on."""


class Injected(NamedTuple):
    """How often the fault was injected, and how many records were read once more on purpose."""

    times: int
    again: int = 0


Run = Callable[[Trial, int], Injected]


class Amount(NamedTuple):
    """Customers in the world, and how often the fault is injected."""

    customers: int
    repeats: int


@dataclass(frozen=True)
class Scenario:
    """A fault: in a short form for every change, in a long one for a release."""

    run: Run
    short: Amount
    long: Amount
    cluster: bool = False
    """Three brokers instead of one."""
    small_disk: bool = False
    """A database of its own on a disk that can be filled."""

    @property
    def name(self) -> str:
        """Its name in tables and options."""
        return self.run.__name__

    @property
    def about(self) -> str:
        """What happens, in a sentence."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


def kill_at_every_step(trial: Trial, repeats: int) -> Injected:
    """The worker is killed (SIGKILL) at every step of the commit order, inside the transaction too."""
    trial.define()
    deaths = [step for _ in range(repeats) for step in STEPS]
    for step, portion in zip(deaths, portions(trial.in_order(), len(deaths)), strict=True):
        trial.send(portion)
        nth = trial.random.randint(1, max(1, len(portion) // BATCH))
        assert trial.worker(Halt(step, nth)).ended(PROGRESS_SECONDS) == KILLED
    trial.crew(1)
    return Injected(len(deaths))


def kill_at_random(trial: Trial, repeats: int) -> Injected:
    """The worker is killed (SIGKILL) from outside at random moments, and replaced."""
    trial.define()
    crew = trial.crew(1)
    for portion in portions(trial.in_order(), repeats):
        with trial.sending(portion):
            await_progress(trial, trial.random.randrange(len(portion) // 2))
            crew.pick(trial.random).kill()
    return Injected(repeats)


def kill_one_of_three(trial: Trial, repeats: int) -> Injected:
    """One of three workers is killed at random moments; the others take its partitions over."""
    trial.define()
    crew = trial.crew(3)
    for portion in portions(trial.in_order(), repeats):
        with trial.sending(portion):
            await_progress(trial, trial.random.randrange(len(portion) // 2))
            crew.pick(trial.random).kill()
    return Injected(repeats)


def sigterm_under_load(trial: Trial, repeats: int) -> Injected:
    """The worker is asked to stop (SIGTERM) under load: it ends in good order within 30 seconds, and says so."""
    trial.define()
    for portion in portions(trial.in_order(), repeats):
        worker = trial.worker()
        with trial.sending(portion):
            await_progress(trial, trial.random.randrange(len(portion) // 2))
            assert worker.stop(30) == 0, worker.said()
    trial.crew(1)
    return Injected(repeats)


def rebalance_storm(trial: Trial, repeats: int) -> Injected:
    """Workers come and go all the time: one, two, three of them, with a rebalance each time."""
    trial.define()
    crew = trial.crew(3)
    for portion in portions(trial.in_order(), repeats):
        with trial.sending(portion):
            crew.resize(trial.random.choice([size for size in (1, 2, 3) if size != crew.size]))
    assert crew.replaced == 0, trial.said()
    return Injected(repeats)


def zombie(trial: Trial, repeats: int) -> Injected:
    """A worker freezes (SIGSTOP), in mid-transaction too; another takes over; the first wakes up and knows nothing of it."""
    trial.define()
    trial.end_idle_transactions(2)
    steps = [step for _ in range(repeats) for step in ("lock_join", "before_apply", "keep_ledger", "applied")]
    crew = trial.crew(1)
    for step, portion in zip(steps, portions(trial.in_order(), len(steps)), strict=True):
        crew.resize(0)
        frozen = trial.worker(Halt(step, by=signal.SIGSTOP))
        trial.send(portion)
        trial.until(frozen.is_frozen, PROGRESS_SECONDS, f"a worker comes to {step}")
        crew.resize(1)
        trial.catch_up(PROGRESS_SECONDS)
        frozen.resume()
        assert frozen.stop() == 0, frozen.said()
    assert crew.replaced == 0, trial.said()
    return Injected(len(steps))


def broker_restart(trial: Trial, repeats: int) -> Injected:
    """One of three brokers after another is stopped or killed and started again: leaders change, work goes on."""
    trial.define()
    trial.crew(1)
    for turn, portion in enumerate(portions(trial.in_order(), repeats)):
        node = turn % 3 + 1
        with trial.sending(portion):
            (trial.brokers.kill_broker if turn % 2 else trial.brokers.stop_broker)(node)
        trial.catch_up(PROGRESS_SECONDS)
        trial.brokers.start_broker(node)
    return Injected(repeats)


def broker_pause(trial: Trial, repeats: int) -> Injected:
    """One of three brokers freezes (SIGSTOP) until the others have replaced it, then wakes up."""
    trial.define()
    trial.crew(1)
    first, *others = portions(trial.in_order(), repeats + 1)
    trial.send(first)
    trial.catch_up()
    for turn, portion in enumerate(others):
        node = turn % 3 + 1
        trial.brokers.pause_broker(node)
        try:
            trial.send(portion)
            trial.catch_up(PROGRESS_SECONDS)
        finally:
            trial.brokers.resume_broker(node)
    return Injected(repeats)


def only_broker_restart(trial: Trial, repeats: int) -> Injected:
    """The only broker is killed and started again: nobody gives up."""
    trial.define()
    crew = trial.crew(1)
    for portion in portions(trial.in_order(), repeats):
        with trial.sending(portion):
            await_progress(trial, trial.random.randrange(BATCH))
            trial.brokers.kill_broker(1)
            trial.brokers.start_broker(1)
    assert crew.replaced == 0, trial.said()
    return Injected(repeats)


def database_restart(trial: Trial, repeats: int) -> Injected:
    """PostgreSQL is stopped at once (``-m immediate``) in mid-work and started again: the worker waits for it."""
    trial.define()
    crew = trial.crew(1)
    for portion in portions(trial.in_order(), repeats):
        with trial.sending(portion):
            await_progress(trial, trial.random.randrange(BATCH))
            noticed = notices(trial)
            trial.database.stop()
            await_notice(trial, noticed)
            trial.database.start()
    assert crew.replaced == 0, trial.said()
    return Injected(repeats)


def commit_unknown(trial: Trial, repeats: int) -> Injected:
    """The connection breaks at COMMIT, before it is executed or before its answer: the worker cannot know which."""
    trial.define()
    proxy = trial.proxy()
    crew = trial.crew(1)
    ways: tuple[Break, ...] = ("before", "after")
    for turn, portion in enumerate(portions(trial.in_order(), repeats)):
        proxy.break_commit(trial.random.randint(1, max(1, len(portion) // BATCH)), ways[turn % 2])
        trial.send(portion)
        assert proxy.broken.wait(PROGRESS_SECONDS), trial.said()
    assert crew.replaced == 0, trial.said()
    return Injected(repeats)


def connection_cut(trial: Trial, repeats: int) -> Injected:
    """The connection to the database is cut in mid-transaction, on a network made slow so that it hits."""
    trial.define()
    proxy = trial.proxy()
    crew = trial.crew(1)
    proxy.delay(0.003)
    cut = 0
    for portion in portions(trial.in_order(), repeats):
        with trial.sending(portion):
            await_progress(trial, trial.random.randrange(len(portion) // 2))
            cut += proxy.cut() > 0
    proxy.delay(0)
    assert crew.replaced == 0, trial.said()
    return Injected(cut)


def database_refuses(trial: Trial, repeats: int) -> Injected:
    """The database cannot be reached for a while: nothing is committed to Kafka that it does not hold."""
    trial.define()
    proxy = trial.proxy()
    crew = trial.crew(1)
    for portion in portions(trial.in_order(), repeats):
        with trial.sending(portion):
            await_progress(trial, trial.random.randrange(BATCH))
            noticed = notices(trial)
            proxy.refuse()
            await_notice(trial, noticed)
            proxy.allow()
    assert crew.replaced == 0, trial.said()
    return Injected(repeats)


def duplicates(trial: Trial, repeats: int) -> Injected:
    """Every record comes three times, once in order and twice among all others."""
    trial.define()
    trial.crew(1)
    sendings = trial.in_order()
    trial.send(sendings)
    for _ in range(2):
        trial.send(shuffled(sendings, trial.random))
    return Injected(2 * len(sendings))


def disorder(trial: Trial, repeats: int) -> Injected:
    """Everything comes in no order at all, a customer's records on any partition, to three workers at once."""
    trial.define()
    sendings = [replace(sending, key=None) for sending in shuffled(trial.in_order(), trial.random)]
    trial.send(sendings)
    trial.crew(3)
    return Injected(len(sendings))


def events_before_decisions(trial: Trial, repeats: int) -> Injected:
    """All events come and are pending before the first decision does."""
    trial.define()
    trial.crew(1)
    events = [sending for sending in trial.in_order() if sending.kind == "events"]
    trial.send(events)
    trial.catch_up()
    trial.send([sending for sending in trial.in_order() if sending.kind == "decisions"])
    return Injected(len(events))


def late_events(trial: Trial, repeats: int) -> Injected:
    """A third of the events comes long after everything else was joined, the youngest first."""
    trial.define()
    trial.crew(1)
    sendings = trial.in_order()
    late = [s for s in sendings if s.kind == "events" and trial.random.random() < 1 / 3]
    held_back = set(map(id, late))
    trial.send([sending for sending in sendings if id(sending) not in held_back])
    trial.catch_up()
    trial.send(late[::-1])
    return Injected(len(late))


def poison_records(trial: Trial, repeats: int) -> Injected:
    """Records nobody can read stand among the others: each ends in quarantine with its bytes, nothing stops."""
    trial.define()
    crew = trial.crew(1)
    bad = [sending for _ in range(repeats) for sending in poison()]
    trial.send_compressed(bomb(BOMB_MEGABYTES))
    trial.send(shuffled([*trial.in_order(), *bad], trial.random))
    trial.catch_up()
    assert crew.replaced == 0, trial.said()
    return Injected(len(bad) + 1)


def schema_drift(trial: Trial, repeats: int) -> Injected:
    """Senders add fields, which changes nothing; a loop is missing, and its decisions are replayed once it is defined."""
    trial.define(["emails"])
    trial.crew(1)
    sendings = [with_more_fields(s) if trial.random.random() < 0.5 else s for s in trial.in_order()]
    trial.send(sendings)
    trial.catch_up()
    trial.define(["banners"])
    with reading(trial.engine) as connection:
        ids = list(connection.scalars(select(tables.quarantine.c.id).where(tables.quarantine.c.state == "held")))
    missing = sum(isinstance(s.fact, Decision) and s.fact.loop_id == "banners" for s in sendings)
    assert len(ids) == missing > 0
    trial.command("quarantine", "replay", *map(str, ids))
    return Injected(len(sendings), again=len(ids))


def same_id_another_payload(trial: Trial, repeats: int) -> Injected:
    """A record comes again under its id with another body: the first is the fact, the other is in quarantine.

    Only records with a key: without one both go to any partition, and none of them is the first.
    """
    trial.define()
    trial.crew(1)
    sendings = trial.in_order()
    trial.send(sendings)
    keyed = [sending for sending in sendings if sending.key is not None]
    others = [conflicting(sending) for sending in trial.random.sample(keyed, len(keyed) // 5)]
    trial.send(others)
    trial.send(shuffled([*others, *sendings], trial.random))
    return Injected(len(others))


def clock_skew(trial: Trial, repeats: int) -> Injected:
    """The workers' clocks are off, by days, in both directions, and jump from one to the next."""
    trial.define()
    offsets = [days * DAY for _ in range(repeats) for days in (1, -1, 400, -400)]
    for offset, portion in zip(offsets, portions(trial.in_order(), len(offsets)), strict=True):
        worker = trial.worker(clock_offset=offset)
        trial.send(portion)
        trial.catch_up()
        assert worker.stop() == 0
    return Injected(len(offsets))


def group_offsets_lost(trial: Trial, repeats: int) -> Injected:
    """Kafka forgets how far the group had read: the database knows, and nothing is read twice or skipped."""
    trial.define()
    for portion in portions(trial.in_order(), repeats + 1):
        worker = trial.worker()
        trial.send(portion)
        trial.catch_up()
        assert worker.stop() == 0
        kafka.lose_group_offsets(trial.settings)
    trial.crew(1)
    return Injected(repeats)


def records_deleted(trial: Trial, repeats: int) -> Injected:
    """Retention deletes records that were not read: the worker stops and says so, the operator accepts the gap."""
    trial.define()
    sendings = trial.in_order()
    (key, _), *_ = Counter(sending.key for sending in sendings).most_common(1)
    second = [sending for sending in sendings if sending.key == key]
    worker = trial.worker()
    trial.send([sending for sending in sendings if sending.key != key])
    trial.catch_up()
    assert worker.stop() == 0
    trial.send(second)
    read, positions = trial.records_read(), trial.positions()
    behind = {partition: end for partition, end in trial.log.ends().items() if positions[partition] < end}
    kafka.lose_records(trial.settings, behind)
    left = trial.log.held()
    accept_gaps(trial, len(behind))
    trial.send(second)
    return Injected(len(behind), again=read - left.records - left.labels)


def topic_made_anew(trial: Trial, repeats: int) -> Injected:
    """A topic is deleted and made again: the worker stops instead of skipping, the operator accepts, all is sent again."""
    trial.define()
    first, second = portions(trial.in_order(), 2)
    worker = trial.worker()
    trial.send(first)
    trial.catch_up()
    assert worker.stop() == 0
    read = trial.records_read()
    events = topics(trial.settings.kafka_topic_prefix).events.name
    kafka.delete_topics(trial.settings, [events])
    trial.make_topics()
    left = trial.log.held()
    accept_gaps(trial, sum(topic == events for topic, _ in trial.positions()))
    trial.send([*first, *second])
    return Injected(1, again=read - left.records - left.labels)


def replay(trial: Trial, repeats: int) -> Injected:
    """Everything is read again from the beginning: not one row changes."""
    trial.define()
    worker = trial.worker()
    trial.send([*trial.in_order(), *poison()])
    trial.catch_up()
    assert worker.stop() == 0
    before, read = trial.rows(), trial.records_read()
    for _ in range(repeats):
        trial.read_from_the_beginning()
        worker = trial.worker()
        trial.catch_up()
        assert worker.stop() == 0
    assert trial.rows() == before
    assert trial.records_read() == (repeats + 1) * read
    trial.crew(1)
    return Injected(repeats, again=repeats * read)


def rolling_restart(trial: Trial, repeats: int) -> Injected:
    """Two workers, as ``rewardloop worker`` starts them, are replaced one after the other under load."""
    trial.define()
    running = [trial.command_worker(), trial.command_worker()]
    for portion in portions(trial.in_order(), repeats):
        with trial.sending(portion):
            await_progress(trial, 0)
            running.append(trial.command_worker())
            old = running.pop(0)
            assert old.stop(30) == 0, old.said()
    return Injected(repeats)


def disk_full(trial: Trial, repeats: int) -> Injected:
    """The database's disk is full: it refuses, the worker waits, and goes on when there is room again."""
    trial.define()
    crew = trial.crew(1)
    for portion in portions(trial.in_order(), repeats):
        noticed = notices(trial)
        trial.database.fill(trial.url)
        with trial.sending(portion):
            await_notice(trial, noticed)
            trial.database.make_room(trial.url)
    assert crew.replaced == 0, trial.said()
    return Injected(repeats)


def portions(sendings: Sequence[Sending], count: int) -> Iterator[Sequence[Sending]]:
    """The records in so many parts of about the same size, none empty."""
    assert len(sendings) >= count
    for part in range(count):
        yield sendings[part * len(sendings) // count : (part + 1) * len(sendings) // count]


def shuffled(sendings: Sequence[Sending], random: Random) -> list[Sending]:
    """The same in no order."""
    return random.sample(sendings, len(sendings))


def await_progress(trial: Trial, records: int) -> None:
    """Wait until the workers have read more than so many records from now."""
    before = trial.records_read()
    trial.until(lambda: trial.records_read() > before + records, PROGRESS_SECONDS, "work goes on")


def notices(trial: Trial) -> int:
    """How often the first worker has said that the database is away."""
    return trial.log_of(1).count("database_away")


def await_notice(trial: Trial, before: int) -> None:
    """Wait until it says so again."""
    trial.until(lambda: notices(trial) > before, PROGRESS_SECONDS, "the worker notices that the database is away")


def accept_gaps(trial: Trial, count: int) -> None:
    """A worker that finds a gap ends with a sentence; the operator does what it says, gap after gap."""
    for _ in range(count):
        worker = trial.worker()
        assert worker.ended(PROGRESS_SECONDS) > 0
        said = re.findall(r"rewardloop (offsets accept-gap \S+ \d+)", worker.said())
        assert said, worker.said()
        trial.command(*said[-1].split())
    trial.crew(1)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(kill_at_every_step, Amount(60, 1), Amount(1_000, 5)),
        Scenario(kill_at_random, Amount(60, 3), Amount(10_000, 150)),
        Scenario(kill_one_of_three, Amount(60, 2), Amount(5_000, 50)),
        Scenario(sigterm_under_load, Amount(60, 2), Amount(5_000, 50)),
        Scenario(rebalance_storm, Amount(60, 3), Amount(5_000, 50)),
        Scenario(zombie, Amount(60, 1), Amount(2_000, 10)),
        Scenario(broker_restart, Amount(60, 2), Amount(5_000, 20), cluster=True),
        Scenario(broker_pause, Amount(60, 1), Amount(2_000, 6), cluster=True),
        Scenario(only_broker_restart, Amount(60, 1), Amount(2_000, 10)),
        Scenario(database_restart, Amount(60, 2), Amount(5_000, 30)),
        Scenario(database_refuses, Amount(60, 2), Amount(5_000, 30)),
        Scenario(commit_unknown, Amount(60, 4), Amount(5_000, 100)),
        Scenario(connection_cut, Amount(60, 4), Amount(5_000, 100)),
        Scenario(disk_full, Amount(60, 1), Amount(2_000, 5), small_disk=True),
        Scenario(duplicates, Amount(60, 1), Amount(10_000, 1)),
        Scenario(disorder, Amount(300, 1), Amount(20_000, 1)),
        Scenario(events_before_decisions, Amount(60, 1), Amount(10_000, 1)),
        Scenario(late_events, Amount(60, 1), Amount(10_000, 1)),
        Scenario(poison_records, Amount(60, 1), Amount(5_000, 20)),
        Scenario(schema_drift, Amount(60, 1), Amount(1_000, 1)),
        Scenario(same_id_another_payload, Amount(60, 1), Amount(5_000, 1)),
        Scenario(clock_skew, Amount(60, 1), Amount(1_000, 3)),
        Scenario(group_offsets_lost, Amount(60, 1), Amount(2_000, 10)),
        Scenario(records_deleted, Amount(60, 1), Amount(2_000, 1)),
        Scenario(topic_made_anew, Amount(60, 1), Amount(2_000, 1)),
        Scenario(replay, Amount(60, 1), Amount(5_000, 3)),
        Scenario(rolling_restart, Amount(60, 1), Amount(5_000, 10)),
    )
}
