"""Topic records to facts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.broker import Record
from infra.clock import format_time, parse_time
from ingestion.decode import decode_event
from ingestion.events import Candidate, Content, Decision, Event, Label, Placement, Rejected, hash_id
from ingestion.rules import PROPERTIES
from ingestion.stream.messages import (
    EMPTY,
    TOMBSTONE,
    ContentMessage,
    Ignored,
    Labelled,
    Registered,
    batch_of,
    decode_record,
    encode_event,
    held_record,
)
from ingestion.stream.shapes import Properties
from ingestion.tokens import make_token
from tests.ingestion.records import CHOICE, CLICK, COPY, JANE, NOW, PLACE, SECRETS, TOPICS, decoded, record


def reason(topic: str, document: Any, headers: dict[str, str] | None = None) -> str:
    """Why this record is rejected."""
    found = decoded(topic, document, headers)
    assert isinstance(found, Rejected), found
    return found.reason


def event(**fields: Any) -> Event:
    """The event that this click becomes."""
    found = decoded("events", {**CLICK, **fields})
    assert isinstance(found, Event), found
    return found


def decision(**fields: Any) -> Decision:
    """The decision that this choice becomes."""
    found = decoded("decisions", {**CHOICE, **fields})
    assert isinstance(found, Decision), found
    return found


class TestEvents:
    """Records of the events topic."""

    def test_a_topic_and_http_make_the_same_fact(self) -> None:
        """The same native event is the same fact over HTTP and from a topic, but that a topic holds the unit's hash."""
        native = {
            **CLICK,
            "type": "purchase",
            "value": 49.9,
            "currency": "EUR",
            "order_id": "o-1",
            "content_id": "a",
            "position": 2,
            "source": "shop",
            "properties": {"url": "https://x.example/?a=1", "ip": "10.0.0.1", "device": None},
        }
        hashed = {"unit": JANE, "unit_before": SECRETS.unit_before("jane")}

        assert decode_event({**native, "unit": "jane"}, PLACE) == decoded("events", {**native, **hashed})

    def test_the_kept_properties_are_one_list(self) -> None:
        """A topic keeps the properties that HTTP keeps."""
        assert Properties.__struct_fields__ == PROPERTIES

    def test_unknown_fields_are_skipped(self) -> None:
        """A field of a newer sender does no harm and is not stored, whatever it holds."""
        assert event(colour={"deep": [1, {"er": None}]}, properties={"ip": ["10.0.0.1"], "url": "u"}) == event(
            properties={"url": "u"}
        )

    def test_a_token_names_decision_and_position(self) -> None:
        """A token stands for a decision, and is recorded as such."""
        found = event(decision_id=..., token=make_token(SECRETS, "d9", 3))

        assert (found.decision_id, found.link, found.position) == ("d9", "token", 3)

    def test_labels_travel_with_the_event(self) -> None:
        """A label is said when the event happened: reading the record again says nothing new."""
        found = decoded("events", {**CLICK, "labels": {"bot": "prefetch"}})
        label = Label(
            source="http",
            event_id="e1",
            label="bot",
            labelled_at=parse_time(str(CLICK["occurred_at"])),
            reason="prefetch",
        )

        assert Labelled(event(), (label,)) == found

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            (
                {"unit": "jane@example.com"},
                "Topics hold unit hashes only, and 'unit' is none; send what `rewardloop unit",
            ),
            ({"unit": "u1:abc"}, "Topics hold unit hashes only"),
            ({"unit": JANE + "\n"}, "Topics hold unit hashes only"),
            ({"unit_before": "jane"}, "Topics hold unit hashes only, and 'unit_before' is none"),
            ({"unit": "u9:" + "0" * 32}, "The unit was hashed with unit secret 9, the newest here is 2; give this"),
            ({"event_id": ...}, "Field 'event_id' is missing; add it"),
            ({"event_id": 7}, "Field 'event_id': expected str, got int; correct it"),
            ({"event_id": "a b"}, "Field 'event_id' does not have the form ^[A-Za-z0-9._:@+/=-]{1,256}$; correct it"),
            ({"event_id": "a\n"}, "Field 'event_id' does not have the form"),
            ({"type": "Click"}, "Field 'type' does not have the form ^[a-z][a-z0-9_.]{0,62}$; correct it"),
            ({"position": 0}, "Field 'position': expected int >= 1; correct it"),
            ({"value": True}, "Field 'value': expected"),
            ({"value": "12,50"}, "value '12,50' is not a number; write it like 49.90"),
            ({"value": -3}, "value -3 is negative"),
            ({"source": "nobody"}, "Source 'nobody' is unknown; use one of http, shop or add it to REWARDLOOP_SOURCES"),
            ({"decision_id": ...}, "The event names nobody; add a decision_id, a token or a unit"),
            ({"type": "refund"}, "A refund needs 'reverses'"),
            ({"occurred_at": "1970-01-20T13:00:00Z"}, "occurred_at 1970-01-20T13:00:00Z is before the year 2000"),
            ({"occurred_at": "2026-11-27T10:00:00Z"}, "is 5.0 days after it was received"),
            ({"token": "1.abc.def"}, "The token was not signed by this installation or was changed"),
            ({"content_id": "a\x00b"}, "A text in the record holds the character U+0000; take it out"),
            ({"decision_id": "x" * 257}, "Field 'decision_id': expected str of length <= 256; correct it"),
            ({"labels": {"b t": ""}}, "Field 'labels"),
        ],
    )
    def test_reasons_say_what_to_do(self, fields: dict[str, Any], expected: str) -> None:
        """A rejected event names what was found and what to do, in the words of HTTP."""
        assert expected in reason("events", {**CLICK, **fields})

    def test_the_customer_is_not_in_the_reason(self) -> None:
        """A clear id that came by mistake is in the encrypted bytes only."""
        assert "jane@example.com" not in reason("events", {**CLICK, "unit": "jane@example.com"})

    @given(
        st.builds(
            Event,
            source=st.sampled_from(["http", "shop"]),
            event_id=st.from_regex(r"[A-Za-z0-9._:@+/=-]{1,64}", fullmatch=True),
            type=st.sampled_from(["click", "purchase", "rating"]),
            occurred_at=st.integers(parse_time("2000-01-01"), NOW),
            received_at=st.just(NOW),
            decision_id=st.just("d1"),
            link=st.sampled_from(["decision_id", "token"]),
            unit=st.none() | st.just(JANE),
            unit_before=st.none() | st.just(SECRETS.unit_before("jane")),
            content_id=st.none() | st.just("a"),
            position=st.none() | st.integers(1, 500),
            value_micros=st.none() | st.integers(0, 10**16),
            currency=st.none() | st.just("EUR"),
            fact_key=st.none() | st.just(hash_id("o-1")),
            raw=st.dictionaries(st.sampled_from(PROPERTIES), st.text(max_size=9).filter(lambda t: "\x00" not in t)),
        )
    )
    def test_what_is_published_is_read_back(self, fact: Event) -> None:
        """Encoding an event and decoding the message gives the same event, to the millionth."""
        message = encode_event(fact, TOPICS.events.name)
        back = decode_record(Record(message.topic, 0, 0, 0, message.key, message.value, message.headers), PLACE)

        assert fact == back
        assert message.key == (fact.unit or "d1").encode()

    def test_published_refunds_and_labels_are_read_back(self) -> None:
        """Hashes of orders and labels survive the topic."""
        refund = event(type="refund", reverses="o-1", decision_id=..., unit=JANE)
        label = Label(source="http", event_id="e1", label="bot", labelled_at=refund.occurred_at, reason="fast")
        message = encode_event(refund, TOPICS.events.name, [label])

        assert decoded("events", message.value) == Labelled(refund, (label,))
        assert b"o-1" not in (message.value or b"")


