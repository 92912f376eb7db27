"""Copy by a language model: which of an answer's variants become drafts, and what a draft keeps of how it was written."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.generation.budget import Budget, Price
from pipelines.generation.endpoint import Endpoint
from pipelines.generation.generators import Order
from pipelines.generation.language_model import AT_ONCE, LanguageModel, read_variants
from pipelines.generation.prompts import Prompt
from tests.pipelines.generation.anything import COMPLETIONS
from tests.stack.stub_llm import Failing, Malformed, Say, StubLLM

PRICE = Price(1.0, 2.0)
LINES = Say(json.dumps({"variants": [{"subject": "Coats are back"}]}))


def order(count: int = 1, **parameters: Any) -> Order:
    """So many lines by a prompt with these parameters."""
    prompt = Prompt(prompt_id="ask", version=1, template="{{brief}}", strategy="ask", parameters=parameters)
    return Order(prompt=prompt, count=count, seed=7, brief="Coats")


def model_at(llm: StubLLM, budget: Budget, **options: Any) -> LanguageModel:
    return LanguageModel(Endpoint(llm.url, "stub-1", price=PRICE, **options), budget)


@pytest.mark.parametrize("text", ["half \ud800", "nul \x00", "", "  ", "x" * 2_001, 7, None, ["x"]])
def test_text_that_no_database_keeps_is_no_variant(text: Any) -> None:
    """It is dropped, and the variants beside it are kept; an answer of such text alone cannot be used."""
    good = {"subject": "Coats are back"}

    assert read_variants(json.dumps({"variants": [{"subject": text}, good]}), ["subject"]) == [good]
    with pytest.raises(ValueError, match="none of its variants"):
        read_variants(json.dumps({"variants": [{"subject": text}]}), ["subject"])


def test_a_draft_keeps_what_it_was_really_written_with(llm: StubLLM) -> None:
    """A temperature that nobody set and the longest answer are kept; what is never sent, or not taken, is not."""
    llm.answer(LINES)
    budget = Budget(10**9, 10**9, PRICE)
    plain, set_ = model_at(llm, budget).write([order(), order(temperature=0.3, top_p=0.5)]).drafts
    llm.reply = lambda call: LINES if "seed" not in call.body else Failing(400, "unsupported: seed, temperature")
    (picky,) = model_at(llm, budget).write([order(temperature=0.3)]).drafts

    kept = [draft.content("june").parameters for draft in (plain, set_, picky)]
    names = ("temperature", "max_tokens", "seed", "top_p")
    assert [{name: one[name] for name in names if name in one} for one in kept] == [
        {"temperature": 0.9, "max_tokens": 200, "seed": 7},
        {"temperature": 0.3, "max_tokens": 200, "seed": 7},
        {"max_tokens": 200},
    ]


@settings(max_examples=12, deadline=None)
@given(bodies=st.lists(COMPLETIONS, min_size=8, max_size=8), streaming=st.booleans())
def test_nothing_is_raised_for_what_a_server_answers(llm_server: StubLLM, bodies: list[Any], streaming: bool) -> None:
    """Whatever JSON it sends: drafts that can be stored or a reason that can be printed, and money that adds up."""
    llm_server.reset()
    llm_server.answer(*(Malformed(json.dumps(body).encode()) for body in bodies))
    budget = Budget(10**9, 10**9, PRICE)

    model = model_at(llm_server, budget, retries=0, streaming=streaming)
    written = model.write([order(AT_ONCE * len(bodies))])

    assert all(draft.content("june").fingerprint for draft in written.drafts)
    assert all(reason.isprintable() for reason in written.failures)
    assert 0 <= written.tokens == budget.tokens
