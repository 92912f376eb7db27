"""The budget of a run: never more than its cap, whatever happens to the calls."""

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from pipelines.generation.budget import NO_TOKENS, Budget, Price, Tokens, most_of

PRICE = Price(read=0.15, written=0.6)
CALLS = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 5_000), st.floats(0, 1)), max_size=40)


@given(CALLS, st.integers(0, 5_000), st.integers(0, 20_000))
def test_no_order_of_calls_spends_more_than_the_cap(
    calls: list[tuple[int, int, float]], most_micros: int, most_tokens: int
) -> None:
    """Reserved, settled for less, released or left open: at no moment is more spent than the cap."""
    budget = Budget(most_micros, most_tokens, PRICE)
    for number, (read, written, share) in enumerate(calls):
        most = Tokens(read, written)
        if budget.reserve(most) and number % 3:
            budget.settle(most, Tokens(int(read * share), int(written * share)) if number % 3 == 1 else NO_TOKENS)
        assert 0 <= budget.micros <= most_micros
        assert 0 <= budget.tokens <= most_tokens


def test_many_callers_at_once_share_one_cap() -> None:
    """Of a hundred callers at once exactly as many get a place as there is room for."""
    budget = Budget(10**9, 1_000, PRICE)

    with ThreadPoolExecutor(16) as pool:
        got = sum(pool.map(lambda _: budget.reserve(Tokens(10, 20)), range(100)))

    assert got == 33
    assert budget.tokens == 990


def test_money_is_rounded_up_and_bytes_bound_tokens() -> None:
    """A part of a micro costs a whole one; a call reads at most a token per byte and a few per message."""
    assert PRICE.micros(Tokens(10, 0)) == 2
    assert PRICE.micros(Tokens(1_000_000, 1_000_000)) == 750_000
    assert most_of([{"role": "user", "content": "zwölf"}], 50) == Tokens(4 + 6 + 16, 50)
