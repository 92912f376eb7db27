"""The edge of the API: limits, unreadable bodies, and errors that say what to do and leave nothing behind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from infra import tables
from infra.database import reading
from tests.pipelines.api import JSON, LOOP, click, define, inside, refused, running, send

CLICK = {"name": "click", "event": "click"}
RANK = {"loop": "mail", "campaign": "june"}


@pytest.fixture(scope="module")
def client(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One API for the whole file: refused calls leave nothing, so the tests do not disturb each other."""
    home = tmp_path_factory.mktemp("edge")
    (home / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    with running(f"sqlite:///{home / 'rewardloop.db'}", home) as client:
        define(client)
        yield client


@pytest.mark.parametrize(
    "path", ["/v1/loops/mail/kill", "/v1/rank", "/v1/events", "/campaigns/june/preferences", "/loops/mail/rollback"]
)
def test_another_sites_page_changes_nothing(client: TestClient, path: str) -> None:
    """Where nobody needs a key, a page of another site could have a reader's browser press any button: it is refused,
    and told what to do; what is no browser, and who brings a key, is not asked."""
    before = stored(client)
    foreign = {"sec-fetch-site": "cross-site"}

    assert "another site" in refused(client.post(path, headers=foreign), 403)
    assert stored(client) == before
    assert client.post(path, headers=foreign | {"x-api-key": "some"}).status_code != 403
    assert client.get("/v1/loops", headers=foreign).status_code == 200


def stored(client: TestClient) -> dict[str, int]:
    """Rows per table."""
    with reading(inside(client).serving.engine) as connection:
        return {
            table.name: int(connection.scalar(select(func.count()).select_from(table)) or 0)
            for table in tables.metadata.tables.values()
        }


def content(text: str = "A line", **fields: Any) -> dict[str, Any]:
    """A content's body."""
    return {"slots": {"subject": text}} | fields


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("post", "/v1/rank", RANK | {"loop": "post"}, 404, "No loop 'post'; define it with PUT /v1/loops/post"),
        ("post", "/v1/rank", RANK | {"campaign": "may"}, 404, "No campaign 'may'; register it with POST /v1/campaigns"),
        (
            "post",
            "/v1/rank",
            RANK | {"campaing": "x"},
            422,
            "'campaing' is not a field here; leave it out or correct its name",
        ),
        ("post", "/v1/rank", {"loop": "mail"}, 422, "'campaign' is missing; add it"),
        (
            "post",
            "/v1/rank",
            RANK | {"decision_id": ""},
            422,
            "'decision_id': string should have at least 1 character",
        ),
        (
            "post",
            "/v1/rank",
            RANK | {"decision_id": "x" * 257},
            422,
            "'decision_id': string should have at most 256 characters",
        ),
        ("post", "/v1/rank", RANK | {"slots": 0}, 422, "'slots': input should be greater than or equal to 1"),
        (
            "post",
            "/v1/rank",
            RANK | {"context": {f"f{n}": 1 for n in range(201)}},
            422,
            "has more than 200 entries; send fewer",
        ),
        ("post", "/v1/rank", RANK | {"context": {"a": [1]}}, 422, "must be a number, a text, true, false or null"),
        ("post", "/v1/rank", RANK | {"context": {"a": "x" * 1_001}}, 422, "must have at most 1000 characters"),
        ("post", "/v1/rank", RANK | {"context": {"a": 2**60}}, 422, "must be within ±2^53"),
        (
            "post",
            "/v1/rank",
            RANK | {"candidates": ["a", content("x" * 100_000)]},
            422,
            "100000 bytes of text; the limit is 20000",
        ),
        (
            "post",
            "/v1/rank",
            RANK | {"candidates": [content(f"n{n}") for n in range(501)]},
            422,
            "At most 500 candidates",
        ),
        ("post", "/v1/rank", RANK | {"candidates": [content("  ")]}, 422, "needs at least one slot with text"),
        ("post", "/v1/rank", RANK | {"candidates": [content(id="no_send")]}, 422, "'no_send' is reserved"),
        ("post", "/v1/rank", RANK | {"excluded": ["a", "b"]}, 422, "has no eligible content"),
        ("post", "/v1/score", {"loop": "mail", "texts": ["Hi"]}, 409, "has no model to score with; train one"),
        ("post", "/v1/score", {"loop": "mail"}, 409, "has no model to score with"),
        ("post", "/v1/contents", {"campaign": "may", "contents": [content()]}, 404, "No campaign 'may'"),
        (
            "post",
            "/v1/contents",
            {"campaign": "june", "contents": [content("x" * 100_000)]},
            422,
            "Slot 'subject' holds 100000 bytes",
        ),
        (
            "post",
            "/v1/contents",
            {"campaign": "june", "contents": [content(), content("x" * 30_000)]},
            422,
            "shorten it",
        ),
        ("post", "/v1/contents", {"campaign": "june", "contents": []}, 422, "needs at least 1 entry; it has 0"),
        ("post", "/v1/contents/zz/approval", {"approval": "approved"}, 404, "No content 'zz'"),
        ("post", "/v1/contents/a/approval", {"approval": "maybe"}, 422, "'approval': input should be 'approved'"),
        ("post", "/v1/campaigns", {"campaign": "x", "loop": "post"}, 404, "No loop 'post'"),
        (
            "post",
            "/v1/campaigns",
            {"campaign": "june", "loop": "mail", "brief": "other"},
            409,
            "exists with another brief",
        ),
        (
            "post",
            "/v1/campaigns",
            {"campaign": "x", "loop": "mail", "state": "running"},
            422,
            "has no approved content",
        ),
        (
            "post",
            "/v1/campaigns",
            {"campaign": "x", "loop": "mail", "contents": [content()], "control": "a"},
            422,
            "is no approved content",
        ),
        ("get", "/v1/campaigns/may/results", None, 404, "No campaign 'may'"),
        (
            "put",
            "/v1/loops/mail",
            LOOP | {"reward": {"clicks": 1}},
            422,
            "reward weighs clicks, which is no metric of the loop",
        ),
        ("put", "/v1/loops/mail", LOOP | {"loop": "post"}, 422, "the path names 'mail'; make them equal"),
        ("put", "/v1/loops/mail", LOOP | {"holdout": 2}, 422, "/holdout"),
        ("put", "/v1/loops/mail", {"metrics": []}, 422, "/metrics"),
        ("put", "/v1/loops/mail", LOOP | {"default_reward": "nan"}, 422, "'default_reward': input should be a finite"),
        ("put", "/v1/loops/mail", LOOP | {"reward": {"click": "inf"}}, 422, "'click': input should be a finite number"),
        ("put", "/v1/loops/mail", LOOP | {"reward": {"click": 1e300}}, 422, "'click': input should be less than"),
        ("put", "/v1/loops/mail", LOOP | {"metrics": [CLICK | {"cap": 1e300}]}, 422, "/metrics/0/cap"),
        ("put", "/v1/loops/mail", LOOP | {"metrics": [CLICK | {"window": 0.5}]}, 422, "write whole seconds"),
        ("put", "/v1/loops/mail", LOOP | {"metric": []}, 422, "'metric' is not a field here; leave it out"),
        ("post", "/v1/rank", RANK | {"candidates": [{"slot": {}}]}, 422, "'slots' is missing; add it"),
        ("post", "/v1/rank", RANK | {"candidates": ["a b"]}, 422, "'candidates' [0] does not have the form"),
        ("get", "/v1/loops/post", None, 404, "No loop 'post'"),
        ("post", "/v1/loops/post/kill", {}, 404, "No loop 'post'"),
        ("post", "/v1/loops/post/retrain", None, 404, "No loop 'post'"),
        ("post", "/v1/loops/mail/promote", {"version": "mail-9"}, 404, "no model version 'mail-9'"),
        ("post", "/v1/loops/mail/promote", {"version": "m", "replaces": "n"}, 409, "has no champion yet, not 'n'"),
        ("get", "/v1/decisions/none", None, 404, "No decision 'none'"),
        ("post", "/v1/decisions/none/activate", {}, 404, "No decision 'none'"),
        ("post", "/v1/events", {"events": []}, 422, "needs at least 1 entry; it has 0"),
        ("post", "/v1/events", {"events": [1] * 1_001}, 422, "1001 events in one call; send at most 1000 at a time"),
        ("get", "/v2/rank", None, 404, "There is no GET /v2/rank; the calls are listed at /docs"),
        ("get", "/v1/rank", None, 405, "GET /v1/rank is not possible; use POST"),
    ],
)
def test_refusals_say_what_to_do(
    client: TestClient, method: str, path: str, body: Any, status: int, sentence: str
) -> None:
    """Every refused call answers a problem document with a sentence, and changes no table."""
    before = stored(client)
    answer = client.request(method.upper(), path, json=body)

    assert sentence in refused(answer, status)
    assert stored(client) == before


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ({"value": -49.9, "type": "purchase"}, "is negative; send what was paid"),
        ({"occurred_at": "2100-01-01T00:00:00Z"}, "days after it was received"),
        ({"occurred_at": "1999-01-01T00:00:00Z"}, "is before the year 2000"),
        ({"source": "unknown"}, "Source 'unknown' is unknown"),
        ({"decision_id": None}, "names nobody"),
        ({"position": 0}, "'position'"),
        ({"value": True}, "value 'True' is not a number; write it like 49.90"),
        ({"value": [1]}, "value '[1]' is not a number"),
        ({"value": 10**11, "type": "purchase"}, "is above 10000000000; check its unit"),
        ({"type": "Click!"}, "'type' does not have the form"),
    ],
)
def test_bad_events_are_kept_with_their_reason(client: TestClient, event: dict[str, Any], sentence: str) -> None:
    """An event that cannot be used is in quarantine with the sentence that was answered; nothing else is stored."""
    before = stored(client)
    raw = click("bad" + "".join(filter(str.isalnum, sentence)), decision_id="d1") | event
    reason = send(client, {name: value for name, value in raw.items() if value is not None})["rejected"][0]["reason"]
    after = stored(client)
    with reading(inside(client).serving.engine) as connection:
        kept = connection.scalars(select(tables.quarantine.c.reason).order_by(tables.quarantine.c.id.desc())).first()

    assert sentence in reason
    assert kept == reason
    assert {name for name in after if after[name] != before[name]} == {"quarantine", "batches"}


