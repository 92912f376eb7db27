"""Which send earned it: six models against truths worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from infra import tables
from infra.clock import DAY
from infra.database import insert_once, reading, writing
from infra.secrets import Secrets
from ingestion.events import NO_SEND
from reward_models.credit.paths import Journey, Path, Purchase, Touch, ended, load_journeys, path_of
from reward_models.credit.removal import removal_effects
from reward_models.credit.rules import last_touch, linear, position_based, time_decay
from reward_models.credit.sends import SendSettings, credit_sends, models, share
from reward_models.credit.shapley import EXACT, Game
from tests.pipelines.holdout_world import fill, shop


def sent(*keys: str, days: tuple[int, ...] = (0, 7, 14, 21, 28)) -> tuple[Touch, ...]:
    """Sends a week apart."""
    return tuple(Touch(f"d{at}{key}", key, at * DAY) for key, at in zip(keys, days, strict=False))


def customer(*keys: str, value: float = 0.0, at: int = 29) -> Journey:
    """Somebody with these sends who bought for ``value`` on that day, or nothing."""
    return Journey("u", sent(*keys), (Purchase(at * DAY, value),) if value else ())


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (last_touch(sent("a", "b", "c"), 14 * DAY), [0, 0, 1]),
        (linear(sent("a", "b", "c", "d"), 30 * DAY), [0.25] * 4),
        (time_decay(sent("a", "b", "c"), 14 * DAY, 7 * DAY), [1 / 7, 2 / 7, 4 / 7]),
        (position_based(sent("a", "b", "c", "d"), 30 * DAY), [0.4, 0.1, 0.1, 0.4]),
        (position_based(sent("a", "b"), 30 * DAY), [0.5, 0.5]),
        (position_based(sent("a"), 30 * DAY), [1.0]),
    ],
)
def test_rules_share_by_place_and_time(shares: np.ndarray, expected: list[float]) -> None:
    """The last one, each, half for a half-life, the ends: as the rule says."""
    assert shares.tolist() == pytest.approx(expected)


def test_time_decay_of_long_ago_is_no_division_by_zero() -> None:
    """Sends a thousand half-lives back still share everything."""
    assert time_decay(sent("a", "b"), 10**6 * DAY, DAY).sum() == pytest.approx(1.0)


def test_shapley_values_are_those_by_hand() -> None:
    """Nobody's 1, a's 3, b's 2, both 8: a adds 2 alone and 6 after b, on average 4; b adds 1 and 5, on average 3."""
    game = Game([(frozenset(), 2.0), (frozenset(), 0.0), (frozenset("a"), 3.0), (frozenset("b"), 2.0), (BOTH, 8.0)])

    assert game.shapley(BOTH) == pytest.approx({"a": 4.0, "b": 3.0})
    assert game.shares(BOTH).campaigns == pytest.approx({"a": 4 / 8, "b": 3 / 8})
    assert game.shares(BOTH).nobody == pytest.approx(1 / 8)


BOTH = frozenset("ab")


def test_a_set_that_nobody_got_is_valued_by_its_parts() -> None:
    """Where no customer got exactly a and b, those who got part of it and nothing else stand for it."""
    game = Game([(frozenset("a"), 4.0), (frozenset("b"), 1.0), (frozenset("b"), 1.0), (frozenset("c"), 90.0)])

    assert game.value(BOTH) == pytest.approx(2.0)
    assert game.value(frozenset()) == 0.0


def test_shapley_values_share_everything_whatever_the_size() -> None:
    """They sum to v(S) − v(∅) with few campaigns and, by drawn orders, with many; equal campaigns have equal values."""
    random = np.random.default_rng(1)
    names = [f"k{number}" for number in range(EXACT + 4)]
    for size in (3, EXACT, EXACT + 4):
        whole = frozenset(names[:size])
        drawn = [(frozenset(random.choice(names, 3).tolist()), float(random.random())) for _ in range(60)]
        game = Game([*drawn, (whole, 2.0), (frozenset(), 0.25)])
        assert sum(game.shapley(whole).values()) == pytest.approx(2.0 - 0.25)
    alike = Game([(frozenset(names), 6.0), (frozenset(), 0.0)])
    assert list(alike.shapley(frozenset(names)).values()) == pytest.approx([0.5] * len(names))


def test_removal_effects_are_those_by_hand() -> None:
    """Three paths, one of which sold: a purchase follows from the start in 1 of 3; without the first campaign in 1 of 6,
    without either of the others never."""
    paths = [Path(("1", "2", "3"), True), Path(("1",), False), Path(("2", "3"), False)]

    assert removal_effects(paths) == pytest.approx({"1": 0.5, "2": 1.0, "3": 1.0})
    assert removal_effects([Path(("1",), False)]) == {"1": 0.0}
    assert removal_effects([]) == {}


