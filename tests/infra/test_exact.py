"""Products beyond 64 bits: the same number in Python, on SQLite and on PostgreSQL."""

from fractions import Fraction
from math import floor
from random import Random
from typing import Any

import pytest
from sqlalchemy import BigInteger, Engine, Select, select

from infra.clock import MICROS
from infra.database import reading
from infra.dialect import as_list, listed, prepared
from infra.exact import LARGEST, PARTS, scale, scaled
from ingestion.metrics import LARGEST_VALUE


@prepared
def products() -> Select[Any]:
    """The product of each pair."""
    pairs = listed("pairs", value=BigInteger(), factor=BigInteger())
    return select(scaled(pairs.c.value, pairs.c.factor))


def pairs() -> list[tuple[int | None, int | None]]:
    """Factors and values of every size; ties, the edges of what is too large, and nothing."""
    chance = Random(5)
    sizes = [
        (chance.randrange(10 ** chance.randint(1, 16)), chance.randrange(10 ** chance.randint(1, 18)))
        for _ in range(300)
    ]
    ties = [(odd, PARTS // 2) for odd in (1, 3, 10**16 - 1)] + [(1, PARTS // 2 - 1), (5, PARTS // 10)]
    edges = [(LARGEST, PARTS), (LARGEST, PARTS + 1), (LARGEST - 1, PARTS + 1), (LARGEST, 9 * 10**18), (0, PARTS)]
    return [*sizes, *ties, *edges, (None, PARTS), (3, None)]


def exactly(value: int | None, factor: int | None) -> int | None:
    """Half up, by fractions."""
    if value is None or factor is None:
        return None
    found = floor(Fraction(value * factor, PARTS) + Fraction(1, 2))
    return found if found <= LARGEST else None


def test_products_are_exact_and_rounded_half_up(any_engine: Engine) -> None:
    """Python and both databases give what fractions give, also where a product has more than 64 bits."""
    given = pairs()
    with reading(any_engine) as connection:
        found = list(products(connection, pairs=as_list(given)).scalars())
    assert found == [scale(*pair) for pair in given] == [exactly(*pair) for pair in given]


@pytest.mark.parametrize(("value", "product"), [(1, 1), (3, 2), (2, 1)])
def test_half_a_millionth_is_rounded_up(value: int, product: int) -> None:
    """One rule, whatever the last digit is."""
    assert scale(value, PARTS // 2) == product


def test_the_largest_product_is_the_largest_amount() -> None:
    """A converted amount may be as large as one that comes in."""
    assert LARGEST == LARGEST_VALUE * MICROS