def test_the_pointer_names_the_part(client: TestClient) -> None:
    """A problem points to the offending part of the body."""
    body = RANK | {"candidates": ["a", {"slots": {}}], "context": {"x": []}}
    errors = client.post("/v1/rank", json=body).json()["errors"]

    assert [error["pointer"] for error in errors] == ["/context/x", "/candidates/1/slots"]


def test_large_bodies_are_refused_before_they_are_read(client: TestClient) -> None:
    """A body over the limit is refused, announced or chunked; one at the limit is read."""
    limit = 1_048_576
    large = b'{"x":"' + b"a" * limit + b'"}'
    exact = json.dumps(RANK | {"unit": "u" * (limit - len(json.dumps(RANK | {"unit": ""})))}).encode()

    assert "larger than 1048576 bytes" in refused(client.post("/v1/rank", content=large, headers=JSON), 413)
    chunks = iter([b'{"x":"'] + [b"a" * 65_536] * 17)
    assert "larger than 1048576 bytes" in refused(client.post("/v1/rank", content=chunks, headers=JSON), 413)
    assert "at most 256 characters" in refused(client.post("/v1/rank", content=exact, headers=JSON), 422)


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"{", 400, "is not readable JSON"),
        (b"not json", 400, "is not readable JSON"),
        (b'{"unit": "\xff"}', 400, "is not readable JSON"),
        (b'{"unit": "\\ud800"}', 400, "is not readable JSON"),
        (b'{"context": {"a": NaN}}', 400, "is not readable JSON"),
        (b'{"context": {"a": Infinity}}', 400, "is not readable JSON"),
        (b'{"context": {"a": 1e999}}', 422, "out of range"),
        (b'{"context": {"a": ' + b"9" * 5_000 + b"}}", 422, "out of range"),
        (b'{"unit": "a\\u0000b"}', 422, "U+0000"),
        (b'{"a\\u0000b": 1}', 422, "U+0000"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, 422, "nested deeper than 32"),
        (b"[" * 100_000, 422, "nested deeper than 32"),
        (b"[]", 422, "must be an object"),
        (b"null", 422, "must be an object"),
        (b"", 422, "missing"),
    ],
)
def test_unreadable_bodies(client: TestClient, body: bytes, status: int, sentence: str) -> None:
    """Bytes that are no usable JSON are refused with what they are."""
    assert sentence in refused(client.post("/v1/rank", content=body, headers=JSON), status)


