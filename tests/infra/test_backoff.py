"""Growing pauses."""

from itertools import islice

from infra.backoff import delays


def test_pauses_grow_to_a_ceiling_and_differ() -> None:
    """Each pause is in the upper half of a bound that doubles up to the ceiling, and two workers do not agree."""
    bounds = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]

    first, second = (list(islice(delays(0.1, 1.0), len(bounds))) for _ in range(2))

    assert all(bound / 2 <= pause <= bound for pause, bound in zip(first, bounds, strict=True))
    assert first != second
