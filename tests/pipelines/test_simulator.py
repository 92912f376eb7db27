"""The simulated customers and the oracle that knows what they truly want."""

import json
from collections import Counter

import numpy as np
import pytest

from infra.clock import DAY, HOUR, MICROS, parse_time
from pipelines.simulator import (
    CLICK_DELAY,
    PURCHASE_DELAY,
    SCANNER,
    TIERS,
    Arrival,
    Customer,
    Response,
    World,
    draw_customers,
    events_of,
    organic_events,
    respond,
    true_value,
    true_values,
)
from pipelines.templates import write_drafts

NOON = 20_000 * DAY + 12 * HOUR
WORLD = World(bots=0.0)
CONTENTS = [draft.factors for draft in write_drafts("the spring sale", 12, seed=1)]
GOLD = Customer("c-1", "gold", "mobile", days_since_order=20, activity=1.4)


def histories(world: World, seed: int, count: int) -> list[Arrival]:
    """What ``count`` customers do with one message each, as events."""
    rng = np.random.default_rng(seed)
    arrivals: list[Arrival] = []
    for number, customer in enumerate(draw_customers(world, rng, count)):
        response = respond(world, rng, customer, CONTENTS[number % 12], NOON)
        arrivals += events_of(world, rng, customer, response, f"d-{number}")
    return arrivals


def test_a_seed_declares_the_whole_history() -> None:
    """The same seed gives the same customers, responses and events; another seed gives others."""
    assert histories(World(), 7, 300) == histories(World(), 7, 300)
    assert histories(World(), 7, 300) != histories(World(), 8, 300)


@pytest.mark.slow
def test_the_oracle_equals_the_mean_of_many_responses() -> None:
    """Click rate and net revenue of the oracle are the means over simulated responses, within 4 standard errors."""
    rng = np.random.default_rng(11)
    content = CONTENTS[3]
    clicks, revenue = [], []
    for activity in (0.6, 1.4):
        customer = Customer("c", "regular", "desktop", days_since_order=10, activity=activity)
        responses = [respond(WORLD, rng, customer, content, NOON) for _ in range(10_000)]
        clicks += [bool(response.clicks) for response in responses]
        revenue += [response.value if response.refunded_at is None else 0.0 for response in responses]

    truth = true_value(WORLD, customer.context, content)

    assert float(truth.click) == pytest.approx(np.mean(clicks), abs=4 * np.std(clicks) / np.sqrt(20_000))
    assert float(truth.revenue) == pytest.approx(np.mean(revenue), abs=4 * np.std(revenue) / np.sqrt(20_000))


def test_the_value_of_a_context_is_the_mean_over_hidden_activity() -> None:
    """What a policy can know is the average of the quiet and the lively customer."""
    people = [Customer("c", "gold", "mobile", 20, activity) for activity in (0.6, 1.4)]

    known = true_value(WORLD, GOLD.context, CONTENTS[0])

    assert float(true_values(WORLD, people, CONTENTS[:1]).click.mean()) == pytest.approx(float(known.click))
    assert float(true_values(WORLD, people, CONTENTS[:1]).revenue.mean()) == pytest.approx(float(known.revenue))


def test_the_value_of_a_pmf_is_the_weighted_mean() -> None:
    """A distribution over contents is worth its expectation; a point mass is worth its content."""
    value = true_values(WORLD, [GOLD], CONTENTS[:2])

    mixed, sure = value.under(np.array([0.25, 0.75])), value.under(np.array([0.0, 1.0]))

    assert mixed.click[0] == pytest.approx(0.25 * value.click[0, 0] + 0.75 * value.click[0, 1])
    assert sure.revenue[0] == value.revenue[0, 1]


def test_context_beats_the_best_single_content_which_beats_the_baseline() -> None:
    """Tastes differ: the best content per context earns a fifth more than any single one, and that more than uniform."""
    customers = draw_customers(WORLD, np.random.default_rng(5), 2_000)
    value = true_values(WORLD, customers, CONTENTS)
    groups = np.array([TIERS.index(customer.tier) for customer in customers])

    by_tier = sum(value.revenue[groups == tier].mean(axis=0).max() * np.mean(groups == tier) for tier in range(3))
    single = value.revenue.mean(axis=0).max()

    assert by_tier > 1.2 * single
    assert single > 1.2 * value.revenue.mean()


