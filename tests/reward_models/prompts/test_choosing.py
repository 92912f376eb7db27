"""Choosing a prompt for a query: what can be learned is used, what cannot is left alone."""

from pathlib import Path

import numpy as np
import pytest

from infra.errors import BadInput, EstimateRefused
from reward_models.prompts.choosing import Recommender, learn
from reward_models.prompts.evaluation import Ceiling, ceiling, cross_fit, picks
from reward_models.prompts.logs import Answer, Columns, PromptLog, log_of, read_log, template_of
from reward_models.prompts.model import Advantage

WORDS = ("coat", "boot", "lamp", "chair", "tent", "scarf", "table", "glove", "stove", "shelf", "brush", "plate")


def world(taste: float, seed: int, queries: int = 160, each: int = 2, tried: float = 1.0) -> PromptLog:
    """Briefs for winter and summer: the plain prompt earns ½ everywhere, the story ½ ± taste, the list a little less."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(queries):
        season = random.integers(2)
        words = random.choice(WORDS, 3, replace=False)
        brief = f"{'winter snow' if season else 'summer beach'} {words[0]} {words[1]} and {words[2]} w{number}"
        rate = {"plain": 0.5, "story": 0.45 + taste * (1 if season else -1), "list": 0.4}
        for prompt, chance in rate.items():
            if random.random() < tried:
                rows += [Answer(brief, prompt, float(random.random() < chance)) for _ in range(each)]
    return log_of(rows)


@pytest.fixture(scope="module")
def taught() -> Recommender:
    """Learned where the season decides by far."""
    return learn(world(0.4, 1))


def test_the_prompt_that_suits_the_query_is_chosen(taught: Recommender) -> None:
    """Where the text says which prompt earns more, briefs nobody has seen get that one, with a proof."""
    winter, summer = taught.recommend(["winter snow lamp new", "summer beach lamp new"])

    assert taught.proven
    assert (winter.prompt, summer.prompt) == ("story", "plain")
    assert winter.low > 0
    assert winter.fixed == "plain"


def test_the_gain_is_what_it_is() -> None:
    """The interval of the gain on unseen queries covers what the choice is truly worth, and most of it is found."""
    log = world(0.4, 2, queries=240)
    found = cross_fit(log, 0)

    assert found.measured.low < 0.175 < found.measured.high + 0.05
    assert found.measured.value > 0.1


def test_without_anything_to_learn_the_best_fixed_prompt_stays() -> None:
    """In worlds where no text says anything, nothing but the best fixed prompt is recommended."""
    acted = [
        {one.prompt != one.fixed for one in learner.recommend([f"winter {word}" for word in WORDS])}
        for learner in (learn(world(0.0, seed)) for seed in (5, 6))
    ]

    assert acted == [{False}] * 2


def test_a_log_of_one_answer_per_query_is_valued_too() -> None:
    """Where each query was asked with some prompts only, the value is estimated without bias that matters."""
    log = world(0.4, 3, queries=400, each=1, tried=0.5)

    assert cross_fit(log, 0).measured.low > 0


def test_doubt_leaves_the_best_fixed_prompt() -> None:
    """A prompt that is better in the mean, yet not clearly, is not taken."""
    advantage = Advantage(
        np.array([[0.0, 0.1], [0.0, 0.1], [0.0, -0.1]]), np.array([[0.0, 0.5], [0.0, 0.02], [0.0, 0.02]])
    )

    assert picks(advantage, 0, 0.8).tolist() == [0, 1, 0]


def test_the_ceiling_is_found_from_repeats() -> None:
    """Knowing each query's own probabilities is worth what it is in the world that made the log."""
    random = np.random.default_rng(4)
    answers = [
        Answer(f"question q{query}x", prompt, float(random.random() < np.clip(0.5 + shift, 0, 1)))
        for query in range(700)
        for prompt, shift in (("a", random.normal(0, 0.15)), ("b", random.normal(0, 0.15)))
        for _ in range(4)
    ]
    found = ceiling(log_of(answers))

    assert isinstance(found, Ceiling)
    assert found.knowing == pytest.approx(0.15 * 2**0.5 / (2 * np.pi) ** 0.5, abs=0.025)
    assert 0 < found.seen < found.knowing + 0.02
    assert ceiling(world(0.1, 1, each=1)) is None


def test_queries_of_one_template_are_one_group() -> None:
    """Numbers and names do not make another query; folds would show the answer otherwise."""
    assert template_of("Ann has 5.0 apples and 1,200 pears.") == template_of("Bob  has 7 apples and 3 pears.")
    log = log_of(
        [Answer("Ann has 5 apples", "a", 1.0), Answer("Bob has 7 apples", "a", 0.0), Answer("Bob ran", "a", 0.0)]
    )

    assert log.group.tolist() == [0, 0, 1]


def test_a_table_is_read_by_the_names_given(tmp_path: Path) -> None:
    """Columns have any names; a group and the prompts' texts are read where they are there."""
    path = tmp_path / "log.csv"
    path.write_text("brief,template,clicks,group,prompt_text\nred shoes,a,1.5,g,Write\nblue shoes,a,0,g,Write\n")

    log = read_log(path, Columns("brief", "template", "clicks"))

    assert (log.queries, log.prompts, log.reward.tolist()) == (("red shoes", "blue shoes"), ("a",), [1.5, 0.0])
    assert (log.group.tolist(), log.text_of("a")) == ([0, 0], "Write")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("brief,prompt,reward\nx,a,1\n", "no column query"),
        ("query,prompt,reward\nx,a,much\n", "row 1: the reward 'much' is no number"),
        ("query,prompt,reward\nx,a,nan\n", "no number"),
        ("query,prompt,reward\n,a,1\n", "have to be named"),
        ("query,prompt,reward,prompt_text\nx,a,1,A\ny,a,1,B\n", "two texts"),
        ("query,prompt,reward\n", "no rows"),
        ("query,prompt,reward\nx,a\n", "2 cells for 3 columns"),
    ],
)
def test_a_bad_table_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    """What cannot be read is refused with its place and what to do."""
    path = tmp_path / "log.csv"
    path.write_text(text)

    with pytest.raises(BadInput, match=said):
        read_log(path)


def test_a_small_log_is_refused() -> None:
    """A handful of queries, or a single prompt, is no ground for a choice."""
    few = log_of([Answer(f"brief {word}", "a", 1.0) for word in WORDS])

    with pytest.raises(EstimateRefused):
        learn(few)