def test_a_send_again_and_again_is_a_loop_of_the_chain() -> None:
    """Repeated sends of one campaign lead back to it: half of its steps sell, so removing it loses everything."""
    effects = removal_effects([Path(("1", "1"), True), Path(("1", "2"), False)])

    assert effects == pytest.approx({"1": 1.0, "2": 0.0})


def test_paths_end_at_purchases() -> None:
    """A purchase takes the sends since the one before; what is left over bought nothing; the lookback is a limit."""
    journey = Journey("u", sent("a", "b", "c"), (Purchase(8 * DAY, 1.0), Purchase(9 * DAY, 1.0)))

    assert list(ended([journey], 30 * DAY)) == [Path(("a", "b"), True), Path(("c",), False)]
    assert list(ended([journey], 2 * DAY)) == [Path(("b",), True), Path(("c",), False)]
    assert [touch.key for touch in path_of(journey, Purchase(7 * DAY, 1.0), 7 * DAY)] == ["b"]


JOURNEYS = st.lists(
    st.builds(
        lambda touches, bought: Journey(
            "u",
            tuple(Touch(str(at), key, at) for at, key in sorted(touches)),
            tuple(sorted(Purchase(at, value / 8) for at, value in bought)),
        ),
        st.lists(st.tuples(st.integers(0, 60 * DAY), st.sampled_from("abc")), max_size=6),
        st.lists(st.tuples(st.integers(0, 60 * DAY), st.integers(1, 800)), max_size=3),
    ),
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(journeys=JOURNEYS)
def test_every_model_shares_exactly_what_was_bought(journeys: list[Journey]) -> None:
    """Under each model the parts of a purchase, nobody's included, sum to its value, and the table to all purchases."""
    rules = SendSettings()
    for shares in models(journeys, rules).values():
        for journey in journeys:
            for purchase, shared in zip(journey.purchases, share(journey, shares, rules.lookback), strict=True):
                assert shared.values.sum() + shared.nobody == pytest.approx(purchase.value, abs=1e-9)
    found = credit_sends(journeys, rules)
    for model, nobody in found.nobody.items():
        assert sum(row.value[model] for row in found.rows) + nobody == pytest.approx(found.total, abs=1e-9)


def test_the_models_stand_side_by_side() -> None:
    """One customer, two sends, one purchase of 10, another who bought nothing after the first: each model's own answer."""
    found = credit_sends([customer("a", "b", value=10.0), customer("a"), customer(value=4.0)])
    rows = {row.key: row for row in found.rows}

    assert (rows["a"].sends, rows["a"].paths, rows["b"].paths) == (2, 1, 1)
    assert rows["a"].value["last touch"] == 0.0
    assert rows["a"].value["linear"] == rows["a"].value["position based"] == 5.0
    assert rows["b"].value["time decay"] == pytest.approx(10.0 * 2 / 3)
    # v(∅) = 4, v(a) = 0, v(ab) = 10, v(b), which nobody got, 4: a adds −4 alone and 6 after b, b adds 0 and 10
    assert rows["a"].value["Shapley"] == pytest.approx(1.0)
    assert rows["b"].value["Shapley"] == pytest.approx(5.0)
    assert found.nobody["Shapley"] == pytest.approx(4.0 + 4.0)
    assert found.removal == pytest.approx({"a": 1.0, "b": 1.0})
    assert found.nobody["linear"] == found.without_sends == 4.0


def test_journeys_come_from_the_store(engine: Engine, secrets: Secrets) -> None:
    """Sends and purchases of every customer, refunds and bots left out by the join's own rules; who was forgotten is not
    among them, and no_send is no send."""
    fill(engine, secrets, shop(), customers=60)
    with writing(engine) as connection:
        insert_once(connection, tables.forgotten_units, [{"unit": f"u1:{0:032x}", "forgotten_at": 0}])
        c = tables.decisions.c
        silent = [{"position": 1, "content_id": NO_SEND, "propensity": 1.0}]
        connection.execute(tables.decisions.update().where(c.decision_id == "d1").values(chosen=silent))
    with reading(engine) as connection:
        journeys = load_journeys(connection, shop(), "revenue")
        by_content = load_journeys(connection, shop(), "click", "content")
    bought = [purchase for journey in journeys for purchase in journey.purchases]

    assert {journey.unit for journey in journeys} == {f"u1:{number:032x}" for number in range(1, 60)}
    assert [journey.touches for journey in journeys if journey.unit == f"u1:{1:032x}"] == [()]
    assert {touch.key for journey in journeys for touch in journey.touches} == {"spring"}
    assert {touch.key for journey in by_content for touch in journey.touches} == {"a", "b"}
    assert bought
    assert {purchase.value for purchase in bought} == {20.0}
    assert {purchase.value for journey in by_content for purchase in journey.purchases} == {1.0}