class TestDecisions:
    """Records of the decisions topic."""

    def test_a_known_propensity_is_usable_off_policy(self) -> None:
        """A choice with its probability is a treatment row, under the loop's version of now."""
        found = decision(
            candidates=[{"content_id": "b", "propensity": 0.75}, {"content_id": "a", "propensity": 0.25}],
            propensity=...,
            context={"age": 31, "vip": True, "city": None},
        )

        assert (found.group, found.learning_mode, found.loop_version, found.unit) == ("treatment", "online", 3, JANE)
        assert found.chosen == (Placement(position=1, content_id="a", propensity=0.25),)
        assert found.candidates == (
            Candidate(content_id="a", policy_p=0.25, behaviour_p=0.25),
            Candidate(content_id="b", policy_p=0.75, behaviour_p=0.75),
        )
        assert found.context == {"age": 31, "vip": True, "city": None}

    def test_an_unknown_propensity_is_trained_on_only(self) -> None:
        """Without a probability the choice is the customer's own: joined and learned from, not used off-policy."""
        found = decision(propensity=..., candidates=["a", "b"])

        assert (found.group, found.learning_mode) == ("customer_managed", "logging_only")
        assert found.chosen[0].propensity is None
        assert [one.behaviour_p for one in found.candidates] == [None, None]

    def test_a_slate(self) -> None:
        """Positions are as given, else as listed; each probability is given the positions above."""
        chosen = [
            {"content_id": "a", "position": 2, "propensity": 0.5},
            {"content_id": "b", "position": 1, "propensity": 1},
        ]
        found = decision(content_id=..., propensity=..., chosen=chosen)
        listed = decision(content_id=..., propensity=..., chosen=[{"content_id": "a"}, {"content_id": "b"}])

        assert [(one.position, one.content_id, one.propensity) for one in found.chosen] == [
            (1, "b", 1.0),
            (2, "a", 0.5),
        ]
        assert [(one.position, one.content_id, one.propensity) for one in listed.chosen] == [
            (1, "a", None),
            (2, "b", None),
        ]
        assert found.constraints == {"slots": 2}

    def test_a_holdout_of_their_own(self) -> None:
        """A team with a holdout of its own says so."""
        assert decision(group="holdout").group == "holdout"

    def test_the_digest_is_of_what_was_chosen(self) -> None:
        """The same choice is the same request, another choice is not."""
        same, other = decision(colour="red"), decision(content_id="b")

        assert decision().request_digest == same.request_digest != other.request_digest

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"loop": "post"}, "No loop 'post'; define it with PUT /v1/loops/post, then replay the record"),
            ({"propensity": 0}, "'a' was chosen with propensity 0: what was chosen had a probability above 0"),
            (
                {"propensity": 1.5},
                "'a' was chosen with propensity 1.5: what was chosen had a probability above 0 and at",
            ),
            ({"candidates": ["b", "c"]}, "'a' was chosen but is no candidate; list every content"),
            ({"candidates": []}, "0 candidates; list 1 to 500"),
            ({"candidates": [f"c{n}" for n in range(501)]}, "501 candidates; list 1 to 500"),
            ({"candidates": ["a", "a"]}, "A content is listed twice"),
            ({"candidates": [{"content_id": "a", "propensity": -0.5}]}, "A candidate's propensity is a probability"),
            (
                {"candidates": [{"content_id": "a", "propensity": 0.5}, {"content_id": "b", "propensity": 0.9}]},
                "The candidates' propensities sum to 1.4; together they are 1",
            ),
            (
                {"candidates": [{"content_id": "a", "propensity": 0.5}, {"content_id": "b", "propensity": 0.1}]},
                "The candidates' propensities sum to 0.6",
            ),
            (
                {"candidates": [{"content_id": "a", "propensity": 0.9}, {"content_id": "b", "propensity": 0.1}]},
                "'a' was chosen with propensity 0.5, as a candidate it has 0.9; send one of them",
            ),
            (
                {
                    "propensity": ...,
                    "candidates": [{"content_id": "a", "propensity": 0}, {"content_id": "b", "propensity": 1}],
                },
                "'a' was chosen but its propensity is 0",
            ),
            (
                {"propensity": ..., "candidates": ["a", {"content_id": "b", "propensity": 0.5}]},
                "Candidates have a propensity, 'a' has none",
            ),
            ({"content_id": ...}, "A decision names what was chosen"),
            ({"chosen": [{"content_id": "a"}]}, "A decision names what was chosen"),
            ({"content_id": ..., "chosen": []}, "'chosen' lists at least one content"),
            (
                {"content_id": ..., "chosen": [{"content_id": "a"}]},
                "'chosen' lists at least one content, each with its own",
            ),
            (
                {
                    "content_id": ...,
                    "propensity": ...,
                    "chosen": [{"content_id": "a", "position": 1}, {"content_id": "b", "position": 1}],
                },
                "The positions are 1, 1; each is there once, from 1 without gaps",
            ),
            (
                {"content_id": ..., "propensity": ..., "chosen": [{"content_id": "a"}, {"content_id": "a"}]},
                "A content was chosen for two positions",
            ),
            (
                {
                    "content_id": ...,
                    "propensity": ...,
                    "chosen": [{"content_id": "a"}, {"content_id": "b", "propensity": 0.5}],
                },
                "A lower position has a propensity and position 1 has none",
            ),
            ({"propensity": ..., "group": "treatment"}, "Group 'treatment' needs the propensity"),
            ({"group": "customer_managed"}, "Group 'customer_managed' is for choices without a propensity"),
            ({"group": "control"}, "Field 'group': invalid enum value 'control'; correct it"),
            ({"content_id": "no_send"}, "'no_send' is no candidate in loop 'mail'; set its no_send"),
            ({"unit": "jane"}, "Topics hold unit hashes only"),
            (
                {"decided_at": "2027-11-22T10:00:00Z"},
                "decided_at 2027-11-22T10:00:00Z is 365.0 days after it was received",
            ),
            ({"context": {"a": [1]}}, "Field 'context"),
            ({"context": {"a": "x" * 1_001}}, "Field 'context"),
            ({"context": {"a": 2**60}}, "Field 'context"),
            ({"context": {f"f{n}": n for n in range(201)}}, "Field 'context': expected object of length <= 200"),
            ({"decision_id": ""}, "Field 'decision_id': expected str of length >= 1"),
        ],
    )
    def test_reasons_say_what_to_do(self, fields: dict[str, Any], expected: str) -> None:
        """A choice that cannot have been made like this is rejected, with what to do."""
        assert reason("decisions", {**CHOICE, **fields}).startswith(expected)


