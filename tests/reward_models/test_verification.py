"""Verified loading: whatever is in the files, this process survives and a wrong model is refused."""

import faulthandler
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from infra.errors import ModelRefused
from reward_models import bundle as bundles
from reward_models import registry, verification
from reward_models.boosted import RewardModel, fit
from reward_models.bundle import GOLDEN, MODEL, Bundle, digest, pack, read, unpack, write
from reward_models.registry import load_verified
from reward_models.verification import Verifier, check_golden
from tests.reward_models.training import SMALL, targeted


@pytest.fixture(scope="module")
def model() -> RewardModel:
    """A small model."""
    return fit(targeted(1_500), SMALL)


@pytest.fixture(scope="module")
def packed(model: RewardModel) -> Bundle:
    """Its bundle."""
    return pack(model, cutoff=5)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    """One sacrificial process for all tests here."""
    with Verifier(seconds=20.0) as running:
        yield running


def damaged(packed: Bundle, count: int) -> list[Bundle]:
    """Bundles whose booster was cut short, got a flipped bit, a zero page or another digit, in turn."""
    rng = np.random.default_rng(11)
    text = packed[MODEL]
    digits = [place for place, byte in enumerate(text) if chr(byte).isdigit()]

    def one(kind: int) -> bytes:
        place = int(rng.integers(len(text)))
        if kind == 0:
            return text[:place]
        if kind == 1:
            return text[:place] + bytes([text[place] ^ (1 << int(rng.integers(8)))]) + text[place + 1 :]
        if kind == 2:
            return text[:place] + bytes(min(4_096, len(text) - place)) + text[place + 4_096 :]
        place = int(rng.choice(digits))
        return text[:place] + str((int(chr(text[place])) + 1) % 10).encode() + text[place + 1 :]

    return [{**packed, MODEL: one(number % 4)} for number in range(count)]


def test_a_good_bundle_loads(packed: Bundle, model: RewardModel, tmp_path: Path) -> None:
    """With its digest, a bundle from disk scores as the model that was packed."""
    training = targeted(100, seed=3)
    write(packed, tmp_path / "v")

    found = load_verified(tmp_path / "v", digest(packed))

    expected = model.grid(training.contexts, training.contents)
    np.testing.assert_allclose(found.grid(training.contexts, training.contents), expected, atol=1e-9, rtol=0)


def test_another_digest_is_refused_before_parsing(packed: Bundle, tmp_path: Path) -> None:
    """Each of 200 damaged bundles is refused by its digest; nothing is parsed and no process is started."""
    with (
        patch.object(registry, "Verifier", side_effect=AssertionError("started a process")),
        patch.object(bundles, "unpack", side_effect=AssertionError("parsed")),
    ):
        for number, broken in enumerate(damaged(packed, 200)):
            write(broken, tmp_path / str(number))
            with pytest.raises(ModelRefused, match="digest"):
                load_verified(tmp_path / str(number), digest(packed))


@pytest.mark.slow
def test_damaged_bundles_with_their_own_digest_change_nothing_or_are_refused(
    packed: Bundle, model: RewardModel, verifier: Verifier, tmp_path: Path
) -> None:
    """200 damaged bundles under a digest that fits: each is refused, or gives the golden scores to 1e-9."""
    refused = loaded = 0
    for number, broken in enumerate(damaged(packed, 200)):
        write(broken, tmp_path / str(number))
        try:
            found = load_verified(tmp_path / str(number), digest(broken), verifier)
        except ModelRefused:
            refused += 1
        else:
            np.testing.assert_allclose(found.relative(model.golden.matrix), model.golden.scores, atol=1e-9, rtol=0)
            loaded += 1

    assert refused + loaded == 200
    assert refused > 100


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        (lambda _: os.kill(os.getpid(), signal.SIGSEGV), "killed the process that tried \\(SIGSEGV\\)"),
        (lambda _: os.abort(), "killed the process that tried \\(SIGABRT\\)"),
        (lambda _: os._exit(3), "killed the process that tried \\(exit 3\\)"),
        (lambda _: time.sleep(60), "did not end within 0.5 seconds"),
        (lambda _: 1 / 0, "cannot be parsed: ZeroDivisionError"),
        (lambda _: bytearray(8 << 30), "cannot be parsed: MemoryError"),
    ],
)
def test_whatever_parsing_does_it_is_done_elsewhere(
    packed: Bundle, fate: Callable[[Bundle], object], reason: str
) -> None:
    """A parse that crashes, aborts, exits, hangs, raises or eats all memory ends in a reason, not in this process."""

    def end_quietly(bundle: Bundle) -> object:
        faulthandler.disable()  # the child inherits pytest's, whose report of a meant crash reads like a real one
        return fate(bundle)

    with patch("reward_models.bundle.unpack", side_effect=end_quietly):
        found = verification._in_a_child(packed, 0.5 if "0.5" in reason else 20.0)

    assert re.search(reason, found)


def test_a_refusal_does_not_end_the_verifier(packed: Bundle, verifier: Verifier) -> None:
    """After a truncated booster the same process accepts a good bundle."""
    with pytest.raises(ModelRefused, match="cut short"):
        verifier.check({**packed, MODEL: packed[MODEL][: len(packed[MODEL]) // 2]})

    verifier.check(packed)


def test_a_leaf_value_that_changed_is_refused(packed: Bundle, verifier: Verifier) -> None:
    """Another digit in one leaf is a readable model with wrong scores: the golden rows find it."""
    place = packed[MODEL].index(b"leaf_value=") + len(b"leaf_value=-0.0")
    other = b"1" if packed[MODEL][place : place + 1] != b"1" else b"2"

    with pytest.raises(ModelRefused, match="scores it was packed with"):
        verifier.check({**packed, MODEL: packed[MODEL][:place] + other + packed[MODEL][place + 1 :]})


def test_a_bundle_without_golden_rows_is_refused(packed: Bundle) -> None:
    """What cannot be checked is not used."""
    with pytest.raises(ModelRefused, match="no golden rows"):
        check_golden(unpack({**packed, GOLDEN: b'{"rows":[],"scores":[],"examples":[]}'}))


def test_a_verifier_that_was_killed_is_started_again(packed: Bundle) -> None:
    """When the sacrificial process itself is gone, the next check starts another."""
    with Verifier() as running:
        running.check(packed)
        process = running._process
        assert process is not None
        process.kill()
        process.wait()

        running.check(packed)


def test_reading_what_was_written_is_the_bundle(packed: Bundle, tmp_path: Path) -> None:
    """The digest of the files on disk is the digest taken from memory."""
    write(packed, tmp_path / "v")

    assert digest(read(tmp_path / "v")) == digest(packed)


def test_the_parent_needs_no_lightgbm() -> None:
    """A command can start the verifying process before it imports LightGBM itself, which takes both seconds."""
    program = "import sys, reward_models.verification; print('lightgbm' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "False"
