"""The generate flow's steps, over a real database: what is written, kept, approved and told."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput, Unavailable
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.contents import read_campaign, read_verdicts
from ingestion.events import Campaign, Content
from ingestion.loops import LoopDefinition, put_loop
from pipelines.generation.budget import Budget, Price
from pipelines.generation.endpoint import Endpoint
from pipelines.generation.generators import Order, Written
from pipelines.generation.judge import COPY
from pipelines.generation.language_model import LanguageModel
from pipelines.generation.outcome import Wish
from pipelines.generation.past import Past, past_of, prompt_worth
from pipelines.generation.prompts import newest, put_prompt
from pipelines.generation.rating import Judge
from pipelines.generation.steps import generate
from pipelines.learning import Bench
from tests.pipelines import worlds
from tests.pipelines.memory_tracking import MemoryTracking
from tests.stack.stub_llm import Call, Failing, Refusal, Reply, Say, StubLLM

BRIEF = "Bring customers back for the winter collection: 12 coats, save 20 %."
RULES = {"facts": "brief", "placeholders": ["first_name"], "slots": {"subject": {"least": 5, "most": 150}}}


def bench_of(engine: Engine, settings: Settings) -> Bench:
    return Bench(settings, engine, lambda: worlds.NOW, MemoryTracking())


def open_campaign(engine: Engine, approval: str = "manual", **rules: Any) -> LoopDefinition:
    definition = worlds.definition(loop="mail", approval=approval, copy_rules=RULES | rules)
    with writing(engine) as connection:
        put_loop(connection, definition, 1)
        campaign = Campaign(campaign_id="winter", loop_id="mail", brief=BRIEF, state="draft")
        connection.execute(tables.campaigns.insert().values(**msgspec.structs.asdict(campaign)))
    return definition


def contents_of(engine: Engine) -> dict[str, Any]:
    with reading(engine) as connection:
        rows = connection.execute(select(tables.contents).where(tables.contents.c.campaign_id == "winter")).all()
    return {row.content_id: row for row in rows}


def test_all_drafts_are_kept_on_record_and_only_what_passed_waits(engine: Engine, settings: Settings) -> None:
    """Every draft is a content with its verdicts; those kept wait for approval, all others are rejected, and why."""
    open_campaign(engine)

    made = generate(bench_of(engine, settings), Wish(campaign_id="winter", count=5, candidates=8, seed=3))

    stored = contents_of(engine)
    waiting = {name for name, row in stored.items() if row.approval == "draft"}
    assert (made.state, made.written, made.ordered) == ("waiting", 40, 40)
    assert waiting == {one.content_id for one in made.kept}
    assert len(waiting) == 5
    assert len(stored) == made.written - made.known
    assert {row.approval for row in stored.values()} == {"draft", "rejected"}
    assert made.broken["facts"] > 0
    with reading(engine) as connection:
        verdicts = read_verdicts(connection, list(stored))
        campaign = read_campaign(connection, "winter")
    for name in stored:
        failed = [one for one in verdicts[name] if not one.passed]
        assert bool(failed) == (name not in waiting)
        assert all(one.reason for one in failed)
    assert campaign.state == "draft"


def test_copy_keeps_where_it_comes_from(engine: Engine, settings: Settings) -> None:
    """Prompt, version, model, seed and cost stand with each content."""
    open_campaign(engine)
    generate(bench_of(engine, settings), Wish(campaign_id="winter", count=2, candidates=2, prompts=("ask",), seed=3))

    for row in contents_of(engine).values():
        assert (row.prompt_id, row.generator) == ("ask", "templates")
        assert {"prompt_version", "model", "seed", "tokens_read", "tokens_written", "cost_micros"} <= set(
            row.parameters
        )


def test_a_loop_that_approves_by_itself_starts_its_campaign(engine: Engine, settings: Settings) -> None:
    """With automatic approval what is kept is a candidate at once; the same wish again finds its copy known."""
    open_campaign(engine, approval="automatic")
    wish = Wish(campaign_id="winter", count=3, candidates=4, seed=5)

    made = generate(bench_of(engine, settings), wish)
    again = generate(bench_of(engine, settings), wish)

    assert made.state == "approved"
    with reading(engine) as connection:
        campaign = read_campaign(connection, "winter")
    assert campaign.state == "running"
    assert campaign.baseline["content_ids"] == sorted(one.content_id for one in made.kept)
    assert again.known == again.written
    assert again.state == "nothing"


def variants(call: Call) -> Reply:
    """Five lines, one of them broken, one against the rules."""
    number = len(call.text) + call.number
    lines: list[Any] = [f"Coats for {word} days, {number}" for word in ("cold", "short")]
    lines = [line.rsplit(",", 1)[0] for line in lines]
    return Say(
        json.dumps({"variants": [*({"subject": f"{line} {call.number * 'x'}"} for line in lines), {"subject": 7}]})
    )


def model_at(llm: StubLLM, budget: Budget | None = None) -> LanguageModel:
    endpoint = Endpoint(llm.url, "stub-1", price=Price(100.0, 200.0), retries=1, sleep=_no_sleep)
    return LanguageModel(endpoint, budget or Budget(10**9, 10**9, Price(100.0, 200.0)))


async def _no_sleep(_seconds: float) -> None:
    """At once."""


def test_a_language_model_writes_within_the_rules_and_its_cost_is_kept(
    engine: Engine, settings: Settings, llm: StubLLM
) -> None:
    """The question holds brief, rules and prompt; the answers' cost is shared between their drafts, to the last micro."""
    open_campaign(engine)
    llm.reply = variants

    made = generate(
        bench_of(engine, settings), Wish(campaign_id="winter", count=2, candidates=5, seed=1), model_at(llm)
    )

    stored = contents_of(engine).values()
    assert BRIEF in llm.calls[0].text
    assert "No number, price, percentage or date that is not in the brief." in llm.calls[0].text
    assert "subject: 5 to 150 characters." in llm.calls[0].text
    assert made.written > 0
    assert made.micros == sum(row.parameters["cost_micros"] for row in stored) > 0
    assert made.currency == "USD"