class TestContents:
    """Records of the contents topic."""

    def test_a_content_with_its_campaign(self) -> None:
        """A message with a loop registers its campaign too; features that are null are left out."""
        found = decoded("contents", {**COPY, "loop": "mail", "brief": "June", "features": {"tone": "warm", "n": None}})

        assert isinstance(found, ContentMessage)
        assert found.content == Content(
            content_id="a",
            campaign_id="june",
            slots={"subject": "Hello"},
            features={"tone": "warm"},
            created_at=NOW,
        )
        assert found.campaign is not None
        assert (found.campaign.loop_id, found.campaign.brief, found.campaign.state) == ("mail", "June", "draft")

    def test_the_id_may_be_called_id(self) -> None:
        """`id` as in POST /v1/contents, or `content_id` as everywhere else, or none."""
        ids = [
            found.content.content_id
            for fields in ({}, {"content_id": ..., "id": "b"}, {"content_id": ...})
            if isinstance(found := decoded("contents", {**COPY, **fields}), ContentMessage)
        ]

        assert ids == ["a", "b", ""]

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"slots": {}}, "Field 'slots': expected object of length >= 1; correct it"),
            ({"slots": {"subject": 7}}, "Field 'slots"),
            ({"campaign": ...}, "Field 'campaign' is missing; add it"),
            ({"id": "b"}, "content_id and id name two contents; send one of them"),
            ({"loop": "post"}, "No loop 'post'"),
            ({"locale": "german!"}, "Field 'locale' does not have the form"),
            (
                {"parameters": {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}},
                "The body is nested",
            ),
        ],
    )
    def test_reasons_say_what_to_do(self, fields: dict[str, Any], expected: str) -> None:
        """A content that cannot be registered is rejected, with what to do."""
        assert reason("contents", {**COPY, **fields}).startswith(expected)


