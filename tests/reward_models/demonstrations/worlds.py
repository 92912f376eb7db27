"""The simulator's shop, and marketers who choose for its customers by a taste that is known."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingestion.events import Content
from pipelines.simulator import Customer, World, draw_customers, true_values
from pipelines.templates import FACTORS
from reward_models.demonstrations.choices import Demonstration

Floats = npt.NDArray[np.float64]

WORLD = World(quirk=0.0, bots=0.0)


def copy_of(rng: np.random.Generator, count: int, campaign: str = "june") -> list[Content]:
    """Contents with factors drawn by chance, no two alike while there are combinations left."""
    numbers = rng.choice(2 ** len(FACTORS), size=count, replace=False)
    return [
        Content(
            content_id=f"{campaign}-{number}",
            campaign_id=campaign,
            slots={},
            features={name: bool(number >> bit & 1) for bit, name in enumerate(FACTORS)},
            approval="approved",
        )
        for number in numbers.tolist()
    ]


def chosen(
    rng: np.random.Generator,
    customers: Sequence[Customer],
    contents: Sequence[Content],
    utility: Floats,
    offered: int = 5,
    people: int = 1,
) -> list[Demonstration]:
    """One choice per customer among some contents, by a utility of shape (customers, contents) and Gumbel noise."""
    found = []
    for number, (customer, of_content) in enumerate(zip(customers, utility, strict=True)):
        among = rng.choice(len(contents), size=offered, replace=False)
        best = int(np.argmax(of_content[among] + rng.gumbel(size=offered)))
        candidates = tuple(contents[place] for place in among)
        found.append(
            Demonstration(f"d{number}", f"marketer-{number % people}", customer.context, candidates, best, number)
        )
    return found


def by_worth(
    rng: np.random.Generator, contents: Sequence[Content], count: int, sharpness: float = 3.0
) -> list[Demonstration]:
    """Marketers who know what copy is worth: utility is ``sharpness`` times the true log click rate."""
    customers = draw_customers(WORLD, rng, count)
    click = true_values(WORLD, customers, [content.features for content in contents]).click
    return chosen(rng, customers, contents, sharpness * np.log(click))
