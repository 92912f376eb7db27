"""The signed decision token that rides in links and custom arguments: ``<key id>.<content>.<signature>``.

It names a decision without the unit, so that a click is credited exactly although the vendor knows nothing of us.
The signature covers the text as written, key id included: every changed character is refused, also one in the
unused bits of base64. Nothing in a token is secret.
"""

import base64
import binascii
import hashlib
import hmac
from typing import NamedTuple

from infra.errors import BadInput
from infra.secrets import Secrets

_SIGNATURE_BYTES = 16
_LONGEST = 2_000


class TokenContent(NamedTuple):
    """What a token says."""

    decision_id: str
    position: int | None


def make_token(secrets: Secrets, decision_id: str, position: int | None = None) -> str:
    """A token of URL-safe characters, signed with the key in use."""
    signed = f"{max(secrets.tokens)}.{_encode(f'{position or 0}:{decision_id}'.encode())}"
    return f"{signed}.{_signature(secrets.tokens[max(secrets.tokens)], signed)}"


def read_token(secrets: Secrets, token: str) -> TokenContent:
    """What the token says, if one of our keys signed exactly it. Raises :class:`BadInput` otherwise."""
    signed, _, signature = token.rpartition(".")
    key_id, _, content = signed.partition(".")
    key = secrets.tokens.get(int(key_id)) if key_id.isascii() and key_id.isdigit() and len(token) <= _LONGEST else None
    if key is None or not hmac.compare_digest(_signature(key, signed).encode(), signature.encode()):
        raise BadInput("The token was not signed by this installation or was changed; send it as /v1/rank returned it")
    position, _, decision_id = _decode(content).decode().partition(":")
    return TokenContent(decision_id, int(position) or None)


def _signature(key: bytes, signed: str) -> str:
    return _encode(hmac.digest(key, signed.encode(), hashlib.sha256)[:_SIGNATURE_BYTES])


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise BadInput("The token holds no decision; send it as /v1/rank returned it") from None
