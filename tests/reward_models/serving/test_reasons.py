"""Reasons of a decision: lines that add up to each stored score, whatever has been observed, then and since."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from reward_models.contextual import fit_contextual
from reward_models.serving.ranker import rank
from reward_models.serving.reasons import reasons
from reward_models.serving.recent import Layer
from reward_models.serving.snapshot import Snapshot, no_send
from tests.reward_models.serving.worlds import SECRETS, request, snapshot

COUNTS = {"c00": (1_000, 20), "c01": (1_000, 60)}


def world(clicks: int = 60) -> Snapshot:
    """Three contents with counts, of which the first is for the old."""
    generator = np.random.default_rng(2)
    ages, content = generator.integers(20, 70, 400), generator.integers(0, 4, 400)
    reward = np.where(content == 0, ages / 70.0, 0.4) + generator.normal(0, 0.05, 400)
    names = ["c00", "c01", "c02", "no_send"]
    layer = fit_contextual([{"age": int(age)} for age in ages], content, reward, names, [{}] * 4)
    assert layer is not None
    return replace(snapshot(3, counts=COUNTS | {"c01": (1_000, clicks)}), layers={"june": Layer("", 400, layer)})


def test_lines_add_up_and_tell_what_was_seen() -> None:
    """The campaign so far, the content so far and such customers lately sum to the score of each candidate."""
    made = rank(world(), request(context={"age": 65}), SECRETS, 500)
    found = reasons(made, None, world().campaigns["june"].contents, world())

    assert {one.content_id: one.score for one in made.candidates} == pytest.approx(
        {name: sum(line.effect for line in lines) for name, lines in found.items()}, abs=1e-12
    )
    assert {line.what for line in found["c00"]} >= {"this content so far", "such customers lately"}


def test_once_the_counts_have_moved_it_is_one_line() -> None:
    """A snapshot that says something else by now does not tell the parts, and the sum is still the stored score."""
    made = rank(world(), request(context={"age": 65}), SECRETS, 500)
    found = reasons(made, None, world().campaigns["june"].contents, world(clicks=90))

    for one in made.candidates:
        (line,) = found[one.content_id]
        assert (line.what, line.effect) == ("what was seen by then", one.score)


def test_the_chosen_and_the_best_are_explained() -> None:
    """Beyond the limit the chosen come first, then the best; what cost too much is left out."""
    made = rank(snapshot(9, counts=COUNTS), request(candidates=("c05", "c01", "c00", "c03")), SECRETS, 500)
    found = reasons(made, None, snapshot(9).campaigns["june"].contents, snapshot(9, counts=COUNTS), 2)

    assert made.chosen[0].content_id in found
    assert len(found) == 2


def test_without_scores_or_model_there_are_none() -> None:
    """A fallback was not scored, and a model whose files are gone explains nothing."""
    contents = {**snapshot(3).campaigns["june"].contents, "no_send": no_send("june")}
    fallback = rank(snapshot(3, loop={"killed": True}), request(), SECRETS, 500)
    assert reasons(fallback, None, contents, snapshot(3)) == {}

    made = rank(snapshot(3), request(), SECRETS, 500)
    lost = msgspec.structs.replace(made, model_version="mail-9")
    assert reasons(lost, None, contents, snapshot(3)) == {}
