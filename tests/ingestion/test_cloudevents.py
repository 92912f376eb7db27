"""CloudEvents in every mode to native documents."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadInput
from ingestion.cloudevents import (
    as_structured,
    event_type,
    from_batch,
    from_headers_and_body,
    from_structured,
    read_binary,
    read_structured,
)
from ingestion.events import Decision, Event, Rejected
from ingestion.stream.messages import ContentMessage
from ingestion.tokens import make_token
from tests.ingestion.importing import DATA
from tests.ingestion.records import CHOICE, JANE, SECRETS, decoded

CLOUD = {
    "specversion": "1.0",
    "id": "e1",
    "source": "shop",
    "type": "com.example.shop.purchase.v1",
    "time": "2026-11-22T09:00:00Z",
    "rldecisionid": "d1",
}
DATA_FIELDS = {"value": 49.9, "currency": "EUR", "order_id": "o-1", "colour": "red", "event_id": "not this"}
NATIVE = {
    "event_id": "e1",
    "source": "shop",
    "type": "purchase",
    "occurred_at": "2026-11-22T09:00:00Z",
    "decision_id": "d1",
    "value": 49.9,
    "currency": "EUR",
    "order_id": "o-1",
}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=UTF-8"}


def headers(prefix: str, media_type: str | None = "application/json", **changes: str) -> dict[str, str]:
    """The attributes as headers."""
    named = {f"{prefix}{name}": value for name, value in {**CLOUD, **changes}.items()}
    return named | ({"content-type": media_type} if media_type else {})


def fact(value: Any, sent: dict[str, str] | None = None, topic: str = "events") -> Any:
    """What the record holding this becomes."""
    return decoded(topic, value, sent)


class TestModes:
    """The same event in each mode is the same document."""

    def test_structured(self) -> None:
        """Attributes come before data, unknown data fields are left out."""
        assert from_structured(json.dumps({**CLOUD, "data": DATA_FIELDS}).encode()) == NATIVE

    @pytest.mark.parametrize("prefix", ["ce-", "ce_"])
    def test_binary(self, prefix: Any) -> None:
        """Attributes in headers, data in the body, over HTTP and over Kafka."""
        assert from_headers_and_body(headers(prefix), json.dumps(DATA_FIELDS).encode(), prefix) == NATIVE

    def test_batch(self) -> None:
        """Each item of a batch stands alone."""
        good, bad = from_batch(json.dumps([{**CLOUD, "data": DATA_FIELDS}, {"specversion": "1.0"}]).encode())

        assert from_structured(good) == NATIVE
        with pytest.raises(BadInput, match="The CloudEvent has no 'id'"):
            from_structured(bad)

    @pytest.mark.parametrize("prefix", ["ce-", "ce_"])
    @pytest.mark.parametrize("body", [json.dumps(DATA_FIELDS).encode(), b"\xff\x00", b""])
    @pytest.mark.parametrize("media_type", ["application/json", "application/octet-stream"])
    def test_binary_kept_as_structured(self, prefix: Any, body: bytes, media_type: str) -> None:
        """A binary message written down as one in structured mode reads the same, whatever bytes it carries."""
        sent = headers(prefix, media_type)
        expected = _read_or_refused(lambda: read_binary(sent, body, prefix))
        found = _read_or_refused(lambda: read_structured(as_structured(sent, body, prefix)))

        assert repr(expected) == repr(found)

    def test_http_headers_are_percent_encoded(self) -> None:
        """Over HTTP values are percent-encoded and perhaps quoted; over Kafka they are UTF-8 as they are."""
        over_http = from_headers_and_body(headers("ce-", rldecisionid='"d%C3%A9j%C3%A0 \\"vu\\""'), b"")
        over_kafka = from_headers_and_body(headers("ce_", rldecisionid="100%25 déjà"), b"", "ce_")

        assert over_http["decision_id"] == 'déjà "vu"'
        assert over_kafka["decision_id"] == "100%25 déjà"

    def test_header_names_have_no_case(self) -> None:
        """`Ce-Id` and `ce-id` are one header."""
        sent = {name.title(): value for name, value in headers("ce-").items()}

        assert from_headers_and_body(sent, b"")["event_id"] == "e1"


class TestData:
    """What may stand in data."""

    @pytest.mark.parametrize("data", ["a text", 12.5, True, None, [1, 2], "<xml/>"])
    def test_data_that_is_no_object_has_no_fields(self, data: Any) -> None:
        """A bare text, number or list leaves the attributes to speak alone."""
        expected = {name: value for name, value in NATIVE.items() if name not in DATA_FIELDS or name == "event_id"}

        assert expected == from_structured({**CLOUD, "data": data})

    def test_base64_of_json_is_read(self) -> None:
        """JSON may come as base64."""
        coded = base64.b64encode(json.dumps(DATA_FIELDS).encode()).decode()

        assert from_structured({**CLOUD, "data_base64": coded}) == NATIVE
        assert from_structured({**CLOUD, "data_base64": coded, "datacontenttype": "text/vnd.x+json"}) == NATIVE

    def test_other_bytes_are_left_alone(self) -> None:
        """Data of another media type is not looked into, base64 or not."""
        assert "value" not in from_structured({**CLOUD, "data_base64": "…", "datacontenttype": "application/protobuf"})
        assert "value" not in from_headers_and_body(headers("ce-", "text/xml"), b"<value>3</value>")
        assert "value" not in from_headers_and_body(headers("ce-", "<contentType>"), b'{"value": 3}')

    def test_character_sets(self) -> None:
        """JSON in another known character set is read; UTF-8 where none is named."""
        body = json.dumps({"order_id": "ü"}, ensure_ascii=False)

        for charset in ("utf-8", "iso-8859-1", "utf-16"):
            sent = headers("ce-", f'application/json; charset="{charset.upper()}"')
            assert from_headers_and_body(sent, body.encode(charset))["order_id"] == "ü"

    @pytest.mark.parametrize(
        ("name", "value"), [("ce-rlunit", "jane%40example.com%FF"), ("ce-specversion", "jane" * 99)]
    )
    def test_a_refusal_does_not_repeat_what_was_sent(self, name: str, value: str) -> None:
        """Reasons are stored, and on the quarantine topic, in clear: none holds a customer's id or a long text."""
        with pytest.raises(BadInput) as refusal:
            from_headers_and_body({**headers("ce-", "application/json"), name: value}, b"{}")

        assert "jane%40" not in str(refusal.value)
        assert len(str(refusal.value)) < 80

    def test_time_may_stand_in_the_data_or_be_the_record_s(self) -> None:
        """Without `time` the data's `occurred_at` counts, else when the record was sent."""
        bare = {name: value for name, value in CLOUD.items() if name != "time"}

        assert from_structured({**bare, "data": {"occurred_at": "x"}}, "sent")["occurred_at"] == "x"
        assert from_structured(bare, "sent")["occurred_at"] == "sent"
        assert "occurred_at" not in from_structured(bare)

    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            ({**CLOUD, "specversion": "0.3"}, "specversion is '0.3'; send CloudEvents 1.0"),
            ({**CLOUD, "specversion": None}, "specversion is missing; send CloudEvents 1.0"),
            ({**CLOUD, "id": ""}, "The CloudEvent has no 'id'; add it"),
            ({**CLOUD, "type": 5}, "The CloudEvent has no 'type'; add it"),
            ({**CLOUD, "source": None}, "The CloudEvent has no 'source'; add it"),
            ({**CLOUD, "data_base64": "%%%"}, "data_base64 is not base64"),
            ({**CLOUD, "data_base64": 5}, "data_base64 is not base64"),
            (
                {**CLOUD, "data_base64": "e30=", "datacontenttype": "application/json; charset=x-mac"},
                "'x-mac' is not read",
            ),
            ({**CLOUD, "rlunit": "a\x00"}, "U\\+0000"),
            ([CLOUD], "A CloudEvent is a JSON object"),
        ],
    )
    def test_reasons_say_what_to_do(self, document: Any, expected: str) -> None:
        """What is no CloudEvent 1.0 is refused with a sentence."""
        with pytest.raises(BadInput, match=expected):
            from_structured(json.dumps(document).encode())

    @pytest.mark.parametrize(
        ("type_", "expected"),
        [
            ("click", "click"),
            ("rewardloop.click", "click"),
            ("com.example.shop.purchase", "purchase"),
            ("com.example.purchase.v12", "purchase"),
        ],
    )
    def test_the_type_is_the_last_part(self, type_: str, expected: str) -> None:
        """Reverse DNS names in front and versions behind are not part of the event's type."""
        assert expected == event_type(type_)

    @given(
        st.dictionaries(st.sampled_from(["ce-id", "ce-specversion", "ce-source", "content-type", "ce-x"]), st.text()),
        st.binary(max_size=60),
    )
    def test_any_message_is_read_or_refused(self, sent: dict[str, str], body: bytes) -> None:
        """Whatever headers and body hold, the reader answers a document or BadInput."""
        for read in (lambda: from_headers_and_body(headers("ce-") | sent, body), lambda: from_structured(body)):
            assert isinstance(_read_or_refused(read), dict | BadInput)


