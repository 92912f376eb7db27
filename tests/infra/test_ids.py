"""New ids."""

import uuid

from infra.ids import uuid7


def test_version_and_variant() -> None:
    """An id is a UUID of version 7 in the RFC's variant."""
    made = uuid.UUID(uuid7(1_700_000_000_000_000))

    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_order_follows_time() -> None:
    """An id made a millisecond later sorts after, as text."""
    ids = [uuid7(1_700_000_000_000_000 + step * 1_000) for step in range(50)]

    assert sorted(ids) == ids


def test_no_id_twice() -> None:
    """Ids of one millisecond differ."""
    assert len({uuid7(1_700_000_000_000_000) for _ in range(1_000)}) == 1_000