class TestAnyRecord:
    """What holds whatever a record holds."""

    @pytest.mark.parametrize("topic", ["events", "decisions", "contents"])
    def test_nothing_in_it(self, topic: str) -> None:
        """A tombstone and an empty value are ignored, each under its name."""
        assert decoded(topic, None) == Ignored(TOMBSTONE)
        assert decoded(topic, b"") == Ignored(EMPTY)

    @pytest.mark.parametrize("topic", ["events", "decisions", "contents"])
    @pytest.mark.parametrize(
        "value",
        [
            b"{",
            b"NaN",
            b"null",
            b"[]",
            b'"text"',
            b"\xff\xfe",
            b"\xef\xbb\xbf{}",
            b"{}" * 2,
            b'{"event_id":"\\ud800"}',
            b'{"event_id":"\xed\xa0\x80"}',
            b'{"event_id":"a\\u0000"}',
            b'{"value":1e999}',
            b'{"x":' + b"9" * 5_000 + b"}",
            b'{"value":' + b"9" * 5_000 + b"}",
            b"[" * 100_000,
            b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"a":"' + b"x" * 1_048_577 + b'"}',
        ],
        ids=range(17),
    )
    def test_poison_is_kept_with_its_bytes(self, topic: str, value: bytes) -> None:
        """What no decoder can read is rejected with a sentence, its place and the very bytes."""
        found = decoded(topic, value)

        assert isinstance(found, Rejected)
        assert (found.raw, found.position) == (value, f"t.{topic}.v1/2/7")
        assert len(found.reason) > 20

    def test_huge_numbers_are_rejected(self) -> None:
        """A value of thousands of digits is bad data, not a crash."""
        value = json.dumps(CLICK).encode()[:-1] + b',"value":' + b"9" * 5_000 + b"}"

        assert isinstance(decoded("events", value), Rejected)

    @given(
        st.sampled_from(["events", "decisions", "contents"]),
        st.none() | st.binary(max_size=300),
        st.lists(
            st.tuples(
                st.sampled_from(["content-type", "ce_id", "ce_specversion", "ce_type", "ce_source", "ce_time", "x"]),
                st.binary(max_size=40)
                | st.sampled_from([b"1.0", b"application/cloudevents+json", b"application/json"]),
            ),
            max_size=6,
        ),
    )
    def test_any_bytes_end_in_one_result(
        self, topic: str, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        """Whatever value and headers are, the record is a fact, ignored or rejected; nothing is raised."""
        found = decode_record(Record(getattr(TOPICS, topic).name, 0, 0, -1, None, value, tuple(headers)), PLACE)
        batch = batch_of([found])
        counted = [batch.events, batch.decisions, batch.contents, batch.rejected, batch.ignored]

        assert sum(map(len, counted)) == 1

    @given(
        st.sampled_from([("events", CLICK), ("decisions", CHOICE), ("contents", COPY)]),
        st.dictionaries(
            st.sampled_from(
                [*CLICK, *CHOICE, *COPY, "value", "token", "position", "chosen", "candidates", "properties"]
            ),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
                max_leaves=6,
            ),
            max_size=4,
        ),
    )
    def test_any_fields_end_in_one_result(self, kind: tuple[str, dict[str, Any]], fields: dict[str, Any]) -> None:
        """Whatever the fields hold, the record is a fact, ignored or rejected with a sentence."""
        topic, document = kind
        found = decoded(topic, {**document, **fields})

        assert not isinstance(found, Rejected) or len(found.reason) > 20

    def test_a_held_record_is_decoded_again(self) -> None:
        """A quarantined record is a record again by its position and bytes, CloudEvents in both modes included."""
        attributes = {"specversion": "1.0", "id": "e1", "source": "nobody", "type": "click", "rldecisionid": "d1"}
        binary = {f"ce_{name}": value for name, value in attributes.items()} | {"content-type": "application/json"}
        native, cloud = decoded("events", {**CLICK, "source": "nobody"}), decoded("events", b'{"value":3}', binary)

        for one in (native, cloud):
            assert isinstance(one, Rejected)
            again = held_record(one.position, one.raw)
            assert again is not None
            mended = Record(*again[:5], again.value.replace(b"nobody", b"shop"), again.headers)  # type: ignore[union-attr]
            fact = decode_record(mended, PLACE)
            assert isinstance(fact, Event)
            assert (fact.source, fact.decision_id, fact.event_id) == ("shop", "d1", "e1")
        assert held_record("event/e1", b"{}") is None

    def test_a_batch_holds_every_record_once(self) -> None:
        """Facts, labels, rejected records and reasons for ignoring go to their places; registered contents are done."""
        labelled = decoded("events", {**CLICK, "labels": {"bot": "x"}})
        results = [event(), labelled, decision(), decoded("events", b"{"), decoded("events", None), Registered("a")]
        batch = batch_of([*results, Ignored(TOMBSTONE)])

        assert [len(part) for part in (batch.events, batch.labels, batch.decisions, batch.rejected)] == [2, 1, 1, 1]
        assert (batch.ignored, batch.contents) == ({TOMBSTONE: 2}, ())

    def test_the_record_says_when_it_was_sent(self) -> None:
        """Times in records are milliseconds; the helper of these tests agrees with the clock."""
        assert format_time(record("events", None).timestamp_ms * 1_000) == "2026-11-22T09:59:00Z"
