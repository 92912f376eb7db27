"""The text of a booster is read strictly before LightGBM sees it."""

import lightgbm as lgb
import numpy as np
import pytest

from infra.errors import ModelRefused
from ingestion.loops import ModelSettings
from reward_models.anatomy import END, check_anatomy, trim
from reward_models.boosted import RewardModel, fit
from tests.reward_models.training import SMALL, copy, training_set, worded


@pytest.fixture(scope="module")
def model() -> RewardModel:
    """A booster with numeric and categorical splits."""
    rng = np.random.default_rng(0)
    city = rng.integers(0, 40, 3_000)
    training = training_set(
        (copy("a", "x"), copy("b", "y")),
        content=rng.integers(0, 2, 3_000).tolist(),
        contexts=[{"city": f"c{c}", "visits": float(rng.normal())} for c in city],
        reward=(rng.random(3_000) < np.where(city % 3 == 0, 0.5, 0.1)).astype(float).tolist(),
    )
    return fit(training, SMALL)


def test_what_lightgbm_writes_is_accepted(model: RewardModel) -> None:
    """Boosters with categories, with texts, and without a single split pass."""
    constant = fit(training_set([copy("a", "A"), copy("b", "B")], content=[0, 1], reward=[1.0, 0.0]), ModelSettings())

    for found in (model, fit(worded(campaigns=30), SMALL), constant):
        check_anatomy(found.booster_text, len(found.schema.columns))
    assert "cat_threshold" in model.booster_text
    assert "num_leaves=1\n" in constant.booster_text


def test_a_split_between_missing_and_known_is_accepted() -> None:
    """Where only whether a value is known tells something, LightGBM writes an infinite threshold; other lists have none."""
    rng = np.random.default_rng(2)
    known = rng.random(2_000) < 0.5
    training = training_set(
        (copy("a", "x"), copy("b", "y")),
        content=rng.integers(0, 2, 2_000).tolist(),
        contexts=[{"visits": float(rng.normal())} if one else {} for one in known],
        reward=(rng.random(2_000) < np.where(known, 0.5, 0.1)).astype(float).tolist(),
    )
    found = fit(training, SMALL)
    columns = len(found.schema.columns)

    assert "\nthreshold=inf" in found.booster_text
    check_anatomy(found.booster_text, columns)
    value = next(line for line in found.booster_text.split("\n") if line.startswith("leaf_value="))
    damaged = found.booster_text.replace(value, f"leaf_value=inf {value.partition(' ')[2]}")
    sizes = next(line for line in damaged.split("\n") if line.startswith("tree_sizes="))
    shorter = int(sizes.split("=")[1].split(" ")[0]) - len(found.booster_text) + len(damaged)
    with pytest.raises(ModelRefused, match="cannot be read"):
        check_anatomy(damaged.replace(sizes, f"tree_sizes={shorter} {sizes.partition(' ')[2]}"), columns)


def test_trimming_changes_no_score() -> None:
    """A booster read back from its trees alone predicts the same numbers."""
    X = np.random.default_rng(1).normal(size=(500, 3))
    booster = lgb.train({"verbosity": -1, "num_threads": 1}, lgb.Dataset(X, X[:, 0] * X[:, 1]), 10)

    trimmed = trim(booster.model_to_string())

    assert trimmed.endswith(END)
    np.testing.assert_array_equal(lgb.Booster(model_str=trimmed).predict(X), booster.predict(X))


@pytest.mark.parametrize(
    ("line", "change", "reason"),
    [
        ("num_leaves", lambda found: [str(int(found[0]) + 1)], "lists of other lengths"),
        ("left_child", lambda found: ["9999", *found[1:]], "is not a tree"),
        ("left_child", lambda found: ["0", *found[1:]], "is not a tree"),
        ("right_child", lambda found: [found[1], found[0], *found[2:]], "is not a tree"),
        ("split_feature", lambda found: ["99", *found[1:]], "splits on air"),
        ("split_feature", lambda found: ["-1", *found[1:]], "splits on air"),
        ("decision_type", lambda found: ["77", *found[1:]], "decides on air"),
        ("cat_boundaries", lambda found: [*found[:-1], "999"], "broken categories"),
        ("cat_threshold", lambda found: ["9999999999", *found[1:]], "broken categories"),
        ("num_cat", lambda found: [str(int(found[0]) + 1)], "other categories"),
        ("num_cat", lambda found: ["0"], "other lines"),
        ("leaf_value", lambda found: ["nan", *found[1:]], "cannot be read"),
        ("leaf_value", lambda found: ["1e999", *found[1:]], "not finite"),
        ("leaf_value", lambda found: found[1:], "lists of other lengths"),
        ("leaf_count", lambda found: ["1.5", *found[1:]], "not a whole number"),
        ("is_linear", lambda found: ["1"], "of another kind"),
        ("max_feature_idx", lambda found: ["7"], "its head"),
        ("feature_infos", lambda found: found[1:], "features are not those"),
        ("tree_sizes", lambda found: ["1", *found[1:]], "not as long as it says"),
    ],
)
def test_what_would_lead_the_parser_astray_is_refused(
    model: RewardModel, line: str, change: object, reason: str
) -> None:
    """A count, index or list that does not fit the others is named, also where the sizes of trees are made to fit."""
    damaged = with_sizes(changed(model.booster_text, line, change), line)

    with pytest.raises(ModelRefused, match=reason):
        check_anatomy(damaged, len(model.schema.columns))


def test_every_cut_and_every_zero_page_is_refused(model: RewardModel) -> None:
    """Wherever the text is cut or overwritten with zeros, it is not parsed."""
    text = model.booster_text

    for place in range(0, len(text) - 1, 97):
        for damaged in (text[:place], text[:place] + "\0" * 64 + text[place + 64 :]):
            with pytest.raises(ModelRefused):
                check_anatomy(damaged, len(model.schema.columns))


def changed(text: str, line: str, change: object) -> str:
    """The text with the first line of that name changed."""
    lines = text.split("\n")
    at = next(index for index, found in enumerate(lines) if found.startswith(line + "="))
    lines[at] = f"{line}=" + " ".join(change(lines[at].partition("=")[2].split(" ")))  # type: ignore[operator]
    return "\n".join(lines)


def with_sizes(text: str, line: str) -> str:
    """The text with ``tree_sizes`` made to fit its trees, unless that is the line in question."""
    if line == "tree_sizes":
        return text
    trees = text[text.index("Tree=0") : text.index(END)].split("Tree=")[1:]
    return changed(text, "tree_sizes", lambda _: [str(len("Tree=" + tree)) for tree in trees])
