"""What a loop spends on language models in a month: taken, spent and booked."""

from typing import Any

import pytest
from sqlalchemy import Engine

from infra.clock import DAY, parse_time
from infra.errors import Conflict
from infra.secrets import Secrets
from infra.settings import Settings
from pipelines.commands.generating import told_month
from pipelines.commands.workspace import Workspace
from pipelines.generation.budget import Tokens
from pipelines.generation.purse import purse, spent

NOVEMBER = parse_time("2026-11-30T23:59:59Z")
MILLION = Tokens(1_000_000, 0)
"""Costs 1."""


def rules(**changes: Any) -> Settings:
    """Two per run, five per month, one per million tokens that are read."""
    named = {"generator_price_read": 1.0, "generator_budget": 2.0, "generator_month_budget": 5.0}
    return Settings(**(named | changes), generator_token_budget=10**9)


def broken_run(engine: Engine) -> None:
    """A run that breaks once it has spent 1."""
    with purse(engine, rules(), "mail", lambda: NOVEMBER) as budget:
        assert budget.reserve(MILLION)
        raise KeyError("broken")


def test_a_run_books_what_it_spent(any_engine: Engine) -> None:
    """While it runs all that it may spend is taken; afterwards only what was spent, also of a run that broke."""
    with purse(any_engine, rules(), "mail", lambda: NOVEMBER) as budget:
        assert spent(any_engine, rules(), "mail", NOVEMBER) == 2_000_000
        assert budget.reserve(MILLION)
        assert budget.reserve(MILLION)
        assert not budget.reserve(Tokens(1, 0))
        budget.release(MILLION)
    with pytest.raises(KeyError):
        broken_run(any_engine)

    assert spent(any_engine, rules(), "mail", NOVEMBER) == 2_000_000


def test_a_month_is_a_cap_for_all_runs_together(any_engine: Engine) -> None:
    """The third run at the same time gets what is left, the fourth is told what to do; other loops and the next month are
    their own."""

    def begin(loop: str, now: int) -> Any:
        found = purse(any_engine, rules(), loop, lambda: now)
        return found, found.__enter__()

    begun = [begin("mail", NOVEMBER) for _ in range(3)]
    third = begun[2][1]
    assert third.reserve(MILLION)
    assert not third.reserve(Tokens(1, 0))
    with pytest.raises(Conflict, match="GENERATOR_MONTH_BUDGET"):
        begin("mail", NOVEMBER)
    begun += [begin("push", NOVEMBER), begin("mail", NOVEMBER + DAY)]
    for opened, _ in begun:
        opened.__exit__(None, None, None)

    assert spent(any_engine, rules(), "mail", NOVEMBER) == 1_000_000
    assert spent(any_engine, rules(), "mail", NOVEMBER + DAY) == 0


def test_without_a_cap_a_month_is_kept_all_the_same(any_engine: Engine) -> None:
    """Spending is booked where nobody set a budget per month; a model of one's own costs nothing and is not refused."""
    with purse(any_engine, rules(generator_month_budget=None), "mail", lambda: NOVEMBER) as budget:
        assert budget.reserve(MILLION)
    free = rules(generator_price_read=0.0, generator_month_budget=0.0)
    with purse(any_engine, free, "mail", lambda: NOVEMBER) as budget:
        assert budget.reserve(Tokens(10**8, 0))

    assert spent(any_engine, rules(), "mail", NOVEMBER) == 1_000_000


def test_a_month_is_told(any_engine: Engine, secrets: Secrets) -> None:
    """In money, and of how much, where there is a cap."""
    with purse(any_engine, rules(), "mail", lambda: NOVEMBER) as budget:
        assert budget.reserve(MILLION)

    for cap, said in ((5.0, "mail has spent 1.0000 of 5.00 USD."), (None, "mail has spent 1.0000 USD.")):
        workspace = Workspace(rules(generator_month_budget=cap), any_engine, secrets, lambda: NOVEMBER)
        assert told_month(workspace, "mail") == f"This month {said}"
