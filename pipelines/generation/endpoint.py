"""Any server that speaks OpenAI's chat protocol: hosted, vLLM, Ollama, a gateway. The only module that imports ``openai``.

    endpoint = endpoint_of(settings)                                  None without REWARDLOOP_GENERATOR_URL
    endpoint.ask_all(questions, read, budget) -> [Answer, …]          in the order of the questions

Of each question, at most ``concurrency`` at once:

1 reserve the most it can cost (``budget.py``); without room it is ``unpaid``
2 ask, at most ``seconds`` long from the connection to the last word, however it trickles in
3 settle what it used, 4 read the answer; one that cannot be read is asked for again, with another seed
5 a server that is busy or broken is asked again, as late as it says (``Retry-After``), else with growing pauses

Nothing is raised for what a server does: each answer says how it ended, and why, in a sentence. A refusal is an answer,
and is not asked for again. An optional parameter that a server does not know (it answers 400 and names it) is left out from
then on; an answer keeps the parameters that it was asked with. The key is in no message and no log.
"""

import asyncio
import email.utils
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

import openai
from openai import AsyncOpenAI

from infra.backoff import delays
from infra.errors import Misconfigured
from infra.logs import log
from infra.settings import Settings
from pipelines.generation.budget import NO_TOKENS, Budget, Price, Tokens, most_of

Value = TypeVar("Value")

State = Literal["answered", "refused", "malformed", "unpaid", "rejected", "unavailable"]
"""rejected: the server does not take the question (a wrong key, an unknown model); unavailable: it did not answer."""

LONGEST_PAUSE = 60.0
"""A server that wants to be left alone for longer is taken to be away."""
MOST_TOKENS = 10**9
"""No call uses more: a server that says so is not believed."""
_OPTIONAL = ("response_format", "seed", "temperature", "stream_options")
_LIMIT, _OTHER_LIMIT = "max_tokens", "max_completion_tokens"
_KEPT = ("temperature", "seed", _LIMIT, _OTHER_LIMIT)


