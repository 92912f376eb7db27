"""Asking a server for copy: concurrency, tries, time-outs and money, against the stub that speaks the protocol."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.errors import Misconfigured
from infra.settings import Settings
from pipelines.generation.budget import Budget, Price, Tokens, most_of
from pipelines.generation.endpoint import Answer, Endpoint, Question, endpoint_of
from tests.stack.stub_llm import (
    Call,
    Failing,
    Filtered,
    Hangup,
    Limited,
    Malformed,
    Refusal,
    Reply,
    Say,
    Slow,
    StubLLM,
    Trickle,
    tokens_in,
)

PRICE = Price(1.0, 2.0)
QUESTION = Question(({"role": "user", "content": "Write."},), max_tokens=50, seed=7)


class Naps:
    """Notes how long it was told to sleep, and does not."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def plenty() -> Budget:
    return Budget(10**9, 10**9, PRICE)


def endpoint(llm: StubLLM, naps: Naps | None = None, **options: Any) -> Endpoint:
    return Endpoint(llm.url, "stub-1", "secret", price=PRICE, sleep=naps or Naps(), **options)


def word(text: str) -> str:
    """What an answer has to be: a JSON object with a word."""
    found = json.loads(text)
    if not isinstance(found, dict) or "word" not in found:
        raise ValueError("it has no word")
    return str(found["word"])


def ask(llm: StubLLM, *replies: Reply, budget: Budget | None = None, **options: Any) -> Answer[str]:
    llm.answer(*replies)
    (answer,) = endpoint(llm, **options).ask_all([QUESTION], word, budget or plenty())
    return answer


GOOD = Say('{"word": "hello"}')


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_comes_with_its_seed_and_its_cost(llm: StubLLM, streaming: bool) -> None:
    """Tokens and money are what the server says it used, streamed or not; the budget has the same."""
    budget = plenty()

    answer = ask(llm, GOOD, budget=budget, streaming=streaming)

    assert (answer.state, answer.value, answer.seed, answer.tries) == ("answered", "hello", 7, 1)
    assert answer.tokens == Tokens(tokens_in("Write."), tokens_in(GOOD.text))
    assert (answer.micros, answer.tokens.total) == (PRICE.micros(answer.tokens), budget.tokens)
    assert budget.micros == answer.micros
    assert llm.calls[0].headers["authorization"] == "Bearer secret"


def test_answers_come_in_the_order_of_the_questions_a_few_at_once(llm: StubLLM) -> None:
    """No more calls than allowed at the same time, and no mixing of answers."""
    llm.reply = lambda call: Slow(0.05 if "3" in call.last else 0.01, Say(json.dumps({"word": call.last})))
    questions = [Question(({"role": "user", "content": f"q{number}"},)) for number in range(9)]

    answers = endpoint(llm, concurrency=3).ask_all(questions, word, plenty())

    assert [answer.value for answer in answers] == [f"q{number}" for number in range(9)]
    assert llm.at_once <= 3


def test_a_busy_server_is_asked_again_as_late_as_it_says(llm: StubLLM) -> None:
    """Retry-After is kept to, costs nothing, and a server that wants to be left alone for long is taken to be away."""
    naps, budget = Naps(), plenty()
    answer = ask(llm, Limited(7), Limited(None), GOOD, naps=naps, budget=budget)

    assert (answer.state, answer.tries) == ("answered", 3)
    assert naps.seconds[0] == 7
    assert budget.tokens == answer.tokens.total == tokens_in("Write.") + tokens_in(GOOD.text)

    away = ask(llm, Limited(600), GOOD)
    assert (away.state, away.tries) == ("unavailable", 1)
    assert "429" in away.reason


@pytest.mark.parametrize(
    "fault", [Failing(503), Hangup(), Malformed(), Malformed(b"{}"), Say("no json"), Say("x" * 999)]
)
def test_what_cannot_be_used_is_asked_for_again_with_another_seed(llm: StubLLM, fault: Reply) -> None:
    """Errors, broken connections, broken bodies, text that is no JSON and cut answers: the next try may be better."""
    answer = ask(llm, fault, GOOD)

    assert (answer.state, answer.value, answer.tries, answer.seed) == ("answered", "hello", 2, 8)
    assert [call.body["seed"] for call in llm.calls] == [7, 8]


