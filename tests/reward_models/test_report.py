"""The report: pictures that are PNGs, a description whose numbers are the logged ones, copy that is not markup."""

import html
import re

import numpy as np
import pytest

from reward_models.report import (
    Bar,
    Story,
    content_chart,
    describe,
    plain,
    reliability_diagram,
    reward_words,
    value_chart,
)
from tests.pipelines.worlds import definition

PNG = b"\x89PNG\r\n\x1a\n"
METRICS = {"expected_gain_per_1000": 3.214, "expected_gain_per_1000_low": 1.0, "expected_gain_per_1000_high": 5.5}


def story(**changes: object) -> Story:
    told = {
        "loop_id": "subjects",
        "version": "subjects-2",
        "kind": "change",
        "state": "promoted",
        "verdict": "Passed.",
        "serving": "subjects-2.",
        "changed": ["New settings."],
        "cautions": [],
        "top": [],
    }
    return Story(**(told | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "copy", ["Save $5 and $6", "<script>alert(1)</script>", "Größe — 日本語 🎉", "", "x" * 3_000, "a\nb\x07"]
)
def test_any_copy_can_be_drawn(copy: str) -> None:
    """A chart is a PNG whatever the copy on it says."""
    bars = [Bar(copy, 1.0, 0.5, 2.0), Bar("plain", -1.0, -1.5, 0.0, "note")]

    assert value_chart(bars, "clicks")[:8] == PNG
    assert content_chart(bars, "clicks")[:8] == PNG


def test_charts_without_data_are_still_pictures() -> None:
    """No estimate, no bin, no content: an empty chart, not an error."""
    none = np.zeros(0)

    assert [value_chart([], "x")[:8], reliability_diagram(none, none, none, "x")[:8]] == [PNG, PNG]


def test_the_same_figures_give_the_same_picture() -> None:
    """Pictures hold no date and no software name, so that the same run gives the same bytes."""
    bars = [Bar("a", 1.0, 0.5, 2.0)]

    assert value_chart(bars, "clicks") == value_chart(bars, "clicks")


def test_the_description_answers_the_questions_with_the_logged_numbers() -> None:
    """What changed, would earn, was the verdict, serves, needs a decision, not to trust; the gain is the metric that was logged."""
    text = describe(story(), METRICS, "clicks")

    questions = re.findall(r"\*\*(.+?)\*\*", text)
    assert questions == [
        "What changed.",
        "What it would earn.",
        "What the gate said.",
        "What is serving now.",
        "What needs a decision.",
        "What not to trust yet.",
    ]
    assert "+3.21 clicks per 1,000 decisions (95 % interval +1.00 to +5.50)." in text


def test_the_description_says_what_the_data_could_show() -> None:
    """Beside the gain stand the smallest detectable one and the customers that a gain like this takes, where known."""
    power = {"units_judged": 1_200.0, "smallest_detectable_per_1000": 4.5, "units_needed": 2_352.0}
    text = describe(story(), METRICS | power, "clicks")

    assert "So many customers (1,200) show a gain of 4.50 four times in five; a gain like this one takes 2,352." in text


def test_without_an_estimate_the_description_claims_nothing() -> None:
    """No gain was logged: the description says so instead of a number."""
    assert "There is no honest number yet." in describe(story(state="refused"), {}, "clicks")


def test_a_version_that_waits_for_approval_names_the_command() -> None:
    """A passed version needs a decision, and the description says how to make it."""
    assert "rewardloop approve subjects subjects-2" in describe(story(state="passed"), METRICS, "clicks")


@pytest.mark.parametrize(
    "copy",
    [
        "<img src=x onerror=alert(1)>",
        "[click](javascript:x)",
        "# Head\n**bold**",
        "`code`",
        "- 1 < 2",
        "3. x",
        "https://x.example",
    ],
)
def test_generated_copy_is_never_markup(copy: str) -> None:
    """Copy in a description stays on its line, and reads back as it was."""
    escaped = plain(copy)

    assert "<" not in escaped
    assert "\n" not in escaped
    assert html.unescape(re.sub(r"\\(.)", r"\1", escaped)) == " ".join(copy.split())
    assert re.findall(r"(?<!\\)(?:[\[\]*`#]|^[-+]|^\d+[.)]|://)", escaped) == []


def test_the_reward_is_called_by_its_only_metric() -> None:
    """One metric of weight 1 gives its name and currency, anything else is a reward."""
    money = {"name": "revenue", "event": "purchase", "aggregate": "sum", "currency": "EUR"}
    click = {"name": "click", "event": "click"}

    assert reward_words(definition()) == "click"
    assert reward_words(definition(metrics=[money], reward={"revenue": 1.0})) == "revenue (EUR)"
    assert reward_words(definition(metrics=[money, click], reward={"revenue": 1.0, "click": 0.1})) == "reward"
