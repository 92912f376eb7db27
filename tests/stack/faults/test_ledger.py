"""The ledger of the fault suite survives whatever happens to whoever writes it."""

from pathlib import Path

from tests.stack.faults.ledger import Ledger, Sending, read_ledger
from tests.stack.faults.world import customers

FACTS = [fact for customer in customers(3, 4) for fact in customer.facts]
SENDINGS = [
    Sending("events", b"k", b"v", None, ignored=True, headers=(("h", b"1"),)),
    Sending("decisions", None, None, FACTS[0], labels=("bot",)),
]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Intents come back whole, with what was confirmed."""
    ledger = Ledger(tmp_path / "ledger")
    numbers = ledger.intend(SENDINGS)
    ledger.acknowledge([numbers[1]])

    assert [(line.sending, line.acknowledged) for line in ledger.lines()] == [(SENDINGS[0], False), (SENDINGS[1], True)]


def test_numbers_go_on_after_a_crash(tmp_path: Path) -> None:
    """A ledger opened again goes on where it stopped; a line that was cut off was never written."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.intend(SENDINGS)
    ledger.close()
    with ledger.path.open("ab") as file:
        file.write(b'{"intent": 2, "kind": "ev')

    again = Ledger(ledger.path)
    numbers = again.intend(SENDINGS)

    assert numbers == range(2, 4)
    assert [line.number for line in read_ledger(ledger.path)] == [0, 1, 2, 3]


def test_a_world_is_its_seed() -> None:
    """The same seed gives the same world, another seed another, and fewer customers the first of them."""
    assert list(customers(5, 20)) == list(customers(5, 20))
    assert list(customers(5, 20)) != list(customers(6, 20))
    assert list(customers(5, 20))[:7] == list(customers(5, 7))
