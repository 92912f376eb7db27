"""The suppressed in memory: the same answers as the entries themselves, whatever changed in which order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.people.suppressions import EVERY_LOOP, Entry
from reward_models.serving import suppressed
from reward_models.serving.suppressed import Suppressed

UNITS = [f"u1:{number:032x}" for number in range(12)] + ["u22:" + "f" * 32, "ä"]
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.sampled_from(UNITS),
        st.sampled_from([EVERY_LOOP, "mail", "push"]),
        st.sampled_from(["unsubscribe", "complaint"]),
        st.one_of(st.none(), st.integers(1, 3)),
        st.one_of(st.none(), st.integers(1, 3)),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ENTRIES, max_size=6), st.integers(0, 6))
def test_memory_says_what_the_entries_say(changes: list[list[Entry]], recent: int) -> None:
    """After any changes, sorted in or not, each customer has the reason of the last entries, and the state before is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppressed, "RECENT", recent)
        known: dict[tuple[str, str], Entry] = {}
        memory = Suppressed()
        for some in changes:
            before, memory = memory, memory.changed(some)
            answers = [before.reason("mail", [unit]) for unit in UNITS]
            assert answers == [reason(known, "mail", unit) for unit in UNITS]
            known |= {(one.scope, one.unit): one for one in some}
        for loop in ("mail", "push", "other"):
            assert [memory.reason(loop, [unit]) for unit in UNITS] == [reason(known, loop, unit) for unit in UNITS]


def reason(known: dict[tuple[str, str], Entry], loop: str, unit: str) -> str | None:
    """What the entries say."""
    found = (known.get((scope, unit)) for scope in (EVERY_LOOP, loop))
    return next((one.reason for one in found if one is not None and one.holds), None)


def test_a_customer_is_found_under_every_hash() -> None:
    """After the secret was rotated a customer is still suppressed under the hash of before."""
    memory = Suppressed().changed([Entry("u1:old", EVERY_LOOP, "unsubscribe", 1, None)])

    assert memory.reason("mail", ["u2:new", "u1:old"]) == "unsubscribe"
    assert memory.reason("mail", ["u2:new"]) is None
