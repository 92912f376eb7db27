"""What people say of contents: who agrees, who can be believed, and how much it counts beside the money."""

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from infra.database import writing
from ingestion.contents import add_contents, put_campaign
from ingestion.events import Campaign, Content
from ingestion.feedback import add_feedback
from ingestion.http.bodies import FeedbackBody
from ingestion.loops import put_loop
from reward_models.preferences.agreement import alpha, kappa, of_pairs, of_ratings
from reward_models.preferences.combined import Combination, Seen, combine
from reward_models.preferences.judgements import Comparison, Rating, judgements_of, load_judgements
from reward_models.preferences.strengths import fit_strengths
from tests.reward_models.training import definition


def judged(
    seed: int, people: dict[str, float], contents: int = 10, each: int = 150
) -> tuple[list[Comparison], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Comparisons by people who are careful with the probability named, and the true strengths."""
    random = np.random.default_rng(seed)
    true = random.normal(0, 1, contents)
    found = []
    for name, careful in people.items():
        for _ in range(each):
            i, j = random.choice(contents, 2, replace=False)
            first = random.random() < 1 / (1 + np.exp(true[j] - true[i]))
            if random.random() > careful:
                first = not first
            found.append(Comparison("c", f"k{i if first else j}", f"k{j if first else i}", name))
    return found, true


def test_alpha_is_krippendorffs() -> None:
    """The published example of four observers gives the published values, for names and for intervals."""
    table: list[list[int | None]] = [
        [1, 1, None, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
        [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [None, 5, 5, 5], [None, None, 1, 1], [None, None, 3, None],
    ]  # fmt: skip
    units = [[float(value) for value in row if value is not None] for row in table]

    assert alpha(units, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert alpha(units, "interval") == pytest.approx(0.849, abs=5e-4)


def test_kappa_is_cohens() -> None:
    """Seven of ten alike where half would be by chance is 0.4; where both always say the same it says nothing."""
    first, second = [1.0] * 5 + [0.0] * 5, [1.0] * 4 + [0.0] + [1.0] * 2 + [0.0] * 3

    assert kappa(first, second) == pytest.approx((0.7 - 0.5) / 0.5)
    assert np.isnan(kappa([1.0, 1.0], [1.0, 1.0]))


def test_agreement_is_over_what_two_people_judged() -> None:
    """Who agrees everywhere has 1, who contradicts is below 0, what one person judged alone does not count."""
    same = [Comparison("c", a, b, who) for a, b in (("x", "y"), ("z", "x"), ("y", "w")) for who in ("ann", "bob")]
    against = [*same[::2], *(Comparison("c", one.loser, one.winner, "bob") for one in same[::2])]

    assert of_pairs(same).alpha == 1.0
    assert of_pairs(against).alpha < 0
    assert of_pairs([*same, Comparison("c", "q", "r", "ann")]).shared == 3
    assert of_pairs(same[:1]).word == "nobody judged what somebody else did"
    assert (
        of_ratings([Rating("c", "x", who, 4.0) for who in "ab"] + [Rating("c", "y", who, 2.0) for who in "ab"]).alpha
        == 1.0
    )


def test_the_careless_lose_their_weight() -> None:
    """Careful people are believed, one who guesses is not, and one who turns the answers round is not either."""
    said, true = judged(1, {"ann": 1.0, "bea": 1.0, "cem": 0.95, "guess": 0.5, "wrong": 0.1})
    found = fit_strengths(said)

    assert min(found.believed(name) for name in ("ann", "bea", "cem")) > 0.6
    assert found.believed("guess") < 0.35
    assert found.believed("wrong") == 0.0
    assert np.corrcoef([found.strength[f"k{i}"] for i in range(10)], true)[0, 1] > 0.85


def test_believing_the_careful_is_better_than_believing_all() -> None:
    """Over worlds, strengths are nearer to the truth than those from everybody's word alike."""
    people = {"ann": 1.0, "bea": 0.95, "guess": 0.5, "wrong": 0.15}
    ahead = []
    for seed in range(6):
        said, true = judged(seed, people)
        alike = [Comparison(one.campaign, one.winner, one.loser, "all") for one in said]
        with_names, without = (
            np.corrcoef([fit_strengths(kind).strength[f"k{i}"] for i in range(10)], true)[0, 1]
            for kind in (said, alike)
        )
        ahead.append(with_names - without)

    assert np.mean(ahead) > 2 * np.std(ahead) / len(ahead) ** 0.5


def seen(
    random: np.random.Generator, shown: float, shared: float, contents: int = 60
) -> tuple[list[Seen], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Contents of six campaigns whose true deviation is ``shared`` of what people see and the rest their own."""
    strength = random.normal(0, 1, contents)
    true = 0.2 * (shared * strength + (1 - shared**2) ** 0.5 * random.normal(0, 1, contents))
    noise = 1 / (shown * 0.05)
    observed = true + random.normal(0, noise**0.5, contents)
    return [Seen(f"c{k % 6}", f"k{k}", observed[k], noise, strength[k], 0.05) for k in range(contents)], true


def apart(found: Combination, true: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float]:
    """Squared errors of both together, of people alone and of money alone."""
    rows = found.contents
    return tuple(
        float(np.mean([(getattr(one, name) - true[k]) ** 2 for k, one in enumerate(rows)]))
        for name in ("both", "said", "earned")
    )  # type: ignore[return-value]


def test_people_speak_where_outcomes_are_few() -> None:
    """With 200 sends a content people weigh most, with 200,000 hardly; together is never worse than the better alone."""
    random = np.random.default_rng(3)
    few, true_few = seen(random, 200, 0.7)
    many, true_many = seen(random, 200_000, 0.7)
    found_few, found_many = combine(few), combine(many)

    assert found_few.contents[0].people > 0.5 > 0.1 > found_many.contents[0].people
    assert all(abs(one.people + one.outcomes - 1) < 1e-12 for one in found_few.contents)
    for found, true in ((found_few, true_few), (found_many, true_many)):
        both, people, money = apart(found, true)
        assert both < 1.05 * min(people, money)


def test_a_taste_that_customers_do_not_share_is_not_listened_to() -> None:
    """People who like what earns less have a slope below 0, and say nothing from then on."""
    rows, _ = seen(np.random.default_rng(4), 5_000, -0.8)
    found = combine(rows)

    assert not found.listened
    assert {one.said for one in found.contents} == {0.0}


def test_without_outcomes_people_alone_speak() -> None:
    """A content that was never shown has the people's word, with the whole weight."""
    found = combine([Seen("c", "k", float("nan"), float("nan"), 1.0, 0.1)])

    assert (found.contents[0].people, found.contents[0].both > 0) == (1.0, True)


def test_only_a_loops_own_feedback_is_its_own(engine: Engine) -> None:
    """What was said in another loop is neither heard nor unknown; what names no loop is heard where its contents are."""
    with writing(engine) as connection:
        for loop in ("emails", "pushes"):
            put_loop(connection, definition(loop=loop), 1)
            put_campaign(connection, Campaign(campaign_id=f"{loop}-1", loop_id=loop, brief="sun"))
            copy = [Content(content_id=f"{loop}-{n}", campaign_id=f"{loop}-1", slots={"s": f"Line {n}"}) for n in "ab"]
            add_contents(connection, f"{loop}-1", copy, 1_000, 1)
            said: dict[str, Any] = {"winner": f"{loop}-a", "loser": f"{loop}-b"}
            for named in (loop, None):
                body = FeedbackBody(kind="preference", loop=named, source="HUMAN", value=said)
                add_feedback(connection, f"{loop}-{named}", body, 1_000, 1)
        found = load_judgements(connection, "emails")

    assert [(one.winner, one.loser) for one in found.comparisons] == [("emails-a", "emails-b")] * 2
    assert found.unknown == 1


def test_rankings_and_ratings_become_comparisons() -> None:
    """A ranking of k weighs like k − 1 answers, not like k(k−1)/2; ratings compare within person and campaign."""
    campaigns = {"a": "one", "b": "one", "c": "one", "z": "other"}
    found = judgements_of(
        [
            ("ranking", None, {"ranking": ["a", "b", "c"], "annotator": "ann"}),
            ("rating", "a", {"rating": 5, "annotator": "bob"}),
            ("rating", "b", {"rating": 2, "annotator": "bob"}),
            ("rating", "b", {"rating": 3, "annotator": "bob"}),
            ("rating", "z", {"rating": 1, "annotator": "bob"}),
            ("preference", None, {"winner": "a", "loser": "z"}),
            ("preference", None, {"winner": "a", "loser": "gone"}),
        ],
        campaigns,
    )

    assert sum(one.weight for one in found.comparisons if one.annotator == "ann") == 2.0
    assert [(one.winner, one.loser) for one in found.comparisons if one.annotator == "bob"] == [("a", "b")]
    assert found.unknown == 2
