"""How long to wait before a dependency that is away is asked again."""

import random
from collections.abc import Iterator

FIRST = 0.1
CEILING = 10.0


def delays(first: float = FIRST, ceiling: float = CEILING) -> Iterator[float]:
    """Endless seconds to wait: doubling up to ``ceiling``, each drawn from its upper half.

    The draw keeps workers that lost the same database from coming back all at once.
    """
    wait = first
    while True:
        yield random.uniform(wait / 2, wait)
        wait = min(ceiling, wait * 2)
