"""Folds keep together what belongs together."""

import numpy as np

from reward_models.folds import codes_of, codes_of_texts, components, deal


def test_rows_sharing_a_campaign_or_a_text_are_one_component() -> None:
    """Links are followed through both: a-x, b-x and b-y are one component, c-z another."""
    assert components(["a", "b", "b", "c"], ["x", "x", "y", "z"]).tolist() == [0, 0, 0, 1]


def test_a_group_is_never_split_and_folds_are_even() -> None:
    """Every group is in one fold, and no fold is larger than another by more than the largest group."""
    groups = codes_of(np.random.default_rng(0).integers(0, 60, 1_000).tolist())

    folds = deal(groups, 5, seed=3)

    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    assert np.ptp(np.bincount(folds)) <= np.bincount(groups).max()


def test_the_same_seed_deals_the_same_folds() -> None:
    """Folds are a function of groups and seed; another seed deals others."""
    groups = np.arange(50)

    assert deal(groups, 5, 1).tolist() == deal(groups, 5, 1).tolist()
    assert deal(groups, 5, 1).tolist() != deal(groups, 5, 2).tolist()


def test_nothing_has_no_folds() -> None:
    """No rows: no components and no folds."""
    assert (components([], []).tolist(), deal(np.zeros(0, dtype=np.int64), 5, 1).tolist()) == ([], [])


def test_groups_go_one_by_one_to_the_fold_that_holds_least() -> None:
    """Dealing all groups of one size together gives what dealing one at a time gives."""
    draw = np.random.default_rng(0)
    for groups in (draw.integers(0, 500, 900), draw.zipf(1.5, 400) % 300, np.arange(7)):
        sizes, load, expected = np.bincount(groups), np.zeros(5), {}
        shuffled = np.random.default_rng(3).permutation(len(sizes))
        for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            expected[group] = int(np.argmin(load))
            load[expected[group]] += sizes[group]

        assert [expected[group] for group in groups] == deal(groups, 5, seed=3).tolist()


def test_texts_are_numbered_as_anything_is() -> None:
    """In order of first appearance, many or none."""
    values = [f"u{number}" for number in np.random.default_rng(2).integers(0, 40, 300)]

    assert codes_of_texts(values).tolist() == codes_of(values).tolist()
    assert codes_of_texts([]).tolist() == []
