"""The API keeps its promises: what a client of the last release may say is understood, what it may rely on is there.

``tests/golden/openapi.json`` is the document of the last release; a release replaces it, nothing else does.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from pipelines.app import create_app

RELEASED = Path(__file__).parents[1] / "golden" / "openapi.json"
Document = dict[str, Any]


def broken(old: Document, new: Document) -> list[str]:
    """What a client of ``old`` would miss in ``new``."""
    return list(_broken_calls(old, new))


def _broken_calls(old: Document, new: Document) -> Iterator[str]:
    for path, calls in old["paths"].items():
        for method, before in calls.items():
            where, after = f"{method.upper()} {path}", new["paths"].get(path, {}).get(method)
            if after is None:
                yield f"{where} is gone"
                continue
            yield from _broken_parameters(where, before, after)
            yield from _narrower(where, old, new, _body(before), _body(after), set())
            yield from _poorer(where, old, new, _answer(before), _answer(after), set())


def _broken_parameters(where: str, before: Document, after: Document) -> Iterator[str]:
    known = {one["name"] for one in before.get("parameters", ())}
    still = {one["name"] for one in after.get("parameters", ())}
    yield from (f"{where}: parameter {name} is gone" for name in sorted(known - still))
    for one in after.get("parameters", ()):
        if one["name"] not in known and one.get("required"):
            yield f"{where}: new parameter {one['name']} is required"


def _body(call: Document) -> Document:
    return _schema(call.get("requestBody", {}))


def _answer(call: Document) -> Document:
    return next((_schema(one) for status, one in sorted(call["responses"].items()) if status[0] == "2"), {})


def _schema(part: Document) -> Document:
    found: Document = part.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _narrower(
    where: str, old: Document, new: Document, before: Document, after: Document, seen: set[str]
) -> Iterator[str]:
    """What a request could say before and cannot say now."""
    if _been(before, seen):
        return
    before, after = _named(old, before), _named(new, after)
    required, was = set(after.get("required", ())), set(before.get("required", ()))
    yield from (f"{where}: {name} is required now" for name in sorted(required - was))
    yield from (f"{where}: value {value!r} is gone" for value in _missing(before, after, "enum"))
    for name, part in before.get("properties", {}).items():
        if name not in after.get("properties", {}):
            yield f"{where}: field {name} is gone"
        else:
            yield from _narrower(f"{where} {name}", old, new, part, after["properties"][name], seen)
    yield from _inside(_narrower, where, old, new, before, after, seen)


def _poorer(
    where: str, old: Document, new: Document, before: Document, after: Document, seen: set[str]
) -> Iterator[str]:
    """What an answer held before and does not hold now."""
    if _been(before, seen):
        return
    before, after = _named(old, before), _named(new, after)
    for name, part in before.get("properties", {}).items():
        if name not in after.get("properties", {}):
            yield f"{where}: the answer has no {name} any more"
        else:
            yield from _poorer(f"{where} {name}", old, new, part, after["properties"][name], seen)
    yield from _inside(_poorer, where, old, new, before, after, seen)


def _inside(
    check: Any, where: str, old: Document, new: Document, before: Document, after: Document, seen: set[str]
) -> Iterator[str]:
    """The parts that have no name: elements, values, alternatives."""
    for kind in ("items", "additionalProperties"):
        if isinstance(before.get(kind), dict) and isinstance(after.get(kind), dict):
            yield from check(where, old, new, before[kind], after[kind], seen)
    for kind in ("anyOf", "oneOf", "allOf"):
        for one, other in zip(before.get(kind, ()), after.get(kind, ()), strict=False):
            yield from check(where, old, new, one, other, seen)
        if kind != "allOf" and len(after.get(kind, ())) < len(before.get(kind, ())):
            yield f"{where}: fewer alternatives"


def _missing(before: Document, after: Document, kind: str) -> list[Any]:
    return [value for value in before.get(kind, ()) if kind in after and value not in after[kind]]


def _been(schema: Document, seen: set[str]) -> bool:
    """Whether this named part was looked at already."""
    name = schema.get("$ref", "")
    if name in seen:
        return True
    seen |= {name} - {""}
    return False


def _named(document: Document, schema: Document) -> Document:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Document = document["components"]["schemas"][name] if name else schema
    return found


def now() -> Document:
    """The document of this code."""
    found: Document = json.loads(json.dumps(create_app(Settings()).openapi()))
    return found


def test_nothing_that_was_released_breaks() -> None:
    """No call, parameter, field, value or part of an answer of the last release is gone, nothing new is required."""
    assert broken(json.loads(RELEASED.read_text()), now()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["paths"].pop("/v1/rank"), "POST /v1/rank is gone"),
        (lambda d: d["components"]["schemas"]["RankBody"]["required"].append("unit"), "unit is required now"),
        (lambda d: d["components"]["schemas"]["RankBody"]["properties"].pop("slots"), "field slots is gone"),
        (lambda d: d["components"]["schemas"]["Ranked"]["properties"].pop("propensity"), "no propensity any more"),
        (lambda d: d["components"]["schemas"]["ApprovalBody"]["properties"]["approval"]["enum"].pop(), "is gone"),
        (lambda d: d["paths"]["/v1/contents"]["get"]["parameters"].pop(), "parameter after is gone"),
    ],
)
def test_a_break_is_noticed(change: Any, says: str) -> None:
    """Each way to break a client is found, and named."""
    changed = now()
    change(changed)
    found = broken(now(), changed)
    assert found
    assert all(says in one for one in found)


def test_an_addition_is_no_break() -> None:
    """New calls, optional fields and further parts of answers break nobody."""
    changed = now()
    changed["paths"]["/v1/new"] = changed["paths"]["/v1/rank"]
    changed["components"]["schemas"]["RankBody"]["properties"]["new"] = {"type": "string"}
    changed["components"]["schemas"]["Ranked"]["properties"]["new"] = {"type": "string"}
    assert broken(now(), changed) == []
