"""The decision token."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import BadInput
from infra.secrets import Secrets
from ingestion.tokens import TokenContent, make_token, read_token

SECRETS = Secrets(b"m" * 32, {1: b"u" * 32}, {1: b"a" * 32, 2: b"b" * 32})
IDS = st.text(string.ascii_letters + string.digits + "._:@-", min_size=1, max_size=256)
POSITIONS = st.none() | st.integers(1, 500)
URL_SAFE = set(string.ascii_letters + string.digits + "-_.")


@given(IDS, POSITIONS)
def test_round_trip(decision_id: str, position: int | None) -> None:
    """What is put into a token is read from it, and the token needs no escaping in a link."""
    token = make_token(SECRETS, decision_id, position)

    assert TokenContent(decision_id, position) == read_token(SECRETS, token)
    assert set(token) <= URL_SAFE


@settings(max_examples=30, deadline=None)
@given(IDS, POSITIONS, st.sampled_from("A_9.-é\x00"))
def test_every_changed_character_is_refused(decision_id: str, position: int | None, other: str) -> None:
    """A token with any one character changed is refused, wherever it is."""
    token = make_token(SECRETS, decision_id, position)

    for place, character in enumerate(token):
        if character != other:
            with pytest.raises(BadInput):
                read_token(SECRETS, token[:place] + other + token[place + 1 :])


def test_every_bit_of_the_last_character_counts() -> None:
    """The bits of the last base64 character that carry no data are covered too."""
    token = make_token(SECRETS, "d1")
    alphabet = string.ascii_letters + string.digits + "-_"

    accepted = [last for last in alphabet if _is_accepted(token[:-1] + last)]

    assert [token[-1]] == accepted


@pytest.mark.parametrize("cut", [0, 1, 5, -1, -5])
def test_part_of_a_token_is_refused(cut: int) -> None:
    """A truncated token is refused."""
    assert not _is_accepted(make_token(SECRETS, "d1")[:cut])


@given(st.text(max_size=600))
def test_any_text_is_refused_without_a_crash(text: str) -> None:
    """Text that we did not sign is refused with a sentence, never with another error."""
    assert not _is_accepted(text)


def test_key_rotation() -> None:
    """A token of the key before is still read; the newest key signs; an unknown key is refused."""
    before = Secrets(SECRETS.master, SECRETS.units, {1: b"a" * 32})
    strange = Secrets(SECRETS.master, SECRETS.units, {3: b"c" * 32})

    assert TokenContent("d1", None) == read_token(SECRETS, make_token(before, "d1"))
    assert make_token(SECRETS, "d1").startswith("2.")
    assert not _is_accepted(make_token(strange, "d1"))


def _is_accepted(token: str) -> bool:
    try:
        read_token(SECRETS, token)
    except BadInput:
        return False
    return True
