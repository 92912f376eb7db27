"""The signed decision token that rides in links and custom arguments: ``<key id>.<content>.<signature>``.

It names a decision without the unit, so that a click is credited exactly although the vendor knows nothing of us.
The signature covers the text as written, key id included: every changed character is refused, also one in the
unused bits of base64. Nothing in a token is secret. Redirect links (``ingestion/links.py``) are signed the same way
for another purpose, so that neither is taken for the other.
"""

import base64
import binascii
import hashlib
import hmac
import re
from typing import NamedTuple

from infra.errors import BadInput
from infra.secrets import Secrets

PARAMETER = "rl"
"""The name under which a token travels: query parameter, property, custom argument, metadata."""
FORM = re.compile(r"[0-9]{1,9}\.[A-Za-z0-9_-]{1,1900}\.[A-Za-z0-9_-]{22}")
"""What a token looks like, to tell it from other texts under that name; whose it is, its signature says."""

_SIGNATURE_BYTES = 16
_LONGEST = 2_000


class TokenContent(NamedTuple):
    """What a token says."""

    decision_id: str
    position: int | None


def make_token(secrets: Secrets, decision_id: str, position: int | None = None) -> str:
    """A token of URL-safe characters, signed with the key in use."""
    return sign(secrets, f"{position or 0}:{decision_id}".encode())


def read_token(secrets: Secrets, token: str) -> TokenContent:
    """What the token says, if one of our keys signed exactly it. Raises :class:`BadInput` otherwise."""
    content = verified(secrets, token, _LONGEST)
    if content is None:
        raise BadInput("The token was not signed by this installation or was changed; send it as /v1/rank returned it")
    position, _, decision_id = content.decode().partition(":")
    return TokenContent(decision_id, int(position) or None)


def sign(secrets: Secrets, content: bytes, purpose: str = "") -> str:
    """``content`` as URL-safe text that only this installation can have made, for this purpose."""
    key_id = max(secrets.tokens)
    signed = f"{key_id}.{_encode(content)}"
    return f"{signed}.{_signature(secrets.tokens[key_id], purpose, signed)}"


def verified(secrets: Secrets, text: str, longest: int, purpose: str = "") -> bytes | None:
    """The content of a text that :func:`sign` made for this purpose with one of our keys; None for any other."""
    signed, _, signature = text.rpartition(".")
    key_id, _, content = signed.partition(".")
    key = secrets.tokens.get(int(key_id)) if key_id.isdigit() and text.isascii() and len(text) <= longest else None
    if key is None or not hmac.compare_digest(_signature(key, purpose, signed).encode(), signature.encode()):
        return None
    return _decode(content)


def _signature(key: bytes, purpose: str, signed: str) -> str:
    return _encode(hmac.digest(key, f"{purpose}{signed}".encode(), hashlib.sha256)[:_SIGNATURE_BYTES])


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes | None:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
