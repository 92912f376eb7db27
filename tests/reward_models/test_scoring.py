"""Tables of candidate texts get scores, intervals and ranks, or one clear sentence."""

import numpy as np
import pytest

from infra.errors import BadInput
from ingestion.events import Content
from reward_models.boosted import RewardModel, fit
from reward_models.scoring import (
    check_columns,
    harmless,
    ranks,
    read_candidates,
    score,
    scored_rows,
    scored_texts,
    slot_for,
    slots_of,
    text_contents,
)
from tests.reward_models.training import SMALL, worded

COLUMNS = ["note", "campaign", "subject"]
ROWS = [["x", "c1", "old secret garden"], ["=1+1", "c1", "old common garden"], ["-3", "new", "large secret table"]]


@pytest.fixture(scope="module")
def model() -> RewardModel:
    """A model of texts in which the word "secret" works."""
    return fit(worded(), SMALL)


def test_scores_are_the_models(model: RewardModel) -> None:
    """Expected rewards are the model's predictions, intervals lie around them, the better word ranks first."""
    contents = read_candidates(model, COLUMNS, ROWS, 1_000)
    expected, half = score(model, contents)
    rows = scored_rows(model, contents, ROWS)

    assert slots_of(model) == ["subject"]
    assert expected.tolist() == model.rows([{}] * 3, contents).tolist()
    assert (half > 0).all()
    assert [row[-1] for row in rows] == ["1", "2", "1"]
    assert [float(row[3]) for row in rows] == pytest.approx(expected.tolist(), rel=1e-5)
    assert all(float(row[4]) < float(row[3]) < float(row[5]) for row in rows)


def test_scores_can_be_explained(model: RewardModel) -> None:
    """With ``why`` each row ends with its reasons; the word that works is among them where it stands."""
    contents = read_candidates(model, COLUMNS, ROWS, 1_000)

    plain, told = scored_rows(model, contents, ROWS), scored_rows(model, contents, ROWS, why=True)

    assert [row[:-1] for row in told] == plain
    assert ["“secret”" in row[-1] for row in told] == [True, False, True]


def test_lines_are_compared(model: RewardModel) -> None:
    """Lines without a file: the model's slot is taken, the better word ranks first, and the reasons name it."""
    texts = ["old common garden", "old secret garden"]
    contents = text_contents(texts, slot_for(model), 1_000)
    first, second = scored_texts(model, contents, why=True)

    assert [content.slots for content in contents] == [{"subject": text} for text in texts]
    assert (first.rank, second.rank) == (2, 1)
    assert first.low < first.expected < first.high
    assert [first.expected, second.expected] == score(model, contents)[0].tolist()
    assert "“secret”" in (second.why or "")
    assert scored_texts(model, contents)[0].why is None


def test_a_line_needs_words_and_a_slot(model: RewardModel) -> None:
    """An empty line is named by its number, a slot that the model does not know by its name."""
    with pytest.raises(BadInput, match="Line 2 is empty"):
        text_contents(["a", " "], "subject", 1_000)
    with pytest.raises(BadInput, match="no slot 'body'; it knows subject"):
        slot_for(model, "body")


def test_an_unknown_campaign_is_at_the_loops_level(model: RewardModel) -> None:
    """The same text in two campaigns the model never saw has the same score."""
    contents = [Content(content_id="1", campaign_id=name, slots={"subject": "a secret"}) for name in ("p", "q")]

    assert score(model, contents)[0][0] == score(model, contents)[0][1]


def test_ranks_are_within_the_campaign() -> None:
    """Ranks count within a campaign; equal scores share the better rank."""
    contents = [Content(content_id=str(i), campaign_id=name, slots={}) for i, name in enumerate("aabaa")]

    assert ranks(contents, np.array([0.1, 0.3, 0.0, 0.3, 0.2])) == [4, 1, 1, 1, 3]


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("-3.5", "-3.5"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_formulas_are_made_harmless(cell: str, safe: str) -> None:
    """A cell that a spreadsheet would run gets a quote before it; numbers and other texts stay."""
    assert harmless(cell) == safe


def test_formulas_in_the_output_are_harmless(model: RewardModel) -> None:
    """What is passed through is made harmless too."""
    rows = scored_rows(model, read_candidates(model, COLUMNS, ROWS, 1_000), ROWS)

    assert [row[0] for row in rows] == ["x", "'=1+1", "-3"]


def test_a_missing_column_is_named(model: RewardModel) -> None:
    """A table without a slot says which, and what was found."""
    with pytest.raises(BadInput, match=r"no column 'subject'.*columns found: campaign, headline"):
        check_columns(model, ["campaign", "headline"])


def test_a_column_that_is_added_must_be_free(model: RewardModel) -> None:
    """Scoring never overwrites a column."""
    with pytest.raises(BadInput, match="'rank'"):
        check_columns(model, [*COLUMNS, "rank"])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (["x", "c1"], "Row 2 has 2 cells"),
        (["x", "c1", " "], "Row 2 has no text"),
        (["x", "c1", "y" * 1_001], "Row 2: subject is longer than 1000 bytes"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(model: RewardModel, row: list[str], sentence: str) -> None:
    """The first row that cannot be scored stops it, by its number."""
    with pytest.raises(BadInput, match=sentence):
        read_candidates(model, COLUMNS, [ROWS[0], row], 1_000)
