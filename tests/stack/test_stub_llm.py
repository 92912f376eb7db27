"""The stub server, asked by the client that everybody uses."""

import openai
import pytest
from openai import OpenAI, Stream
from openai.types.chat import ChatCompletion

from tests.stack.stub_llm import (
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

ASK = [{"role": "user", "content": "Write a line."}]


def client(stub: StubLLM, timeout: float = 10.0, retries: int = 0) -> OpenAI:
    return OpenAI(base_url=stub.url, api_key="any", max_retries=retries, timeout=timeout)


def ask(stub: StubLLM, **options: object) -> object:
    return client(stub).chat.completions.create(model="m", messages=ASK, **options)  # type: ignore[call-overload]


def test_it_answers_and_counts_tokens(llm: StubLLM) -> None:
    """An answer has its text, the model that was asked for, and what it cost in tokens."""
    llm.answer(Say("A fine line."))

    found = client(llm).chat.completions.create(model="m", messages=[{"role": "user", "content": "Write a line."}], n=2)

    assert [choice.message.content for choice in found.choices] == ["A fine line."] * 2
    assert found.model == "m"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (tokens_in("Write a line."), 6)
    assert llm.calls[0].last == "Write a line."


def test_a_streamed_answer_is_the_same_in_pieces(llm: StubLLM) -> None:
    """Streamed, the pieces make the text, and the usage comes last."""
    llm.answer(Say("A line of more than ten letters."))

    pieces = list(
        client(llm).chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "?"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == "A line of more than ten letters."
    assert pieces[-1].usage is not None


def test_the_client_understands_every_way_to_fail(llm: StubLLM) -> None:
    """Limits, errors, broken bodies and broken connections are what the client says they are."""
    llm.answer(Limited(2), Failing(503), Malformed(), Hangup())

    with pytest.raises(openai.RateLimitError) as limited:
        ask(llm)
    with pytest.raises(openai.InternalServerError):
        ask(llm)
    with pytest.raises((openai.APIError, ValueError)):
        ask(llm)
    with pytest.raises(openai.APIConnectionError):
        ask(llm)
    assert limited.value.response.headers["retry-after"] == "2"


@pytest.mark.parametrize(("fault", "said"), [(Hangup(), "peer closed"), (Malformed(), "Unterminated")])
def test_a_stream_breaks_after_its_first_piece(llm: StubLLM, fault: Reply, said: str) -> None:
    """Faults come in the middle of a stream, where the client has begun to read and translates nothing any more."""
    llm.answer(fault)
    pieces = client(llm).chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True)

    assert next(pieces).choices[0].delta.content == "the first "
    with pytest.raises(Exception, match=said):
        next(pieces)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_trickles_is_whole(llm: StubLLM, stream: bool) -> None:
    """Who waits long enough has all of it."""
    llm.answer(Trickle(0.001, Say("drop by drop")))
    found = ask(llm, stream=stream)

    assert isinstance(found, ChatCompletion | Stream)
    if isinstance(found, Stream):
        assert "".join(piece.choices[0].delta.content or "" for piece in found) == "drop by drop"
    else:
        assert found.choices[0].message.content == "drop by drop"


def test_refusals_filters_and_cut_answers_are_told(llm: StubLLM) -> None:
    """A refusal is in its own field, a filtered answer is empty, a cut one says so."""
    llm.answer(Refusal("no"), Filtered(), Say("x" * 100))
    chat = client(llm).chat.completions

    refused = chat.create(model="m", messages=[{"role": "user", "content": "?"}]).choices[0]
    filtered = chat.create(model="m", messages=[{"role": "user", "content": "?"}]).choices[0]
    cut = chat.create(model="m", messages=[{"role": "user", "content": "?"}], max_tokens=5).choices[0]

    assert (refused.message.refusal, refused.message.content) == ("no", None)
    assert filtered.finish_reason == "content_filter"
    assert (cut.finish_reason, cut.message.content) == ("length", "x" * 20)


def test_a_slow_answer_runs_into_the_time_out(llm: StubLLM) -> None:
    """Who does not wait is not answered."""
    llm.answer(Slow(5.0))

    with pytest.raises(openai.APITimeoutError):
        client(llm, timeout=0.2).chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
