"""Copy whose true reward is known: lines of the templates, what they earn, and a reward model of what was seen.

The reward model sees the text alone, as it does of a language model's copy; the simulator knows the factors in it. A reward
is the mean click rate of the line over the world's customers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from ingestion.events import Content
from ingestion.loops import ModelSettings
from pipelines.generation.generators import Order
from pipelines.generation.prompts import Prompt
from pipelines.generation.templated import TemplateGenerator
from pipelines.simulator import Customer, World, draw_customers, true_values
from pipelines.templates import read_factors
from reward_models.boosted import RewardModel, fit
from tests.reward_models.training import history, training_set

Floats = npt.NDArray[np.float64]

THEMES = (
    "the winter collection",
    "the spring sale",
    "our new boots",
    "the tea shelf",
    "our garden tools",
    "the reading corner",
    "our summer linen",
    "the coffee bar",
    "our walking shoes",
    "the new kitchen",
    "our desk lamps",
    "our wool blankets",
)
OVERDONE = 0.15
"""Share of lines that repeat themselves; customers tire of it."""
FATIGUE = 0.8
SETTINGS = ModelSettings(rounds=60, min_leaf=5)
PLAIN = Prompt(prompt_id="plain", version=1, template="{{count}} {{brief}}", strategy="plain")


@dataclass(frozen=True)
class Taste:
    """A world and two hundred of its customers."""

    world: World
    people: list[Customer]

    def rates(self, contents: Sequence[Content]) -> Floats:
        """True click rate of each, shape (k,)."""
        lines = [content.slots["subject"] for content in contents]
        features = [{**read_factors(line), "line": line} for line in lines]  # the line itself gives it its quirk
        return np.asarray(true_values(self.world, self.people, features).click.mean(axis=0))


def taste(seed: int) -> Taste:
    """Of a seed; no two lines have the same quirk."""
    world = World(seed=seed, quirk=0.2, fatigue=FATIGUE, bots=0.0)
    return Taste(world, draw_customers(world, np.random.default_rng([seed, 1]), 200))


def lines(seed: int, campaign: int, count: int, overdone: float = OVERDONE) -> list[Content]:
    """Lines that nobody asked anything special of."""
    own = 1_000 * seed + campaign
    order = Order(prompt=PLAIN, count=count, seed=own, brief=f"News about {THEMES[campaign % len(THEMES)]}.")
    drafts = TemplateGenerator(overdone).write([order]).drafts
    return named([draft.content(f"k{campaign}") for draft in drafts], f"k{campaign}-{seed}")


def named(contents: Sequence[Content], prefix: str) -> list[Content]:
    """With ids of their own."""
    return [msgspec.structs.replace(one, content_id=f"{prefix}-{place}") for place, one in enumerate(contents)]


def learned(contents: Sequence[Content], exposures: int, clicks: npt.ArrayLike) -> RewardModel:
    """The reward model of what each content earned over so many sends."""
    rates = np.asarray(clicks, dtype=np.float64) / exposures
    return fit(training_set(contents, history(contents, [exposures] * len(contents), rates.tolist())), SETTINGS)