def test_an_end_is_put_to_trying(llm: StubLLM) -> None:
    """After the last try the answer says what went wrong."""
    answer = ask(llm, Say('{"phrase": 1}'), retries=2)

    assert (answer.state, answer.tries) == ("malformed", 3)
    assert answer.reason == "the answer cannot be used: it has no word"


@pytest.mark.parametrize(("fault", "told"), [(Refusal("I won't."), "I won't."), (Filtered(), "filter")])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_refusal_is_an_answer(llm: StubLLM, fault: Reply, told: str, streaming: bool) -> None:
    """Who refuses is not asked again; it cost what it cost."""
    answer = ask(llm, fault, streaming=streaming)

    assert (answer.state, answer.tries) == ("refused", 1)
    assert told in answer.reason


def test_a_wrong_key_or_model_ends_it_at_once(llm: StubLLM) -> None:
    """What the server will never take is not repeated, and the key is in no reason."""
    answer = ask(llm, Failing(401, "wrong key"))

    assert (answer.state, answer.tries, answer.micros) == ("rejected", 1, 0)
    assert answer.reason == "the server answered 401: Error code: 401 - {'error': {'message': 'wrong key'}}"


def test_a_parameter_that_a_server_does_not_know_is_left_out(llm: StubLLM) -> None:
    """Servers differ: what is named in a 400 is left out from then on, and the limit has a second name."""

    def picky(call: Call) -> Reply:
        for name in ("response_format", "max_tokens"):
            if name in call.body:
                return Failing(400, f"unsupported parameter {name}, use max_completion_tokens")
        return GOOD

    llm.reply = picky
    (answer,) = endpoint(llm).ask_all([QUESTION], word, plenty())

    assert answer.state == "answered"
    assert {"max_completion_tokens", "seed"} <= set(llm.calls[-1].body)


def test_a_slow_server_runs_into_the_time_out_and_may_have_charged(llm: StubLLM) -> None:
    """Nobody knows what a call cost whose answer was not waited for: all that was reserved counts as spent."""
    budget = plenty()

    answer = ask(llm, Slow(30.0, GOOD), GOOD, seconds=2.0, budget=budget)

    assert (answer.state, answer.tries) == ("answered", 2)
    used = tokens_in("Write.") + tokens_in(GOOD.text)
    assert budget.tokens > used + 50


@pytest.mark.parametrize("fault", [Hangup(), Malformed(), Malformed(b"{}"), Malformed(b"7"), Trickle(30.0, GOOD)])
def test_a_stream_that_breaks_costs_its_own_answer_a_try_and_no_other(llm: StubLLM, fault: Reply) -> None:
    """Broken off, garbled or stalled after its first piece: it is asked for again, and what others answered is kept."""
    llm.answer(GOOD, fault, GOOD)

    answers = endpoint(llm, streaming=True, concurrency=1, seconds=2.0).ask_all([QUESTION] * 3, word, plenty())

    assert [answer.value for answer in answers] == ["hello"] * 3
    assert answers[1].tries > 1


@pytest.mark.parametrize("streaming", [False, True])
def test_the_time_is_that_of_the_whole_call(llm: StubLLM, streaming: bool) -> None:
    """An answer that comes drop by drop is late, however short the time between two drops is."""
    drops = Trickle(0.4, Say(json.dumps({"word": "x" * 150})))

    answer = ask(llm, drops, GOOD, seconds=2.0, streaming=streaming)

    assert (answer.state, answer.value) == ("answered", "hello")
    assert answer.tries > 1