def test_a_run_is_told_in_mlflow_and_its_text_is_no_markup(engine: Engine, settings: Settings, llm: StubLLM) -> None:
    """The run stands in the loop's experiment with its prompts; what was written is data there; MLflow may be away."""
    open_campaign(engine, slots={}, placeholders=None)
    with writing(engine) as connection:
        put_prompt(connection, "ask", "{{count}} lines for {{brief}}", "ask", {}, 1)
        last = put_prompt(connection, "ask", "{{count}} questions for {{brief}}", "ask", {}, 1)
    llm.answer(Say(json.dumps({"variants": [{"subject": "<script>alert()</script> [x](javascript:y)"}]})))
    bench = bench_of(engine, settings)
    tracking = bench.tracking
    assert isinstance(tracking, MemoryTracking)

    generate(bench, Wish(campaign_id="winter", count=1, candidates=1, prompts=("ask",), seed=1), model_at(llm))

    (record,) = tracking.reported.values()
    assert record.metrics["contents kept"] == 1
    assert "<script>" not in record.description
    assert list(tracking.prompts) == [("ask", number) for number in range(1, last.version + 1)]
    assert tracking.prompts["ask", last.version] == last.template != tracking.prompts["ask", last.version - 1]
    tracking.away = True
    llm.answer(Say(json.dumps({"variants": [{"subject": "Another line"}]})))
    again = generate(bench, Wish(campaign_id="winter", count=1, candidates=1, prompts=("ask",), seed=2), model_at(llm))
    assert len(again.kept) == 1


def written_and_rated(call: Call) -> Reply:
    """Lines for whoever asks for copy, and 4 of 5 for whoever asks what copy is worth."""
    if "You rate marketing copy" not in call.text:
        return variants(call)
    scores = dict.fromkeys([criterion.name for criterion in COPY.criteria], 4)
    return Say(json.dumps({"mark": call.last.split("\n")[0], "scores": scores, "reason": "so it is"}))


