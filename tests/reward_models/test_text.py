"""Text contrasts: what words are worth within a campaign."""

import msgspec
import numpy as np
import pytest

from reward_models.factors import NAMES
from reward_models.folds import deal
from reward_models.text import TextFit, fit_text, read_text_model, spread_between
from tests.reward_models.training import ADJECTIVES, NOUNS


def world(effect: float, seed: int = 1, campaigns: int = 100) -> tuple[TextFit, list[str], np.ndarray]:
    """100 campaigns of 4 texts; "secret" is worth ``effect``; noise has sd 0.3. Fit, texts, who has the word."""
    rng = np.random.default_rng(seed)
    words = [[*rng.choice(ADJECTIVES, 3), *rng.choice(NOUNS, 3)] for _ in range(4 * campaigns)]
    has_it = rng.random(len(words)) < 0.5
    texts = [" ".join([*found, "secret" if has else "common"]) for found, has in zip(words, has_it, strict=True)]
    campaign = np.repeat(np.arange(campaigns), 4)
    deviation = effect * has_it + rng.normal(0, 0.3, len(texts)) + np.repeat(rng.normal(0, 1, campaigns), 4)
    fitted = fit_text(texts, campaign, deviation, np.full(len(texts), 0.09), deal(campaign, 5, 1))
    assert fitted is not None
    return fitted, texts, has_it


def test_a_word_that_sells_is_found() -> None:
    """A planted effect of 0.5 between campaigns that differ more is recovered within a fifth."""
    fitted, _, _ = world(0.5)

    with_it, without = fitted.model.score(
        [f"old quiet local garden table story {word}" for word in ("secret", "common")]
    )

    assert pytest.approx(with_it - without, rel=0.2) == 0.5


def test_noise_teaches_next_to_nothing() -> None:
    """Without an effect held-out scores vary by far less than the noise they were fitted on."""
    fitted, _, _ = world(0.0)

    assert float(fitted.out_of_fold.std()) < 0.06


@pytest.mark.parametrize(("kept_together", "low", "high"), [(True, -0.15, 0.15), (False, 0.2, 1.0)])
def test_a_held_out_score_has_not_seen_its_own_outcome(kept_together: bool, low: float, high: float) -> None:
    """Texts reused in a second campaign, each with luck of its own: held-out scores do not know the luck when folds
    keep components together, and do when they do not."""
    rng = np.random.default_rng(5)
    has_it, luck = rng.random(400) < 0.5, rng.normal(0, 0.3, 400)
    texts = [f"q{i} r{i} s{i} {rng.choice(NOUNS)} {'secret' if has else 'common'}" for i, has in enumerate(has_it)]
    campaign = np.repeat(np.arange(200), 4)
    component = np.tile(campaign[:400], 2)
    folds = deal(component, 5, 1) if kept_together else deal(campaign, 5, 1)

    fitted = fit_text(texts * 2, campaign, np.tile(0.5 * has_it + luck, 2), np.full(800, 0.1), folds)

    assert fitted is not None
    assert low < float(np.corrcoef(fitted.out_of_fold - 0.5 * np.tile(has_it, 2), np.tile(luck, 2))[0, 1]) < high


def test_held_out_and_fitted_scores_are_on_one_scale() -> None:
    """Both regress on the target with a slope near 1: the booster meets at serving what it was trained on."""
    fitted, texts, has_it = world(0.5)

    held_out = np.polyfit(has_it.astype(float), fitted.out_of_fold, 1)[0]
    served = np.polyfit(has_it.astype(float), fitted.model.score(texts), 1)[0]

    assert held_out == pytest.approx(served, rel=0.15)
    np.testing.assert_allclose(fitted.fitted, fitted.model.score(texts), atol=1e-5)


def test_a_model_read_back_scores_the_same() -> None:
    """JSON holds every digit that counts."""
    fitted, texts, _ = world(0.5, campaigns=20)

    again = read_text_model(msgspec.json.decode(msgspec.json.encode(fitted.model.document())))

    assert fitted.model.score(texts).tolist() == again.score(texts).tolist()


def test_an_empty_text_has_no_score() -> None:
    """Contents without text are missing, not average."""
    fitted, _, _ = world(0.5, campaigns=20)

    assert np.isnan(fitted.model.score(["  ", "secret"])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("texts", "campaigns"),
    [
        (["one text"] * 40, [0] * 40),
        ([f"text {index}" for index in range(40)], list(range(40))),
        ([f"z{index}" for index in range(5)], [0] * 5),
    ],
)
def test_without_contrasts_there_is_no_text_model(texts: list[str], campaigns: list[int]) -> None:
    """One text only, one text per campaign, or a handful of texts: None."""
    count = len(texts)

    assert None is fit_text(texts, np.array(campaigns), np.arange(float(count)), np.ones(count), np.arange(count) % 5)


def test_the_spread_between_texts_is_told_from_sampling() -> None:
    """True deviations of sd 0.25 under noise of known variance, from small to four times as large: 0.25 comes out."""
    rng = np.random.default_rng(6)
    campaign, sampling = np.repeat(np.arange(2_000), 4), rng.uniform(0.01, 0.25, 8_000)
    level = np.repeat(rng.normal(0, 1, 2_000), 4)
    seen = level + rng.normal(0, 0.25, 8_000) + rng.normal(0, np.sqrt(sampling))

    assert spread_between(campaign, seen, sampling) == pytest.approx(0.25, abs=0.02)


def test_one_text_that_millions_saw_does_not_drown_the_rest() -> None:
    """Hundreds of texts teach a word's worth, although one text without it has nearly all exposures."""
    rng = np.random.default_rng(9)
    has_it = rng.random(400) < 0.5
    texts = [f"x{i} {rng.choice(NOUNS)} {'secret' if has else 'common'}" for i, has in enumerate(has_it)]
    campaign, sampling = np.repeat(np.arange(100), 4), np.full(400, 0.05)
    seen = 0.5 * has_it + rng.normal(0, np.sqrt(sampling))
    sampling[0], seen[0], texts[0] = 1e-7, 1.5, "x0 garden common"

    fitted = fit_text(texts, campaign, seen, sampling, deal(campaign, 5, 1))

    assert fitted is not None
    with_it, without = fitted.model.score(["garden secret", "garden common"])
    assert 0.3 < with_it - without < 0.7


def test_factors_and_terms_make_the_score() -> None:
    """The two parts add up; questions that sell show in the factor "question", not in the others alone."""
    rng = np.random.default_rng(11)
    asks = rng.random(400) < 0.5
    texts = [f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} x{i}{'?' if ask else '.'}" for i, ask in enumerate(asks)]
    campaign = np.repeat(np.arange(100), 4)
    fitted = fit_text(texts, campaign, 0.5 * asks + rng.normal(0, 0.2, 400), np.full(400, 0.04), deal(campaign, 5, 1))

    assert fitted is not None
    model, probe = fitted.model, ["plain garden y?", "plain garden y."]
    parts = model.by_factors(probe)
    np.testing.assert_allclose(model.by_terms(probe) + parts.sum(axis=1), model.score(probe))
    assert parts[0, NAMES.index("question")] > 0.02 > parts[1, NAMES.index("question")]


def test_a_text_model_with_other_factors_is_refused() -> None:
    """Weights that belong to factors this version does not measure would score nonsense."""
    fitted, _, _ = world(0.5, campaigns=20)
    document = fitted.model.document() | {"factors": NAMES[:-1]}

    with pytest.raises(ValueError, match="other copy factors"):
        read_text_model(document)
