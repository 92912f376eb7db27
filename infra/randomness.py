"""Our own frozen randomness: HMAC-SHA256 of (secret, purpose, key, index).

No library's random stream is used for anything that is stored, because a library may change it; this one is
part of the record. Decisions store ``SAMPLER`` so that a replay knows which version drew them (invariant 8).
"""

import hashlib
import hmac
from functools import lru_cache
from typing import Literal

SAMPLER = "hmac-sha256/1"

Purpose = Literal["holdout", "posterior", "choice", "tie"]
"""Separate purposes never share a number: who is held out says nothing about what is drawn."""


def digest(secret: bytes, purpose: str, key: str, index: int = 0) -> bytes:
    """32 bytes that only the holder of ``secret`` can predict."""
    message = f"{purpose}\x00{index}\x00{key}".encode()
    return hmac.digest(secret, message, hashlib.sha256)


def uniform(secret: bytes, purpose: Purpose, key: str, index: int = 0) -> float:
    """A number in [0, 1) with 53 random bits, the same for the same arguments for ever."""
    return (int.from_bytes(digest(secret, purpose, key, index)[:8], "big") >> 11) / float(1 << 53)


@lru_cache(1_024)
def derive(master: bytes, name: str) -> bytes:
    """A secret for one loop or purpose, derived from the installation's master secret."""
    return hmac.digest(master, f"rewardloop\x00{name}".encode(), hashlib.sha256)
