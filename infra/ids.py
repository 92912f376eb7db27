"""UUID version 7: 48 bits of milliseconds, then randomness, so that new ids sort after old ones (RFC 9562, 5.7)."""

import os
import uuid


def uuid7(now: int) -> str:
    """A new id made at ``now`` (microseconds)."""
    milliseconds = (now // 1_000) & ((1 << 48) - 1)
    noise = int.from_bytes(os.urandom(10), "big")
    high, low = (noise >> 62) & 0xFFF, noise & ((1 << 62) - 1)
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low))