def test_json_must_be_called_json(client: TestClient) -> None:
    """A form, or a body without a type, is refused with the header to send."""
    for headers in ({"content-type": "application/x-www-form-urlencoded"}, {}):
        answer = client.post("/v1/rank", content=json.dumps(RANK).encode(), headers=headers)

        assert "Content-Type: application/json" in refused(answer, 415)


@pytest.mark.parametrize("path", ["/healthz", "/v1/loops", "/v1/loops/none", "/nowhere", "/metrics", "/docs", "/r/x.y"])
def test_every_answer_has_security_headers(client: TestClient, path: str) -> None:
    """No answer may be guessed at, framed or tell where its reader came from; what is no page may load nothing."""
    headers = client.get(path, follow_redirects=False).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    if not headers["content-type"].startswith("text/html"):
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "no-store" in headers["Cache-Control"]


def test_openapi_is_complete(client: TestClient) -> None:
    """Every call has a summary and a description, every field a description, every error is a problem document, but
    for the page that a reader sees who follows a broken link."""
    document = client.get("/openapi.json").json()
    operations = [op for path in document["paths"].values() for op in path.values()]
    fields = [
        (name, field, schema)
        for name, model in document["components"]["schemas"].items()
        for field, schema in model.get("properties", {}).items()
        if name not in ("HTTPValidationError", "ValidationError")
    ]
    errors = [
        set(response["content"])
        for path, calls in document["paths"].items()
        if path != "/r/{signed}"
        for operation in calls.values()
        for status, response in operation["responses"].items()
        if status[0] in "45"
    ]

    assert [op["operationId"] for op in operations if not (op.get("summary") and op.get("description"))] == []
    assert [(name, field) for name, field, schema in fields if not _described(document, schema)] == []
    assert {frozenset(types) for types in errors} == {frozenset({"application/problem+json"})}
    assert set(document["paths"]["/r/{signed}"]["get"]["responses"]["404"]["content"]) == {"text/html"}
    assert "NativeEvent" in document["components"]["schemas"]


def _described(document: dict[str, Any], schema: dict[str, Any]) -> bool:
    reference = schema.get("$ref", "").rpartition("/")[2]
    return bool(schema.get("description") or document["components"]["schemas"].get(reference, {}).get("description"))


def test_every_reference_of_the_openapi_document_exists(client: TestClient) -> None:
    """No schema names another that is not there."""
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    named = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}

    assert named - set(document["components"]["schemas"]) == set()
