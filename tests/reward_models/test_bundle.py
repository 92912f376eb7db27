"""Bundles: what a model is on disk."""

from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from infra.errors import ModelRefused
from reward_models import bundle
from reward_models.aging import Aging
from reward_models.boosted import RewardModel, fit
from reward_models.bundle import FORMAT, GOLDEN, MANIFEST, MODEL, TEXT, digest, pack, read, unpack, write
from reward_models.delays import Delays, Law
from reward_models.golden import cover_leaves
from tests.reward_models.training import SMALL, copy, targeted, worded


@pytest.fixture(scope="module")
def model() -> RewardModel:
    """A model of contexts and contents."""
    return fit(targeted(1_500), SMALL)


def test_a_bundle_read_back_scores_the_same(model: RewardModel, tmp_path: Path) -> None:
    """Packed, written, read and unpacked: every score is the same to 1e-9."""
    training = targeted(500, seed=9)

    write(pack(model, cutoff=5), tmp_path / "emails-1")
    again = unpack(read(tmp_path / "emails-1"))

    expected = model.grid(training.contexts, training.contents)
    np.testing.assert_allclose(again.grid(training.contexts, training.contents), expected, atol=1e-9, rtol=0)


def test_a_text_model_comes_along() -> None:
    """Texts nobody has seen score the same to 1e-9 after a round trip, and so does their spread."""
    model = fit(worded(campaigns=40), SMALL)
    packed = pack(model, cutoff=5)
    new = [copy("n1", "a secret table", "new"), copy("n2", "a common table", "c1")]

    again = unpack(packed)

    assert set(packed) == {MODEL, MANIFEST, TEXT, GOLDEN}
    np.testing.assert_allclose(again.grid([{}], new), model.grid([{}], new), atol=1e-9, rtol=0)
    assert again.spread(new).tolist() == model.spread(new).tolist()


def test_the_same_training_gives_the_same_digest(model: RewardModel) -> None:
    """A refit on the same set packs to the same bytes."""
    assert digest(pack(fit(targeted(1_500), SMALL), cutoff=5)) == digest(pack(model, cutoff=5))


def test_the_digest_is_of_names_and_contents() -> None:
    """Another byte, another name, or a byte that moves from one file to the next: another digest."""
    base = {"a": b"12", "b": b"3"}
    others = [{"a": b"12", "b": b"4"}, {"a": b"12", "c": b"3"}, {"a": b"1", "b": b"23"}, {"a": b"12"}]

    assert digest(base) == digest(dict(reversed(base.items())))
    assert len({digest(other) for other in [base, *others]}) == 5


def test_the_manifest_says_where_the_model_comes_from(model: RewardModel) -> None:
    """as_of, cutoff, training digest, schema hash, aging of counts and library versions are in it."""
    aging = Aging(16.0, Delays({"click": Law((0.0, 1e6), (0.5, 1.0))}))
    packed = pack(replace(model, aging=aging), cutoff=5)
    found = bundle.manifest(packed)

    assert (found.as_of, found.cutoff, found.loop_id) == (7, 5, "emails")
    assert found.training_digest == targeted(1_500).digest
    assert found.schema_hash == model.schema.hash
    assert (found.aging, unpack(packed).aging) == (aging, aging)
    assert found.versions["lightgbm"] == lgb.__version__


def test_golden_rows_reach_every_leaf_that_training_reaches() -> None:
    """A few rows fall into every leaf of every tree that any training row falls into."""
    matrix = np.random.default_rng(0).normal(size=(3_000, 4))
    data = lgb.Dataset(matrix, matrix[:, 0] * matrix[:, 1])
    booster = lgb.train({"num_leaves": 15, "verbosity": -1, "num_threads": 1}, data, 40)

    picked = cover_leaves(booster, matrix, seed=1)

    def reached(rows: np.ndarray) -> set[tuple[int, int]]:
        leaves = booster.predict(rows, pred_leaf=True)
        return {(tree, leaf) for row in leaves for tree, leaf in enumerate(row.tolist())}

    assert reached(matrix[picked]) == reached(matrix)
    assert len(picked) < 400


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails half-way there is neither a folder nor a draft; a folder that is there stays as it is."""
    bundles = {"a": b"1", "b": b"2"}
    real, calls = bundle._write_through, []

    def fails_second(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError("disk full")
        real(path, content)

    monkeypatch.setattr(bundle, "_write_through", fails_second)
    with pytest.raises(OSError, match="disk full"):
        write(bundles, tmp_path / "v1")
    assert list(tmp_path.iterdir()) == []

    write(bundles, tmp_path / "v1")
    write({"a": b"other"}, tmp_path / "v1")
    assert read(tmp_path / "v1") == bundles
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_a_bundle_that_is_not_one_is_refused(model: RewardModel, tmp_path: Path) -> None:
    """A missing folder, a missing file, JSON cut short, another format: each refused with the reason."""
    packed = pack(model, cutoff=5)
    other_format = packed[MANIFEST].replace(f'"format":{FORMAT}'.encode(), b'"format":99')

    for broken in (
        {name: content for name, content in packed.items() if name != MODEL},
        {**packed, MANIFEST: packed[MANIFEST][:50]},
        {**packed, GOLDEN: b"[]"},
        {**packed, MANIFEST: other_format},
        {**packed, MANIFEST: packed[MANIFEST].replace(b"context.age", b"context.agf")},
    ):
        with pytest.raises(ModelRefused):
            unpack(broken)
    with pytest.raises(ModelRefused, match="cannot be read"):
        read(tmp_path / "nowhere")
