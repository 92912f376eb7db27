"""The API keeps its promises: what a client of the last release may say is understood, what it may rely on is there.

``tests/golden/openapi.json`` is the document of the last release; a release replaces it, nothing else does.
"""

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from pipelines.app import create_app

LEAST = ("minimum", "minlength", "minitems", "minproperties")
MOST = ("maximum", "maxlength", "maxitems", "maxproperties")
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
            if _status(before) != _status(after):
                yield f"{where}: success is {_status(after)} now"
            yield from _broken_parameters(where, old, new, before, after)
            yield from _narrower(where, old, new, _body(before), _body(after), set())
            yield from _poorer(where, old, new, _answer(before), _answer(after), set())


def _broken_parameters(where: str, old: Document, new: Document, before: Document, after: Document) -> Iterator[str]:
    known = {one["name"]: one for one in before.get("parameters", ())}
    still = {one["name"]: one for one in after.get("parameters", ())}
    yield from (f"{where}: parameter {name} is gone" for name in sorted(known.keys() - still))
    for name, one in still.items():
        if one.get("required") and not known.get(name, {}).get("required"):
            yield f"{where}: parameter {name} is required now"
        if name in known:
            yield from _narrower(f"{where} {name}", old, new, known[name]["schema"], one["schema"], set())


def _body(call: Document) -> Document:
    return _schema(call.get("requestBody", {}))


def _answer(call: Document) -> Document:
    return _schema(call["responses"].get(_status(call), {}))


def _status(call: Document) -> str:
    """Of success."""
    return next((status for status in sorted(call["responses"]) if status[0] == "2"), "")


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
    if not _is_within(_types(before), _types(after)):
        yield f"{where}: type {before.get('type', 'any')} is {after['type']} now"
    yield from _tighter(where, before, after)
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
    if not _is_within(_types(after), _types(before)):
        yield f"{where}: type {before['type']} is {after.get('type', 'any')} now"
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


def _types(schema: Document) -> set[str] | None:
    """What values may be; None: it is not said here."""
    said = schema.get("type")
    found = {said} if isinstance(said, str) else set(said or ())
    return (found | {"integer"} if "number" in found else found) or None


def _is_within(some: set[str] | None, others: set[str] | None) -> bool:
    return others is None or (some is not None and some <= others)


def _tighter(where: str, before: Document, after: Document) -> Iterator[str]:
    """Bounds within which values were not held before."""
    for kind, value in after.items():
        least, most = kind.lower().endswith(LEAST), kind.lower().endswith(MOST)
        if (least and value > before.get(kind, -math.inf)) or (most and value < before.get(kind, math.inf)):
            yield f"{where}: {kind} is {value} now"
        if kind in ("pattern", "const") and before.get(kind) != value:
            yield f"{where}: {kind} is {value!r} now"


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
    found: Document = json.loads(_text())
    return found


@cache
def _text() -> str:
    return json.dumps(create_app(Settings()).openapi())


def only(document: Document, schema: str, field: str) -> Document:
    """The part of a document that says what a field may be."""
    found: Document = document["components"]["schemas"][schema]["properties"][field]
    return found


def answers(document: Document) -> Document:
    """The answers of ``POST /v1/rank``, by status."""
    found: Document = document["paths"]["/v1/rank"]["post"]["responses"]
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
        (lambda d: d["paths"]["/v1/contents"]["get"]["parameters"][-1].update(required=True), "after is required now"),
        (lambda d: only(d, "Ranked", "position").update(type="string"), "type integer is string now"),
        (lambda d: only(d, "ScoreBody", "context").update(maxProperties=1), "maxProperties is 1 now"),
        (lambda d: only(d, "ScoreBody", "loop").update(pattern="^x"), "pattern is '^x' now"),
        (lambda d: only(d, "ScoreBody", "loop").update(type="integer"), "type string is integer now"),
        (lambda d: answers(d).update({"201": answers(d).pop("200")}), "success is 201 now"),
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
