"""Telling the preferred of two texts, and reading pairs from any table."""

from pathlib import Path

import numpy as np
import pytest

from infra.errors import BadInput, EstimateRefused
from reward_models.preferences.evaluation import LONGER, OURS, WORDS, evaluate
from reward_models.preferences.pairs import Columns, Pairs, groups_of, read_pairs
from reward_models.preferences.texts import Seen, fit_pairs
from tests.benchmarks.judges import chat_answers


def test_the_stack_beats_the_longer_one() -> None:
    """Where length is only part of the taste, unseen questions are judged better than by length, and than by words alone."""
    found = evaluate(chat_answers(260, 1), 0)
    by_length, by_words = found.judged[LONGER].ahead, found.judged[WORDS].ahead

    assert by_length is not None
    assert by_words is not None
    assert by_length.low > 0
    assert by_words.value > 0
    assert found.judged[OURS].accuracy.value > 0.7


def test_a_pair_the_other_way_round_is_the_other_answer() -> None:
    """Every member is antisymmetric: whoever stands first has no advantage."""
    pairs = chat_answers(80, 2)
    turned = Pairs(pairs.second, pairs.first, ~pairs.first_won, pairs.group, pairs.prompts)
    model = fit_pairs(Seen.of(pairs), pairs.first_won, pairs.group)

    assert np.allclose(model.margins(Seen.of(pairs)), -model.margins(Seen.of(turned)), atol=1e-8)
    assert (model.weights >= 0).all()


def test_pairs_that_share_a_text_are_never_split() -> None:
    """Texts link pairs whatever their side, case and spaces; so do names."""
    assert groups_of(["a", "c", "x", "q"], ["b", "A ", "y", "r"]).tolist() == [0, 0, 1, 2]
    assert groups_of(["a", "c"], ["b", "d"], ["post", "post"]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("winner", "first"),
    [("a", True), ("B", False), ("1", True), ("2", False), ("model_b", False), ("one text", True), ("other", False)],
)
def test_winners_are_understood(tmp_path: Path, winner: str, first: bool) -> None:
    """However a table names the winner; ties are counted and left out."""
    path = tmp_path / "pairs.csv"
    path.write_text(f"text_a,text_b,winner\none text,other,{winner}\none text,third,tie\nx,y,2\n")

    pairs = read_pairs(path)

    assert (bool(pairs.first_won[0]), len(pairs), pairs.undecided) == (first, 2, 1)


def test_zero_and_one_mean_first_and_second(tmp_path: Path) -> None:
    """Where there is no 2, 0 is the first text."""
    path = tmp_path / "pairs.csv"
    path.write_text("summary1,summary2,choice\na a,b b,0\nc c,d d,1\n")

    assert read_pairs(path, Columns("summary1", "summary2", "choice")).first_won.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "--text-a"),
        ("text_a,text_b,winner\nx,y,maybe\n", "row 1: the winner 'maybe'"),
        ("text_a,text_b,winner\nx,y,tie\n", "no pair with a winner"),
        ("text_a,text_b,winner\nx,y\n", "2 cells for 3"),
    ],
)
def test_a_bad_table_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    """What cannot be read is refused with its place and what to do."""
    path = tmp_path / "pairs.csv"
    path.write_text(text)

    with pytest.raises(BadInput, match=said):
        read_pairs(path)


def test_few_groups_are_refused() -> None:
    """One text that stands in all pairs makes them one group, and nothing can be judged."""
    pairs = chat_answers(30, 1)

    with pytest.raises(EstimateRefused, match="groups"):
        evaluate(pairs, 0)
