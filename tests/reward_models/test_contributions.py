"""Predictions as sums in words."""

from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.ids import uuid7
from ingestion.events import Content
from reward_models.anatomy import trim
from reward_models.boosted import RewardModel, fit
from reward_models.contributions import MOST, Line, contributions, strongest
from reward_models.explanation import tree_parts
from reward_models.features import assemble, context_rows
from reward_models.serving.snapshot import no_send
from tests.reward_models.matrices import booster, drawn_matrix
from tests.reward_models.serving.models import trained
from tests.reward_models.training import SMALL, copy, worded

TEXTS = st.text(alphabet="abc SECRET secret?!9% {{name}} now free", max_size=40)
CONTENTS = st.lists(
    st.builds(
        lambda text, campaign, features: Content(
            content_id=str(uuid7(1)), campaign_id=campaign, slots={"subject": text} if text else {}, features=features
        ),
        TEXTS,
        st.sampled_from(["c0", "past0", "unknown"]),
        st.dictionaries(
            st.sampled_from(["tone", "price"]), st.one_of(st.text(max_size=3), st.floats(-9, 9)), max_size=2
        ),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def models() -> list[RewardModel]:
    """One of words, one of contexts."""
    return [fit(worded(), SMALL), trained()]


@settings(max_examples=40, deadline=None)
@given(
    which=st.integers(0, 1),
    contents=CONTENTS,
    context=st.dictionaries(st.sampled_from(["age", "city"]), st.one_of(st.integers(0, 90), st.none()), max_size=2),
    most=st.integers(0, 40),
)
def test_lines_add_up_to_the_prediction(
    models: list[RewardModel], which: int, contents: list[Content], context: dict[str, Any], most: int
) -> None:
    """Whatever the text, the context and the number of lines, the lines of a content sum to its prediction."""
    model, contents = models[which], [*contents, no_send("c0")]
    expected = model.score(context, model.encode(contents))
    found = contributions(model, context, contents, most)

    assert [sum(line.effect for line in lines) for lines in found] == pytest.approx(expected.tolist(), abs=1e-9, rel=0)
    assert max(len(lines) for lines in found) <= most + 2


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    columns=st.integers(2, 6),
    categorical=st.integers(0, 2),
    leaves=st.sampled_from([3, 31, 64]),
)
def test_parts_of_trees_add_up(seed: int, columns: int, categorical: int, leaves: int) -> None:
    """Over random boosters, missing values and categories included, the parts of the columns and the average sum to what
    LightGBM predicts."""
    random = np.random.default_rng(seed)
    X = drawn_matrix(random, columns, categorical, 0.2)
    model = lgb.Booster(model_str=trim(booster(random, X, categorical, num_leaves=leaves).model_to_string()))
    parts = np.asarray(model.predict(X[:40], pred_contrib=True, num_threads=1))
    size = np.abs(parts).sum(axis=1)

    assert (np.abs(parts.sum(axis=1) - model.predict(X[:40])) <= 1e-9 * np.maximum(size, 1.0)).all()


def test_what_decides_is_named(models: list[RewardModel]) -> None:
    """The word that sells is in the wording's line or in a factor, older customers like questions, and each line has the
    kind a marketer looks for."""
    words, _ = contributions(models[0], {}, [copy("a", "Old secret garden"), copy("b", "Old common garden")], 40)
    old, young = (contributions(models[1], {"age": age}, [asking()], 40)[0] for age in (65, 25))

    gain = sum(line.effect for line in words if line.kind in ("wording", "factor"))
    assert gain > 0.1 * abs(words[0].effect)
    assert words[0].kind == "campaign"
    assert [line.kind for line in old if line.what == "age: 65"] == ["context"]
    assert effect(old, "question") > effect(young, "question")


def asking() -> Content:
    return Content(content_id="q", campaign_id="past0", slots={"subject": "Line 3?"})


def effect(lines: list[Line], what: str) -> float:
    return sum(line.effect for line in lines if line.what == what)


def test_the_rest_is_one_line() -> None:
    """The strongest come first; what is beyond them is added up, and nothing is lost."""
    lines = [Line(str(number), "factor", number * (-1) ** number) for number in range(6)]

    assert strongest(lines, 2) == [Line("5", "factor", -5), Line("4", "factor", 4), Line("everything else", "rest", -2)]
    assert strongest(lines, 6)[-1] == Line("0", "factor", 0)
    assert MOST >= 5


def test_parts_belong_to_the_columns(models: list[RewardModel]) -> None:
    """A column's part is 0 where no tree looks at it."""
    model = models[1]
    encoded = model.encode([asking()])
    used = {index for index, times in enumerate(model.booster.feature_importance()) if times}
    parts = tree_parts(model, {"age": 30}, encoded)[0]

    assert {index for index, part in enumerate(parts[:-1]) if part} <= used
    row = assemble(context_rows(model.schema, [{"age": 30}], [1])[0], encoded.rows)
    assert len(parts) == row.shape[1] + 1