def _read_or_refused(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except BadInput as error:
        return error


class TestOnTopics:
    """CloudEvents as records of topics."""

    def test_both_modes_are_one_fact(self) -> None:
        """Structured and binary records become the event that the native record is."""
        native = fact(NATIVE)

        assert isinstance(native, Event)
        assert native == fact({**CLOUD, "data": DATA_FIELDS}, STRUCTURED)
        assert native == fact(DATA_FIELDS, headers("ce_"))

    def test_an_event_without_data(self) -> None:
        """A binary record with an empty value is an event made of its attributes; a tombstone is not."""
        found = fact(b"", headers("ce_", type="click"))

        assert isinstance(found, Event)
        assert (found.type, found.decision_id, found.value_micros) == ("click", "d1", None)
        assert not isinstance(fact(None, headers("ce_")), Event)

    def test_extensions(self) -> None:
        """Token and unit may come as extension attributes; the unit as its hash."""
        token = make_token(SECRETS, "d7")
        sent = {
            name: value
            for name, value in headers("ce_", rltoken=token, rlunit=JANE).items()
            if "decisionid" not in name
        }
        found = fact(b"", sent)

        assert isinstance(found, Event)
        assert (found.decision_id, found.link, found.unit) == ("d7", "token", JANE)
        assert "Topics hold unit hashes only" in fact(b"", headers("ce_", rlunit="jane")).reason

    def test_without_time_the_record_s_time_counts(self) -> None:
        """`time` is optional: then it happened when the record was written."""
        bare = {name: value for name, value in CLOUD.items() if name != "time"}
        found = fact(bare, STRUCTURED)

        assert isinstance(found, Event)
        assert found.occurred_at == 1_795_341_540_000_000

    def test_decisions_and_contents(self) -> None:
        """A decision's id, time and unit may be attributes; a content's fields are all in the data."""
        cloud = {**CLOUD, "type": "com.example.decided", "rlunit": JANE}
        chosen = {name: CHOICE[name] for name in ("loop", "campaign", "content_id", "propensity")}
        decision = fact({**cloud, "data": chosen}, STRUCTURED, "decisions")
        content = fact({"campaign": "june", "slots": {"subject": "Hi"}}, headers("ce_"), "contents")

        assert isinstance(decision, Decision)
        assert (decision.decision_id, decision.unit, decision.decided_at) == ("d1", JANE, 1_795_338_000_000_000)
        assert isinstance(content, ContentMessage)
        assert content.content.slots == {"subject": "Hi"}

    @pytest.mark.parametrize(
        ("media_type", "expected"),
        [
            ("application/cloudevents-batch+json", "send one CloudEvent per record"),
            ("application/cloudevents+avro", "send JSON, with the content-type application/cloudevents+json"),
        ],
    )
    def test_other_formats_are_refused(self, media_type: str, expected: str) -> None:
        """Kafka has no batches, and only JSON is read."""
        found = fact([CLOUD], {"content-type": media_type})

        assert isinstance(found, Rejected)
        assert expected in found.reason


SAMPLES = sorted((DATA / "vendor" / "cloudevents").glob("*"))


@pytest.mark.data
@pytest.mark.skipif(
    not SAMPLES, reason="no published samples: set REWARDLOOP_DATA to the folder with the real data sets"
)
def test_published_samples_are_read() -> None:
    """Every published sample is read, in its mode, and keeps id, source and time."""
    read = 0
    for sample in SAMPLES:
        for document, attributes in _documents(sample):
            assert (document["event_id"], document["source"]) == (attributes["id"], attributes["source"]), sample.name
            assert document.get("occurred_at") == attributes.get("time"), sample.name
            assert document["type"] == attributes["type"].rpartition(".")[2], sample.name
            read += 1

    assert read >= len(SAMPLES) - 2  # two files are schemas


def _documents(sample: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What a sample's events are read to, beside their attributes as published."""
    if sample.name.startswith("schema__"):
        return []
    text = sample.read_text()
    if sample.suffix == ".txt":
        head, _, body = text.partition("\n\n")
        sent = dict(line.split(": ", 1) for line in head.splitlines()[1:])
        said = {name.removeprefix("ce-"): value for name, value in sent.items()}
        return [(from_headers_and_body(sent, body.encode()), said)]
    document = json.loads(text)
    if "kafka_value" in document:
        document = json.loads(document["kafka_value"])
    items = document if isinstance(document, list) else [document]
    return [(from_structured(json.dumps(item).encode()), item) for item in items]
