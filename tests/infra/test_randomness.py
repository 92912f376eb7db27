"""Randomness: frozen for ever, because it is part of the record."""

import pytest

from infra.randomness import SAMPLER, Purpose, derive, digest, uniform

SECRET = bytes(range(32))


@pytest.mark.parametrize(
    ("purpose", "key", "index", "expected"),
    [
        ("choice", "decision-1", 0, 0.5506625452373575),
        ("choice", "decision-1", 1, 0.5922736338054435),
        ("posterior", "decision-1", 0, 0.46350380484571774),
        ("holdout", "u1:ann", 0, 0.2127459193474447),
        ("choice", "Zoë", 0, 0.6765485391359441),
    ],
)
def test_numbers_are_frozen(purpose: Purpose, key: str, index: int, expected: float) -> None:
    """Stored decisions replay only if the same arguments give the same number in every version."""
    assert SAMPLER == "hmac-sha256/1"
    assert uniform(SECRET, purpose, key, index) == expected


def test_digests_and_derived_secrets_are_frozen() -> None:
    """So do hashes and secrets derived from the master."""
    assert digest(SECRET, "unit", "ann").hex() == "3ef012a0d92a27e5636e26668285cdf445ff52645dc16ba6cd8242686b16b1e9"
    assert derive(SECRET, "loop:emails").hex() == "69a833ab274332a5e44005b6bf577393e6f59ecdde839971067e4a6cd825de89"


def test_numbers_are_uniform() -> None:
    """Over 20,000 keys every tenth of [0, 1) gets its share, within five standard errors."""
    counts = [0] * 10
    for key in range(20_000):
        counts[int(uniform(SECRET, "choice", str(key)) * 10)] += 1

    assert all(abs(count - 2_000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5 for count in counts)


def test_purposes_and_indices_do_not_share_numbers() -> None:
    """Who is held out says nothing about what is drawn."""
    numbers = {uniform(SECRET, purpose, "d", index) for purpose in ("holdout", "choice", "tie") for index in range(3)}
    assert len(numbers) == 9