def test_without_effect_every_content_is_worth_the_same_rate() -> None:
    """A null world has nothing to learn: one click rate per customer, whatever the copy."""
    null = World(effect=0.0, quirk=0.0, rebate=0.0)
    value = true_values(null, draw_customers(null, np.random.default_rng(1), 50), CONTENTS)

    assert np.ptp(value.click, axis=1).max() == 0
    assert np.ptp(value.revenue, axis=1).max() == 0


def test_events_are_late_but_happen_within_their_bounds() -> None:
    """Every event arrives after it happened; clicks come within 18 hours, purchases within a day of the click."""
    for arrival in histories(WORLD, 3, 1_000):
        occurred = parse_time(arrival.event["occurred_at"])
        assert arrival.at >= occurred >= NOON
        if arrival.event["type"] == "purchase":
            assert occurred <= NOON + CLICK_DELAY[2] + PURCHASE_DELAY[2]


def test_events_are_duplicated_and_disordered_as_configured() -> None:
    """About one event in twelve comes twice with the same body, and many arrive before an earlier one."""
    arrivals = sorted(histories(WORLD, 4, 4_000), key=lambda arrival: arrival.at)
    times = Counter(json.dumps(arrival.event, sort_keys=True) for arrival in arrivals)
    twice = sum(count == 2 for count in times.values()) / len(times)
    occurred = [parse_time(arrival.event["occurred_at"]) for arrival in arrivals]

    assert {1, 2} == set(times.values())
    assert twice == pytest.approx(WORLD.duplicated, abs=4 * np.sqrt(0.08 * 0.92 / len(times)))
    assert np.mean(np.diff(occurred) < 0) > 0.1


def test_without_duplication_every_event_comes_once() -> None:
    """The share of duplicates is a setting that can be zero."""
    ids = [arrival.event["event_id"] for arrival in histories(World(duplicated=0.0), 4, 500)]

    assert len(ids) == len(set(ids))


def test_bots_click_within_seconds_buy_nothing_and_are_marked() -> None:
    """A bot's clicks name themselves as such, so that they can be labelled; the oracle gives a bot nothing."""
    bot = Customer("c-2", "new", "mobile", days_since_order=3, activity=1.4, bot=True)
    rng = np.random.default_rng(2)
    response = respond(WORLD, rng, bot, CONTENTS[0], NOON)
    events = [arrival.event for arrival in events_of(World(duplicated=0.0), rng, bot, response, "d-1")]

    assert [event["type"] for event in events] == ["click", "click"]
    assert all(event["properties"] == {"client": SCANNER} for event in events)
    assert max(response.clicks) < NOON + 5 * MICROS
    assert float(true_values(WORLD, [bot], CONTENTS).click.max()) == 0


def test_a_refund_names_the_order_it_takes_back() -> None:
    """Purchase and refund carry the same order, value and currency; half of the purchases name the customer only."""
    response = Response(clicks=(NOON,), bought_at=NOON + HOUR, value=40.0, refunded_at=NOON + 9 * HOUR)
    world = World(duplicated=0.0, linked=0.0)
    events = {a.event["type"]: a.event for a in events_of(world, np.random.default_rng(1), GOLD, response, "d-9")}

    assert events["purchase"]["order_id"] == events["refund"]["reverses"] == "o-d-9"
    assert (events["refund"]["value"], events["refund"]["currency"]) == (40.0, "EUR")
    assert events["purchase"]["unit"] == "c-1"
    assert "decision_id" not in events["purchase"]


def test_organic_purchases_come_at_their_rate_and_name_no_decision() -> None:
    """Some customers buy anyway: four in a thousand per week, known by the customer only."""
    customers = draw_customers(WORLD, np.random.default_rng(1), 20_000)
    arrivals = organic_events(World(duplicated=0.0, bots=0.0), np.random.default_rng(2), customers, 0, 7 * DAY, "w1")

    assert len(arrivals) == pytest.approx(80, abs=4 * np.sqrt(80))
    assert all("unit" in arrival.event and "decision_id" not in arrival.event for arrival in arrivals)