@pytest.mark.parametrize(("name", "instead"), [("max_tokens", "max_completion_tokens"), ("seed", "temperature")])
def test_what_others_under_way_have_taught_is_no_reason_to_give_up(llm: StubLLM, name: str, instead: str) -> None:
    """Several calls are told the same at the same time: each is asked again without what *it* was sent."""

    def picky(call: Call) -> Reply:
        known = name not in call.body
        return GOOD if known else Slow(0.2, Failing(400, f"unsupported parameter {name}, use {instead}"))

    llm.reply = picky
    answers = endpoint(llm, concurrency=4).ask_all([QUESTION] * 6, word, plenty())

    assert [answer.state for answer in answers] == ["answered"] * 6
    assert all(name not in answer.parameters for answer in answers)


def test_an_answer_keeps_what_it_was_asked_with(llm: StubLLM) -> None:
    """Temperature, seed and longest answer as they were sent; what the server does not take was not used."""
    assert ask(llm, GOOD).parameters == {"temperature": 0.9, "seed": 7, "max_tokens": 50}

    told = "unsupported: seed, temperature; use max_completion_tokens"
    llm.reply = lambda call: GOOD if "seed" not in call.body else Failing(400, told)
    (answer,) = endpoint(llm).ask_all([QUESTION], word, plenty())
    assert (answer.parameters, answer.seed) == ({"max_completion_tokens": 50}, None)


def completion(content: Any, used: Any) -> Malformed:
    """A chat completion that holds what it should not."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return Malformed(json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": used}).encode())


@pytest.mark.parametrize("count", [None, -2_000_000, "7", 7.5, True, 10**12])
def test_what_cannot_be_counted_is_not_known(llm: StubLLM, count: Any) -> None:
    """Usage that is no believable number of tokens costs what was reserved, and gives nothing back."""
    budget = plenty()

    answer = ask(llm, completion(GOOD.text, {"prompt_tokens": count, "completion_tokens": 1}), budget=budget)

    assert (answer.state, answer.tries) == ("answered", 1)
    assert budget.tokens == answer.tokens.total == most_of(QUESTION.messages, 50).total


def test_content_that_is_no_text_is_no_answer(llm: StubLLM) -> None:
    """It is asked for again, and costs what the server says."""
    used = {"prompt_tokens": 3, "completion_tokens": 4}

    answer = ask(llm, completion([{"type": "text", "text": GOOD.text}], used), retries=0)

    assert (answer.state, answer.reason, answer.tokens) == ("malformed", "the answer is no text", Tokens(3, 4))


def test_what_a_server_says_can_be_printed_and_stored(llm: StubLLM) -> None:
    """Half of a surrogate pair, U+0000 and the codes of terminals do not get into a reason."""
    answer = ask(llm, Refusal("I \ud800\x00\x1b[31m\nwon't"))

    assert answer.reason == "the model refused: I [31m won't"


@pytest.mark.parametrize("fault", [GOOD, Malformed(), Hangup(), Say("no json"), Failing(503)])
def test_the_server_is_never_asked_for_more_than_the_budget(llm: StubLLM, fault: Reply) -> None:
    """However calls end, the server is asked only while the most that they can cost fits; the rest is unpaid."""
    each = 5 + 4 + 6 + 16 + 50  # role and content in bytes, what marks may take, the longest answer
    cap = each + 30
    budget = Budget(10**9, cap, PRICE)
    llm.answer(fault)

    answers = endpoint(llm, retries=1, concurrency=1).ask_all([QUESTION] * 20, word, budget)

    assert budget.tokens <= cap
    assert answers[-1].state == "unpaid"
    assert "budget" in answers[-1].reason
    assert sum(answer.tokens.total for answer in answers) == budget.tokens


def test_settings_make_the_endpoint(tmp_path: Path) -> None:
    """Without an address there is none; a key file that is not there stops, by name."""
    assert endpoint_of(Settings()) is None
    with pytest.raises(Misconfigured, match="REWARDLOOP_GENERATOR_KEY_FILE"):
        endpoint_of(Settings(generator_url="http://localhost:1/v1", generator_key_file=tmp_path / "none"))
    found = endpoint_of(Settings(generator_url="http://localhost:11434/v1", generator_model="llama3"))
    assert found is not None
    assert found.model == "llama3"
