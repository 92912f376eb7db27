"""Versions and champions: what may serve, and who was first."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput, Conflict, NotFound
from reward_models import registry
from reward_models.registry import NO_CHAMPION, Champion


def registered(engine: Engine, *versions: str, state: str = "passed") -> None:
    """Versions of the loop ``emails`` in a state."""
    with writing(engine) as connection:
        for version in versions:
            registry.register(connection, "emails", version, **FACTS)
            if state != "registered":
                registry.settle(connection, "emails", version, state, {"sentence": "as it went"})  # type: ignore[arg-type]


FACTS: dict[str, Any] = {"digest": "d", "config_digest": "c", "loop_version": 1}
FACTS |= {"as_of": 4, "cutoff": 3, "kind": "first", "now": 10}


def test_versions_are_numbered(engine: Engine) -> None:
    """The first is 1, then one more than there are; each loop counts for itself."""
    registered(engine, "emails-1", "emails-2", state="registered")

    with reading(engine) as connection:
        found = [registry.next_version(connection, loop) for loop in ("emails", "push")]

    assert found == ["emails-3", "push-1"]


def test_the_newest_version_comes_first(engine: Engine) -> None:
    """Also where ten follows nine, and the clock stood still."""
    registered(engine, "emails-9", "emails-10", "emails-2", state="registered")

    with reading(engine) as connection:
        found = [version.version for version in registry.versions(connection, "emails")]

    assert found == ["emails-10", "emails-9", "emails-2"]


def test_registering_again_changes_nothing(engine: Engine) -> None:
    """The same version with the same digest is the same fact; with another digest it is a conflict."""
    registered(engine, "emails-1")

    with writing(engine) as connection:
        registry.register(connection, "emails", "emails-1", **{**FACTS, "now": 99})
        found = registry.version_of(connection, "emails", "emails-1")
        with pytest.raises(Conflict, match="another digest"):
            registry.register(connection, "emails", "emails-1", **{**FACTS, "digest": "other"})

    assert (found.state, found.created_at, found.gate) == ("passed", 10, {"sentence": "as it went"})


def test_a_version_is_judged_once(engine: Engine) -> None:
    """A verdict is never overwritten."""
    registered(engine, "emails-1", state="failed")

    with writing(engine) as connection, pytest.raises(Conflict, match="judged before: it is failed"):
        registry.settle(connection, "emails", "emails-1", "passed", {})


@pytest.mark.parametrize("state", ["registered", "failed", "refused"])
def test_only_what_passed_is_promoted(engine: Engine, state: str) -> None:
    """A version in any other state is refused, and the loop keeps what it had."""
    registered(engine, "emails-1", state=state)

    with writing(engine) as connection:
        with pytest.raises(BadInput, match=f"is {state}; only"):
            registry.promote(connection, "emails", "emails-1", NO_CHAMPION, 20, "cli")
        assert registry.champion(connection, "emails") is None


def test_promotion_moves_the_pointer_and_is_on_record(any_engine: Engine) -> None:
    """First, second, and back to the first: each raises the revision and leaves a row in the audit."""
    registered(any_engine, "emails-1", "emails-2")

    with writing(any_engine) as connection:
        for revision, version in enumerate(["emails-1", "emails-2", "emails-1"]):
            registry.promote(connection, "emails", version, revision, 20 + revision, "ann")
        audit = connection.execute(select(tables.audit.c.actor, tables.audit.c.action, tables.audit.c.subject)).all()
        found = registry.champions(connection)

    assert found == {"emails": Champion("emails-1", 3, "d", 1)}
    assert [tuple(row) for row in audit] == [
        ("ann", "promote", "emails-1"),
        ("ann", "promote", "emails-2"),
        ("ann", "promote", "emails-1"),
    ]


def test_of_two_promotions_the_second_loses(any_engine: Engine) -> None:
    """Both saw no champion, or the same one: the later one is a conflict and changes nothing."""
    registered(any_engine, "emails-1", "emails-2")

    with writing(any_engine) as connection:
        registry.promote(connection, "emails", "emails-1", NO_CHAMPION, 20, "ann")
        for stale in (NO_CHAMPION, 7):
            with pytest.raises(Conflict, match="changed meanwhile"):
                registry.promote(connection, "emails", "emails-2", stale, 21, "bob")
        found = registry.champion(connection, "emails")
        states = {version.version: version.state for version in registry.versions(connection, "emails")}

    assert found == Champion("emails-1", 1, "d", 1)
    assert states == {"emails-1": "promoted", "emails-2": "passed"}


def test_what_passed_against_another_champion_is_judged_again(engine: Engine) -> None:
    """Two versions passed against the baseline: with one of them serving, the other has shown nothing against it."""
    with writing(engine) as connection:
        for version in ("emails-1", "emails-2"):
            registry.register(connection, "emails", version, **FACTS)
            registry.settle(connection, "emails", version, "passed", {"champion": None})
        registry.promote(connection, "emails", "emails-1", NO_CHAMPION, 20, "ann")

        with pytest.raises(BadInput, match="passed against the baseline, and emails-1 serves now; retrain"):
            registry.promote(connection, "emails", "emails-2", 1, 21, "ann")
        assert registry.promote(connection, "emails", "emails-1", 1, 22, "ann").revision == 2


def test_a_loop_that_needs_approval_waits_for_a_person(engine: Engine) -> None:
    """Without an approval, or after it was taken back, promotion is refused; the last word holds."""
    registered(engine, "emails-1")

    with writing(engine) as connection:

        def promote() -> Champion:
            return registry.promote(connection, "emails", "emails-1", NO_CHAMPION, 30, "flow", needs_approval=True)

        with pytest.raises(BadInput, match="waits for a person's approval"):
            promote()
        registry.approve(connection, "emails", "emails-1", "ann", "approved", 21)
        registry.approve(connection, "emails", "emails-1", "bob", "rejected", 22)
        with pytest.raises(BadInput, match="waits for a person's approval"):
            promote()
        registry.approve(connection, "emails", "emails-1", "bob", "approved", 23)

        assert promote() == Champion("emails-1", 1, "d", 1)


def test_an_unknown_version_is_named(engine: Engine) -> None:
    """A version that was never registered is not found."""
    with reading(engine) as connection, pytest.raises(NotFound, match="no model version 'emails-9'"):
        registry.version_of(connection, "emails", "emails-9")


def test_bundles_live_under_loop_and_version() -> None:
    """One folder per loop, one per version in it."""
    assert registry.path_of(Path("models"), "emails", "emails-1") == Path("models/emails/emails-1")