def test_what_is_kept_is_rated_within_the_same_budget(engine: Engine, settings: Settings, llm: StubLLM) -> None:
    """A judge's ratings of what is kept are feedback of its own source, whose cost is the run's; once the money is gone copy is
    kept unrated, and the run says so."""
    open_campaign(engine)
    llm.reply = written_and_rated
    price = Price(100.0, 200.0)
    wish = Wish(campaign_id="winter", count=2, candidates=5, prompts=("ask",), seed=1)

    for money, rated in ((10**9, 2), (0, 0)):
        judge = Judge(Endpoint(llm.url, "stub-1", price=price, sleep=_no_sleep), COPY, Budget(money, 10**9, price))
        wish = msgspec.structs.replace(wish, seed=money)
        made = generate(bench_of(engine, settings), wish, model_at(llm), judge=judge)
        assert (len(made.kept), made.rated) == (2, rated)
        assert any("budget" in reason for reason in made.failures) == (money == 0)
    with reading(engine) as connection:
        rows = connection.execute(select(tables.feedback)).all()
    assert {(row.kind, row.source, row.value["rating"], row.loop_id) for row in rows} == {
        ("rating", "LLM_JUDGE", 4.0, "mail")
    }
    assert len(rows) == 2


def test_refusals_are_told_and_a_server_that_is_away_may_be_tried_again(
    engine: Engine, settings: Settings, llm: StubLLM
) -> None:
    """A model that refuses leaves nothing but its words; one that is away raises what can be retried."""
    open_campaign(engine)
    wish = Wish(campaign_id="winter", count=1, candidates=2, seed=1)

    llm.answer(Refusal("I won't"))
    made = generate(bench_of(engine, settings), wish, model_at(llm))
    assert (made.state, made.written) == ("nothing", 0)
    assert "I won't" in made.sentence

    llm.answer(Failing(503))
    with pytest.raises(Unavailable, match="does not answer"):
        generate(bench_of(engine, settings), wish, model_at(llm))
    assert contents_of(engine) == {}


def test_a_wish_that_cannot_be_is_refused(engine: Engine, settings: Settings) -> None:
    """Too many drafts, an unknown prompt and an ended campaign are said before anything is written."""
    open_campaign(engine)
    bench = bench_of(engine, settings)

    with pytest.raises(BadInput, match="1 to 500"):
        generate(bench, Wish(campaign_id="winter", count=100, candidates=100))
    with pytest.raises(BadInput, match="No prompt 'none'"):
        generate(bench, Wish(campaign_id="winter", prompts=("none",)))
    with writing(engine) as connection:
        connection.execute(tables.campaigns.update().values(state="ended"))
    with pytest.raises(BadInput, match="has ended"):
        generate(bench, Wish(campaign_id="winter"))


class Listening:
    """A generator that notes its orders and writes nothing."""

    name = "listening"

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def write(self, orders: Sequence[Order]) -> Written:
        self.orders += orders
        return Written(failures=("nothing today",))


def test_winners_and_losers_of_earlier_copy_are_shown(engine: Engine, settings: Settings, secrets: Secrets) -> None:
    """What surely earned more than its campaign is an example to follow, what earned less one to avoid."""
    rates = {"c-bold": 0.4, "c-plain": 0.15, "c-warm": 0.02}
    rules = worlds.populate(engine, secrets, rate=lambda _segment, tone: rates[f"c-{tone}"], decisions=1_500)
    generator = Listening()

    made = generate(bench_of(engine, settings), Wish(campaign_id="spring", count=2, candidates=2), generator)

    assert generator.orders[0].winners == ("A bold offer",)
    assert "A warm offer" in generator.orders[0].losers
    assert made.examples == len(generator.orders[0].winners + generator.orders[0].losers)
    with reading(engine) as connection:
        past = {one.content.content_id: one for one in past_of(connection, rules)}
        assert {prompt.prompt_id for prompt in newest(connection)} >= {"ask", "plain"}
    assert past["c-bold"].relative > 1.5 > 1.0 > past["c-warm"].relative
    assert sum(one.exposures for one in past.values()) == 1_500


def test_a_prompt_is_as_sure_as_its_lines_are_many() -> None:
    """One line that was sent a million times says less of its prompt than ten lines sent a thousand times."""

    def line(sd: float) -> Past:
        return Past(Content(content_id="c", campaign_id="k", slots={}), 1.0, 1.4, sd)

    one, ten = prompt_worth([line(0.001)]), prompt_worth([line(0.05)] * 10)

    assert prompt_worth([]) == pytest.approx((1.0, 0.1))
    assert 1.0 < one[0] < ten[0] < 1.4
    assert ten[1] < one[1] < 0.1
