"""CloudEvents 1.0 to native documents: binary and structured mode, for HTTP and Kafka alike. Pure.

======================  =================  ==========================================================
CloudEvent              native event       rule
======================  =================  ==========================================================
``id``                  ``event_id``
``source``              ``source``         must be one of the installation's sources
``type``                ``type``           the last part: ``com.example.shop.purchase.v1`` is ``purchase``
``time``                ``occurred_at``    else ``occurred_at`` in the data, else when the record was sent
``rldecisionid``        ``decision_id``    extension attribute
``rltoken``             ``token``          extension attribute
``rlunit``              ``unit``           extension attribute
data, if an object      all other fields   native names; others are left out
======================  =================  ==========================================================

Data that is no JSON object (a text, a number, XML, bytes) holds no fields: the attributes alone make the event.
Every function raises :class:`BadInput` with a sentence for what is no CloudEvent 1.0.
Source: CloudEvents specification 1.0.2 with its JSON format, HTTP and Kafka protocol bindings.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import msgspec

from infra.errors import BadInput
from ingestion.decode import NativeEvent
from ingestion.rules import fault

Prefix = Literal["ce-", "ce_"]
"""Of the headers that hold attributes in binary mode: ``ce-`` over HTTP, ``ce_`` over Kafka."""

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

_NO_VERSION = "specversion is missing; send CloudEvents 1.0, with specversion 1.0"
_NEEDED = ("id", "source", "type")
_ENVELOPE = {"id": "event_id", "source": "source", "time": "occurred_at"}
_EXTENSIONS = {"rldecisionid": "decision_id", "rltoken": "token", "rlunit": "unit"}
_FIELDS = tuple(NativeEvent.model_fields)
_VERSION = re.compile(r"\.v[0-9]+$")
_JSON = re.compile(r"(?:application|text)/(?:[^/\s]+\+)?json", re.IGNORECASE)
_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "iso-8859-1": "latin-1", "utf-16": "utf-16"}


class CloudEvent(NamedTuple):
    """One CloudEvent. ``data``: what its JSON holds; None for no data and for data that is not JSON."""

    attributes: dict[str, Any]
    data: Any

    @property
    def fields(self) -> dict[str, Any]:
        """The data's fields; none unless it is an object."""
        return self.data if isinstance(self.data, dict) else {}


def from_headers_and_body(
    headers: Mapping[str, str], body: bytes, prefix: Prefix = "ce-", sent_at: str | None = None
) -> dict[str, Any]:
    """The native event of a message in binary mode. ``sent_at``: its time if it names none."""
    return event_document(read_binary(headers, body, prefix), sent_at)


def from_structured(body: bytes | Mapping[str, Any], sent_at: str | None = None) -> dict[str, Any]:
    """The native event of a whole CloudEvent: JSON, or what was read of it."""
    return event_document(read_structured(body), sent_at)


def from_batch(body: bytes) -> list[Any]:
    """The items of a batch (HTTP only), each for :func:`from_structured`: one bad item spoils no other."""
    items = _json(body)
    if not isinstance(items, list):
        raise BadInput(f"A body of type {BATCH} is a JSON array of CloudEvents; send one, or {STRUCTURED}")
    return items


def event_document(event: CloudEvent, sent_at: str | None = None) -> dict[str, Any]:
    """The native event: attributes before data."""
    document = {name: event.fields[name] for name in _FIELDS if name in event.fields}
    document |= _named(event, _ENVELOPE) | _named(event, _EXTENSIONS) | {"type": event_type(event.attributes["type"])}
    if sent_at is not None:
        document.setdefault("occurred_at", sent_at)
    return document


def event_type(type_: str) -> str:
    """The event type at the end of a CloudEvents type, without reverse DNS name in front or version behind."""
    return _VERSION.sub("", type_).rpartition(".")[2]