@dataclass(frozen=True)
class Question:
    """One call. ``seed``: raised by one with each try, so that the same mistake is not made twice."""

    messages: tuple[dict[str, str], ...]
    max_tokens: int = 1_000
    temperature: float = 0.9
    seed: int = 0
    json: bool = True
    """Whether the answer has to be a JSON object."""


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """How a question ended. ``tokens`` and ``micros``: of all its tries, as the budget counts them."""

    state: State
    value: Value | None = None
    reason: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What the last try was asked with, by the names that the server knows: temperature, seed, the longest answer."""
    tokens: Tokens = NO_TOKENS
    micros: int = 0
    tries: int = 0

    @property
    def seed(self) -> int | None:
        """Of the last try; None where the server takes none."""
        return self.parameters.get("seed")


@dataclass(frozen=True)
class _Heard:
    """What came of one try. ``again``: after so many seconds it may go better; None: it will not."""

    state: State
    text: str = ""
    reason: str = ""
    used: Tokens | None = None
    """None: nobody knows."""
    again: float | None = None


_SOON = 0.0


class Endpoint:
    """A server, a model and the manners it is asked with. ``sleep``: for tests."""

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        *,
        price: Price | None = None,
        concurrency: int = 4,
        seconds: float = 60.0,
        retries: int = 4,
        streaming: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.model, self.price = model, price or Price()
        self._url, self._key = url, key
        self._concurrency, self._seconds, self._retries = concurrency, seconds, retries
        self._streaming, self._sleep = streaming, sleep
        self._left_out: set[str] = set()
        self._limit = _LIMIT

    def ask_all(
        self, questions: Sequence[Question], read: Callable[[str], Value], budget: Budget
    ) -> list[Answer[Value]]:
        """Ask them all. ``read`` makes a value of a text, and raises ``ValueError`` with what is wrong with it."""
        return asyncio.run(self._ask_all(questions, read, budget))

    async def _ask_all(
        self, questions: Sequence[Question], read: Callable[[str], Value], budget: Budget
    ) -> list[Answer[Value]]:
        places = asyncio.Semaphore(self._concurrency)
        async with AsyncOpenAI(base_url=self._url, api_key=self._key or "none", max_retries=0, timeout=None) as client:

            async def ask(question: Question) -> Answer[Value]:
                async with places:
                    return await self._ask(client, question, read, budget)

            return list(await asyncio.gather(*map(ask, questions)))

    async def _ask(
        self, client: AsyncOpenAI, question: Question, read: Callable[[str], Value], budget: Budget
    ) -> Answer[Value]:
        answer: Answer[Value] = Answer("unavailable")
        for number, pause in zip(range(self._retries + 1), delays(), strict=False):
            asked = replace(question, seed=question.seed + number)
            most = most_of(asked.messages, asked.max_tokens)
            if not budget.reserve(most):
                reason = f"the budget has no room for the {most.total:,} tokens that another call may take"
                return replace(answer, state="unpaid", reason="; ".join(filter(None, (answer.reason, reason))))
            body = self._body(asked)
            heard = await self._hear(client, body)
            used = most if heard.used is None else heard.used
            budget.settle(most, used)
            answer = _added(answer, heard, body, used, budget.price)
            if heard.state == "answered":
                try:
                    return replace(answer, value=read(heard.text), reason="")
                except ValueError as error:
                    answer = replace(answer, state="malformed", reason=f"the answer cannot be used: {error}")
                    heard = replace(heard, again=_SOON)
            if heard.again is None or number == self._retries:
                break
            log.info("asking_again", model=self.model, state=answer.state, reason=answer.reason)
            await self._sleep(heard.again or pause)
        return answer

    async def _hear(self, client: AsyncOpenAI, body: Mapping[str, Any]) -> _Heard:
        """One try, whatever comes of it."""
        try:
            async with asyncio.timeout(self._seconds):
                return await _complete(client, body)
        except openai.APIStatusError as error:
            return self._refused(error, body)
        except TimeoutError:
            return _Heard("unavailable", reason=f"no answer within {self._seconds:g} s", again=_SOON)
        except openai.APIConnectionError as error:
            return _Heard("unavailable", reason=f"no connection ({type(error.__cause__).__name__})", again=_SOON)
        except (openai.APIError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            return _Heard("malformed", reason=f"no chat completion ({type(error).__name__})", again=_SOON)
        except Exception as error:  # in the middle of a stream: what breaks the transport there has no common name
            return _Heard("unavailable", reason=f"the connection broke ({type(error).__name__})", again=_SOON)

    def _body(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(question.messages),
            "temperature": question.temperature,
            "seed": question.seed,
            self._limit: question.max_tokens,
        }
        if question.json:
            body["response_format"] = {"type": "json_object"}
        if self._streaming:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return {name: value for name, value in body.items() if name not in self._left_out}

    def _refused(self, error: openai.APIStatusError, sent: Collection[str]) -> _Heard:
        """What a status means. Only a server that turned the question away is known to have used nothing."""
        said = told(error.message)
        reason = f"the server answered {error.status_code}: {said}"
        if error.status_code == 429 and "insufficient_quota" not in said:
            after = _retry_after(error.response.headers.get("retry-after"))
            late = after is not None and after > LONGEST_PAUSE
            return _Heard("unavailable", reason=reason, used=NO_TOKENS, again=None if late else after or _SOON)
        if error.status_code >= 500 or error.status_code in (408, 409):
            after = _retry_after(error.response.headers.get("retry-after"))
            return _Heard("unavailable", reason=reason, again=min(after or _SOON, LONGEST_PAUSE))
        return _Heard("rejected", reason=reason, used=NO_TOKENS, again=_SOON if self._learns(said, sent) else None)

    def _learns(self, said: str, sent: Collection[str]) -> bool:
        """Whether the server named a parameter of what it was sent that it can be asked without. Others that were under way may
        have taught it already: it is asked again all the same."""
        if _LIMIT in sent and _OTHER_LIMIT in said:
            self._limit = _OTHER_LIMIT
            return True
        named = {name for name in _OPTIONAL if name in said and name in sent}
        self._left_out |= named
        return bool(named)


def endpoint_of(settings: Settings) -> Endpoint | None:
    """The endpoint of the settings; None without one. Raises :class:`Misconfigured` for a key file that is not there."""
    if not settings.generator_url:
        return None
    try:
        key = "" if settings.generator_key_file is None else settings.generator_key_file.read_text().strip()
    except OSError as error:
        raise Misconfigured(f"REWARDLOOP_GENERATOR_KEY_FILE cannot be read: {error.strerror}") from None
    return Endpoint(
        settings.generator_url,
        settings.generator_model,
        key,
        price=Price(settings.generator_price_read, settings.generator_price_written, settings.generator_currency),
        concurrency=settings.generator_concurrency,
        seconds=settings.generator_seconds,
        retries=settings.generator_retries,
        streaming=settings.generator_streaming,
    )


async def _complete(client: AsyncOpenAI, body: Mapping[str, Any]) -> _Heard:
    found: Any = await client.chat.completions.create(**body)
    if body.get("stream"):
        async with found:
            return await _streamed(found)
    choice = found.choices[0]
    return _heard(choice.message.content, choice.message.refusal, choice.finish_reason, _used(found.usage))


async def _streamed(chunks: Any) -> _Heard:
    """An answer in pieces, put together."""
    text, refusal, reason, used = [], [], None, None
    async for chunk in chunks:
        if chunk.usage is not None:
            used = _used(chunk.usage)
        for choice in chunk.choices[:1]:
            text.append(choice.delta.content or "")
            refusal.append(choice.delta.refusal or "")
            reason = choice.finish_reason or reason
    return _heard("".join(text), "".join(refusal), reason, used)


def _used(usage: Any) -> Tokens | None:
    """What the server says that it used; None where it says nothing that can be counted."""
    counts: list[Any] = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    return Tokens(*counts) if all(type(count) is int and 0 <= count <= MOST_TOKENS for count in counts) else None


def _heard(text: Any, refusal: Any, finished: Any, used: Tokens | None) -> _Heard:
    if refusal:
        return _Heard("refused", reason=f"the model refused: {told(refusal)}", used=used)
    if finished == "content_filter":
        return _Heard("refused", reason="a filter of the server took the answer away", used=used)
    if finished == "length":
        return _Heard("malformed", reason="the answer was cut at its longest", used=used, again=_SOON)
    if not isinstance(text, str | None):
        return _Heard("malformed", reason="the answer is no text", used=used, again=_SOON)
    return _Heard("answered", text or "", used=used)


def told(said: object) -> str:
    """What a server said, as part of a sentence: one line, short, of letters that can be stored and printed."""
    return "".join(filter(str.isprintable, " ".join(str(said).split())))[:200]


def _added(answer: Answer[Value], heard: _Heard, body: Mapping[str, Any], used: Tokens, price: Price) -> Answer[Value]:
    return Answer(
        state=heard.state,
        reason=heard.reason,
        parameters={name: body[name] for name in _KEPT if name in body},
        tokens=answer.tokens + used,
        micros=answer.micros + price.micros(used),
        tries=answer.tries + 1,
    )


def _retry_after(said: str | None) -> float | None:
    """Seconds of a ``Retry-After``: a number, or a date."""
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
