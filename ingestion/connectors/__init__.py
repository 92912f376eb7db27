"""Connectors: one file per vendor's format, and this table of them.

A connector reads bodies (``read``) and knows how the vendor signs them (``check``). It is used by the webhook, by
``rewardloop import --format`` and when a quarantined record is replayed: the same code for all three.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from ingestion.connectors import braze, cloudevents, native, segment, sendgrid, shopify, signatures, stripe
from ingestion.connectors.items import Item
from ingestion.connectors.signatures import Check


class Connector(NamedTuple):
    """``read(body, headers)`` gives one item per record and never raises; ``check`` verifies the signature."""

    read: Callable[[bytes, Mapping[str, str]], Iterator[Item]]
    check: Check


CONNECTORS: Mapping[str, Connector] = {
    "segment": Connector(segment.read, signatures.segment),
    "sendgrid": Connector(sendgrid.read, signatures.sendgrid),
    "shopify": Connector(shopify.read, signatures.shopify),
    "stripe": Connector(stripe.read, signatures.stripe),
    "braze": Connector(braze.read, signatures.bearer),
    "cloudevents": Connector(cloudevents.read, signatures.standard),
    "native": Connector(native.read, signatures.standard),
}