def read_binary(headers: Mapping[str, str], body: bytes, prefix: Prefix) -> CloudEvent:
    """A message in binary mode: attributes in headers, data in the body."""
    lower = {name.lower(): value for name, value in headers.items()}
    attributes: dict[str, Any] = {
        name.removeprefix(prefix): _unquoted(value) if prefix == "ce-" else value
        for name, value in lower.items()
        if name.startswith(prefix)
    }
    if "content-type" in lower:
        attributes["datacontenttype"] = lower["content-type"]
    return CloudEvent(_checked(attributes), _content(body, attributes.get("datacontenttype")))


def read_structured(body: bytes | Mapping[str, Any]) -> CloudEvent:
    """A message in structured mode: attributes and data in one JSON object."""
    document = _json(body) if isinstance(body, bytes) else body
    if not isinstance(document, Mapping):
        raise BadInput("A CloudEvent is a JSON object with specversion, id, source and type; send one")
    attributes = {name: value for name, value in document.items() if name not in ("data", "data_base64")}
    checked = _checked(attributes)
    if document.get("data_base64") is None:
        return CloudEvent(checked, document.get("data"))
    return CloudEvent(checked, _decoded(document["data_base64"], checked.get("datacontenttype")))


def as_structured(headers: Mapping[str, str], body: bytes, prefix: Prefix) -> bytes:
    """A binary message as one in structured mode, nothing lost: to keep it as bytes alone."""
    attributes: dict[str, Any] = {}
    for name, value in headers.items():
        if name.startswith(prefix):
            with suppress(BadInput):
                value = _unquoted(value) if prefix == "ce-" else value
            attributes[name.removeprefix(prefix)] = value
    if "content-type" in headers:
        attributes["datacontenttype"] = headers["content-type"]
    return msgspec.json.encode(attributes | {"data_base64": base64.b64encode(body).decode()})


def _named(event: CloudEvent, names: Mapping[str, str]) -> dict[str, Any]:
    return {native: event.attributes[name] for name, native in names.items() if name in event.attributes}


def _checked(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that are set. Null is the same as absent."""
    there = {name: value for name, value in attributes.items() if value is not None}
    version = there.get("specversion")
    if version != "1.0":
        raise BadInput(f"specversion is {str(version)[:16]!r}; send CloudEvents 1.0" if version else _NO_VERSION)
    for name in _NEEDED:
        if not isinstance(there.get(name), str) or not there[name]:
            raise BadInput(f"The CloudEvent has no {name!r}; add it, a text that is not empty")
    if found := fault(there):
        raise BadInput(found)
    return there


def _decoded(text: Any, media_type: Any) -> Any:
    if media_type is not None and not _is_json(media_type):
        return None
    try:
        body = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise BadInput("data_base64 is not base64; send JSON in 'data' instead") from None
    return _content(body, media_type)


def _content(body: bytes, media_type: Any) -> Any:
    """What a JSON body holds; data without a media type is read as JSON."""
    if not body or (media_type is not None and not _is_json(media_type)):
        return None
    charset = re.search(r"charset=\"?([\w-]+)", str(media_type), re.IGNORECASE)
    name = charset[1].lower() if charset else "utf-8"
    if name not in _CHARSETS:
        raise BadInput(f"Character set {name[:40]!r} is not read here; send UTF-8")
    return _json(body, _CHARSETS[name])


def _is_json(media_type: Any) -> bool:
    return isinstance(media_type, str) and bool(_JSON.fullmatch(media_type.partition(";")[0].strip()))


def _json(body: bytes, charset: str = "utf-8") -> Any:
    try:
        document = msgspec.json.decode(body if charset == "utf-8" else body.decode(charset))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadInput("The CloudEvent is not readable JSON; send one JSON document, best in UTF-8") from None
    if found := fault(document):
        raise BadInput(found)
    return document


def _unquoted(value: str) -> str:
    """A header value as the HTTP binding writes it: percent-encoded, perhaps in quotes."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise BadInput("A header of the CloudEvent is not percent-encoded UTF-8; encode it") from None
