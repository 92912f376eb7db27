"""How near drafts are to what they were written from, as features that the reward model sees."""

from collections.abc import Sequence

import msgspec
import numpy as np
from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading
from infra.errors import Unavailable
from infra.settings import Settings
from ingestion.copy.reviews import waiting
from ingestion.events import MEASURED, Content
from pipelines.generation.generators import Draft, Order, Written
from pipelines.generation.nearness import measured, words
from pipelines.generation.outcome import Wish
from pipelines.generation.prompts import HOUSE
from pipelines.generation.steps import generate
from reward_models.embeddings import Embedder
from reward_models.features import build_schema, content_rows
from reward_models.vectors import Vectors
from tests.pipelines.generation.test_steps import bench_of, open_campaign

BRIEF = "Winter coats and warm boots for cold days"
PROMPTS = {prompt.prompt_id: prompt for prompt in HOUSE}


def content(subject: str) -> Content:
    return Content(content_id="", campaign_id="winter", slots={"subject": subject})


class Turned(Embedder):
    """Vectors of two directions: whether a text speaks of coats. ``away``: it does not answer."""

    def __init__(self, away: bool = False) -> None:
        self.away = away

    def vectors(self, texts: Sequence[str]) -> Vectors:
        if self.away:
            raise Unavailable("away")
        return Vectors("turned", {text: np.array([1.0, 0.0] if "oats" in text else [0.6, 0.8]) for text in texts})


def near_of(one: Content) -> list[float]:
    return [float(one.features[name]) for name in MEASURED]


def test_copy_that_repeats_its_brief_is_nearer() -> None:
    """Shared words make copy near, to the brief and to the prompt's own words; numbers between 0 and 1, of three decimals."""
    prompts = [PROMPTS["ask"], PROMPTS["hurry"], PROMPTS["ask"]]
    lines = [content("Winter coats for cold days"), content("It is better to act now"), content("Tulips")]
    repeats, acts, neither = map(near_of, measured(lines, prompts, BRIEF, ["Old news"], None))

    assert repeats[0] > 0.3 > acts[0] == 0
    assert acts[1] > repeats[1]
    assert neither == [0.0, 0.0]
    assert all(0 <= value <= 1 and value == round(value, 3) for value in repeats + acts)
    assert "{{" not in words(PROMPTS["ask"])


def test_what_has_no_words_is_not_measured() -> None:
    """Without a brief there is no nearness to it: the model sees a missing value, not 0."""
    (one,) = measured([content("Winter coats")], [PROMPTS["ask"]], " ", [], None)
    assert list(one.features) == ["prompt_similarity"]
    assert measured([], [], BRIEF, ["Old news"], None) == []


def test_embeddings_take_the_place_of_words_where_there_is_a_server() -> None:
    """The cosine of embeddings, where a server is asked; while it is away nothing is measured on another scale."""
    lines = [content("Coats"), content("Tulips")]
    near, far = measured(lines, [PROMPTS["ask"]] * 2, "About oats", [], Turned())
    assert (near.features["brief_similarity"], far.features["brief_similarity"]) == (1.0, 0.6)
    assert measured(lines, [PROMPTS["ask"]] * 2, "About oats", [], Turned(away=True)) == lines


def test_nearness_is_no_part_of_what_makes_copy_the_same() -> None:
    """Neither the prompt nor what is known of other copy changes a line's fingerprint; a feature of another name does."""
    line = content("Is it better to act now?")
    ways = [
        measured([line], [PROMPTS[name]], BRIEF, known, None)[0] for name, known in (("ask", []), ("hurry", ["Act!"]))
    ]

    assert ways[0].features != ways[1].features
    assert {one.fingerprint for one in ways} == {line.fingerprint}
    assert msgspec.structs.replace(line, features={"tone": "warm"}).fingerprint != line.fingerprint


class Repeating:
    """A generator that writes one line for every prompt it is asked by."""

    name = "repeating"

    def write(self, orders: Sequence[Order]) -> Written:
        return Written(
            drafts=tuple(
                Draft(slots={"subject": "Twelve coats for winter"}, prompt=one.prompt, generator="g", model="m", seed=1)
                for one in orders
            )
        )


def test_a_run_keeps_nearness_with_its_copy(engine: Engine, settings: Settings) -> None:
    """The flow stores it with the content, shows it where copy waits, and makes columns of it; the line written again by
    another prompt in a later run stays one content."""
    open_campaign(engine)
    for prompt in ("ask", "hurry"):
        wish = Wish(campaign_id="winter", count=1, candidates=1, prompts=(prompt,), seed=1)
        generate(bench_of(engine, settings), wish, Repeating())
    with reading(engine) as connection:
        (one,) = connection.execute(select(tables.contents)).all()
        (queued,) = waiting(connection, loop="mail")
    stored = Content(content_id="c", campaign_id="winter", slots=one.slots, features=one.features)
    schema = build_schema([{}], [stored])

    assert set(one.features) == set(MEASURED)
    assert near_of(stored)[0] > 0
    assert queued.nearness.startswith(f"brief similarity {one.features['brief_similarity']}, prompt similarity")
    assert "content.brief_similarity" in schema.names
    assert one.features["brief_similarity"] in content_rows(schema, [stored], np.zeros(1))[0]
