"""What a flow says of several loops: one paper, the worst first in mind."""

from pipelines.flows.paper import Paper, joined


def paper(subject: str, state: str = "fine", alarm: bool = False, **row: object) -> Paper:
    return Paper(subject=subject, state=state, sentence=f"{subject} is {state}.", rows=(row,), alarm=alarm)


def test_every_loop_is_told_and_rows_share_their_columns() -> None:
    """Rows of different loops become one table whose rows all have every column."""
    found = joined("every loop", [paper("a", what="x"), paper("b", which="y")], {})

    assert found.sentence == "a: a is fine. b: b is fine."
    assert found.rows == ({"loop": "a", "what": "x", "which": ""}, {"loop": "b", "what": "", "which": "y"})
    assert (found.state, found.alarm) == ("fine", False)


def test_one_loop_that_failed_is_named_and_raises_the_alarm() -> None:
    """A loop that failed is a row with its reason, and the others keep their papers."""
    found = joined("every loop", [paper("a")], {"b": "The database is away."})

    assert (found.state, found.alarm) == ("failed", True)
    assert "b: failed. The database is away." in found.sentence
    assert [row["loop"] for row in found.rows] == ["a", "b"]


def test_an_alarm_gives_the_whole_its_state() -> None:
    """Among papers of several states the alarming one's is the state of the whole."""
    assert joined("all", [paper("a"), paper("b", "act", alarm=True)], {}).state == "act"
    assert joined("all", [paper("a"), paper("b", "look")], {}).state == "done"


def test_no_loop_at_all_is_a_sentence() -> None:
    """An installation without a loop is told, not a failure."""
    found = joined("every loop", [], {})

    assert (found.sentence, found.alarm) == ("There is no loop yet.", False)
