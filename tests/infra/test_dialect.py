"""Expressions that both databases must read alike."""

from typing import Any

from sqlalchemy import BigInteger, Engine, Integer, Select, Text, literal, select

from infra.database import reading
from infra.dialect import as_list, bytewise, elements, listed, member, parsed, part, prepared


@prepared
def _list_back() -> Select[Any]:
    rows = listed("rows", name=Text(), number=BigInteger())
    return select(rows.c.name, rows.c.number)


def test_a_list_of_any_length_is_one_parameter(any_engine: Engine) -> None:
    """Text, numbers beyond 32 bits and nulls come back as they went in, more of them than parameters are allowed."""
    rows = [("a'\"\\ é", 2**62), (None, None), *((f"row {number}", number) for number in range(40_000))]
    with reading(any_engine) as connection:
        found = [tuple(row) for row in _list_back(connection, rows=as_list(rows))]
        nothing = _list_back(connection, rows=as_list([])).all()

    assert found == rows
    assert nothing == []


def test_json_is_taken_apart_by_name(any_engine: Engine) -> None:
    """Objects in an array give their parts as text or as a number; what is missing is NULL."""
    document = literal('[{"id": "a", "at": 3}, {"id": "b"}]', Text())
    each = elements(document, "item")
    query = select(part(each.c.value, "id"), part(each.c.value, "at", Integer())).select_from(each)
    with reading(any_engine) as connection:
        assert [tuple(row) for row in connection.execute(query)] == [("a", 3), ("b", None)]


def test_an_element_is_taken_by_its_place(any_engine: Engine) -> None:
    """An element of an array gives its parts; beyond the end there is nothing."""
    array = parsed(literal('[{"id": "a"}]', Text()))
    query = select(part(member(array, 0), "id"), member(array, 1).is_(None))
    with reading(any_engine) as connection:
        assert connection.execute(query).one() == ("a", True)


def test_text_is_ordered_by_its_bytes(any_engine: Engine) -> None:
    """Ties break the same way on every database: capitals before small letters, letters before accents."""
    words = ["a", "B", "b", "A", "é", "a b", "a-b", "ab"]
    rows = listed("rows", word=Text())
    query = select(rows.c.word).order_by(bytewise(rows.c.word))
    with reading(any_engine) as connection:
        found = connection.execute(query, {"rows": as_list([word] for word in words)}).scalars().all()

    assert found == sorted(words, key=str.encode)
