"""What a run may spend, in money and in tokens: never more, whatever happens to a call.

Before a call the most that it can cost is reserved; without room for it there is no call. Afterwards it is settled for
what the server says it used, released where the server says that it did nothing, and left as it was reserved where nobody
knows (a time-out, a broken connection): an answer that was lost may have been charged.

The most a call can read is one token per byte of its messages and a few per message; the most it can write is its
``max_tokens``. Amounts are integer micros of the currency that the prices are in: a price of 0.15 per million tokens is
0.15 micros per token; amounts are rounded up.
"""

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_PER_MESSAGE = 16
"""Tokens that a chat's own marks may take, per message."""


class Tokens(NamedTuple):
    """Read and written."""

    read: int = 0
    written: int = 0

    def __add__(self, other: object) -> "Tokens":
        if not isinstance(other, Tokens):
            return NotImplemented
        return Tokens(self.read + other.read, self.written + other.written)

    @property
    def total(self) -> int:
        """Both together."""
        return self.read + self.written


NO_TOKENS = Tokens()


@dataclass(frozen=True)
class Price:
    """Money per million tokens."""

    read: float = 0.0
    written: float = 0.0
    currency: str = "USD"

    def micros(self, tokens: Tokens) -> int:
        """What so many tokens cost, rounded up."""
        return math.ceil(round(tokens.read * self.read + tokens.written * self.written, 6))


class Budget:
    """A cap on money and on tokens. Safe to share between threads and tasks."""

    def __init__(self, most_micros: int, most_tokens: int, price: Price) -> None:
        self.price = price
        self._most_micros, self._most_tokens = most_micros, most_tokens
        self._lock = threading.Lock()
        self._micros = self._tokens = 0

    @property
    def micros(self) -> int:
        """Spent or reserved so far."""
        return self._micros

    @property
    def tokens(self) -> int:
        """Used or reserved so far."""
        return self._tokens

    def reserve(self, most: Tokens) -> bool:
        """Take the most a call can cost out of the budget. False: there is not that much left, and nothing is taken."""
        micros = self.price.micros(most)
        with self._lock:
            if self._micros + micros > self._most_micros or self._tokens + most.total > self._most_tokens:
                return False
            self._micros += micros
            self._tokens += most.total
        return True

    def settle(self, reserved: Tokens, used: Tokens) -> None:
        """Put back what a call did not use of what was reserved for it."""
        with self._lock:
            self._micros += self.price.micros(used) - self.price.micros(reserved)
            self._tokens += used.total - reserved.total

    def release(self, reserved: Tokens) -> None:
        """Put all of it back: the server says that it did nothing."""
        self.settle(reserved, NO_TOKENS)


def most_of(messages: Iterable[Mapping[str, str]], max_tokens: int) -> Tokens:
    """The most that a call can use: no token is less than a byte."""
    sizes = [sum(len(part.encode()) for part in message.values()) + _PER_MESSAGE for message in messages]
    return Tokens(sum(sizes), max_tokens)
