"""The bodies of the calls that choose and score: what comes in and what is answered."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from ingestion.events import Group, Mode
from ingestion.fields import Body, DecisionId, Features, Id, Name, Person
from ingestion.http.bodies import ContentBody
from ingestion.links import LINKS_LIMIT, URL_LIMIT
from ingestion.loops import LoopId

Links = Annotated[
    dict[Name, Annotated[str, Field(min_length=1, max_length=URL_LIMIT)]], Field(min_length=1, max_length=LINKS_LIMIT)
]
Slots = Annotated[int, Field(ge=1, le=500, description="How many positions are really shown.")]


def _kind(value: Any) -> str:
    return "<id>" if isinstance(value, str) else "<draft>"


Candidate = Annotated[
    Annotated[Id, Tag("<id>")] | Annotated[ContentBody, Tag("<draft>")],
    Discriminator(_kind),
]
"""Told apart before either is read, so that a misspelt draft is not reported as a wrong id."""

Drafts = Annotated[list[Candidate], Field(min_length=1)]


class RankBody(Body):
    """A question: which content now?"""

    decision_id: DecisionId | None = Field(
        None, description="Makes the call repeatable: the same id gets the stored answer. Default: a new UUIDv7."
    )
    loop: LoopId = Field(description="The loop.")
    campaign: Id = Field(description="The campaign.")
    unit: Person | None = Field(None, description="The customer, in clear; stored hashed. Without one: never held out.")
    context: Features = Field(default_factory=dict, description="What is known now, at most 200 features.")
    candidates: Drafts | None = Field(
        None,
        description="Ids, or drafts given whole: they are registered under the loop's approval rule. "
        "Default: the campaign's approved contents.",
    )
    slots: Slots = 1
    defer_activation: bool = Field(False, description="It counts only once POST /v1/decisions/{id}/activate says so.")
    excluded: Annotated[list[Id], Field(max_length=500)] = Field(
        default_factory=list, description="Contents that must not be chosen."
    )
    must_include: Annotated[list[Id], Field(max_length=500)] = Field(
        default_factory=list,
        description="Contents that the slate has to hold, at most as many as `slots`; the rest is drawn, and every position "
        "has its exact propensity. One that is not eligible: 409.",
    )
    links: Links | None = Field(
        None,
        description="`{name: address}` on hosts in `REWARDLOOP_REDIRECT_HOSTS`: each content within `slots` is answered "
        "with addresses that record the click and lead there. Not part of the decision: repeated with other links, it "
        "is the stored choice with these.",
    )
    dry_run: bool = Field(False, description="Store nothing.")
    explain: bool = Field(
        False,
        description="Answer every candidate's numbers too, and why it has its score: of the chosen and the best, 50 in all, at "
        "about two milliseconds each. Nothing of it is stored.",
    )


class Ranked(Body):
    """A content in the answer. Positions beyond `slots` are sorted by score and were not drawn."""

    content_id: str = Field(description="The content.")
    position: int = Field(description="1 is first.")
    score: float | None = Field(description="Posterior mean of the reward; null in a fallback.")
    propensity: float | None = Field(description="Probability, given the positions above; null beyond `slots`.")
    links: dict[str, str] | None = Field(
        None,
        description="With `links`, within `slots`: the addresses to put into the copy, by name. When nothing was stored: "
        "the addresses as given, so that the copy works.",
    )


class Reason(Body):
    """A line of a score: all lines of a content add up to it."""

    what: str = Field(description="In words: a copy factor, a feature, the context, the campaign, what was observed.")
    kind: Literal["campaign", "factor", "feature", "wording", "context", "rest", "observed"] = Field(
        description="`campaign`: what average copy earns in it; `factor`: something in the text; `feature`: something known of "
        "the content; `wording`: the words themselves; `context`: something known of the customer or the moment; `rest`: many "
        "small ones; `observed`: what was seen since the model was trained."
    )
    effect: float = Field(description="What it adds to the expected reward.")


class CandidateAnswer(Body):
    """A candidate's numbers, as stored."""

    content_id: str = Field(description="The content.")
    score: float | None = Field(description="What the policy ranked on.")
    expected: float | None = Field(description="The model's prediction, without the content's own effect.")
    mean: float | None = Field(description="Posterior mean of the reward.")
    sd: float | None = Field(description="Its standard deviation.")
    policy_p: float | None = Field(description="What the policy would have drawn it with.")
    behaviour_p: float | None = Field(description="What it was drawn with.")
    reasons: list[Reason] | None = Field(
        None, description="Why it has its score: they add up to it. Null: it has none, or 50 others came first."
    )


class ExclusionAnswer(Body):
    """A content that was not eligible."""

    content_id: str = Field(description="The content.")
    reason: str = Field(description="Why.")


class RankAnswer(Body):
    """The choice."""

    decision_id: str = Field(description="Name it in events, or use the token.")
    token: str | None = Field(description="Signed; put it into links. Null when nothing was stored.")
    ranked: list[Ranked] = Field(description="The chosen contents, then the others by score.")
    group: Group = Field(description="`holdout` units always get the baseline.")
    learning_mode: Mode = Field(description="`fallback`: the baseline, because the loop could not choose.")
    model_version: str | None = Field(description="Reward model used; null for none.")
    policy_version: str = Field(description="Policy and parameters used.")
    durable: bool = Field(description="False: not stored (dry run, or the database is away), so nothing is learned.")
    excluded: list[ExclusionAnswer] = Field(description="What was not eligible, and why.")
    withheld: str | None = Field(
        None,
        description="Why this customer is sent nothing now, whatever the contents: suppressed, or a frequency cap. The answer is "
        "`no_send`, and the decision does not start: do not activate it.",
    )
    candidates: list[CandidateAnswer] | None = Field(None, description="With `explain`: every candidate's numbers.")


class ScoreBody(Body):
    """Texts or contents to score. Nothing is stored, nothing explored."""

    loop: LoopId = Field(description="The loop.")
    campaign: Id | None = Field(None, description="Its level is used; default: the loop's mean.")
    contents: Annotated[list[ContentBody], Field(max_length=500)] | None = Field(None, description="Contents, whole.")
    texts: Annotated[list[str], Field(max_length=500)] | None = Field(None, description="Or texts of one slot.")
    slot: Name = Field(
        "subject", description="The slot that `texts` are for. Left out: `subject`, or what the loop's model knows."
    )
    context: Features = Field(default_factory=dict, description="For whom; default: nothing is known.")
    explain: bool = Field(False, description="Answer why, of the best 50, at about two milliseconds each.")


class Score(Body):
    """One text's or content's score."""

    index: int = Field(description="Place in the request, from 0.")
    expected: float = Field(description="Expected reward.")
    low: float = Field(description="Lower end of its 95 % interval.")
    high: float = Field(description="Upper end of its 95 % interval.")
    relative: float = Field(description="Expected reward minus the loop's mean.")
    rank: int = Field(description="1 is best in this request.")
    reasons: list[Reason] | None = Field(
        None, description="With `explain`: why; the lines add up to `expected`. Null beyond the best 50."
    )


class ScoreAnswer(Body):
    """Scores in the order given."""

    loop: str = Field(description="The loop.")
    model_version: str = Field(description="Reward model used.")
    loop_mean: float = Field(description="The loop's mean reward.")
    scores: list[Score] = Field(description="One per text or content.")


class TracedEvent(Body):
    """An event of a decision, per metric."""

    source: str = Field(description="Who reported it.")
    event_id: str = Field(description="The sender's id.")
    occurred_at: str = Field(description="When it happened.")
    method: str = Field(description="How it was attributed: `decision_id`, `token`, `last_touch` or `reversal`.")
    content_id: str | None = Field(description="The content it is about.")
    metric: str = Field(description="The metric it counts for.")
    used: bool = Field(description="Whether it counts.")
    reason: str | None = Field(description="Why it does not count.")
    value: float | None = Field(description="Its value after refunds, in units.")


class TracedOutcome(Body):
    """What came of a chosen content: one metric."""

    content_id: str = Field(description="The content.")
    metric: str = Field(description="The metric.")
    value: float = Field(description="Its value, in units.")
    count: int = Field(description="Events behind it.")


class TracedReward(Body):
    """What a chosen content earned."""

    content_id: str = Field(description="The content.")
    reward: float = Field(description="Weighted sum of its metrics; the default reward if silent.")
    mature: bool = Field(description="False: more may come, so this is not final.")


class ReplayAnswer(Body):
    """Whether the decision can be computed again."""

    choice: Literal["exact", "differs", "not possible"] = Field(description="Stored scores to probabilities to choice.")
    scores: Literal["exact", "differs", "not possible"] = Field(description="Stored model to scores, within 1e-9.")
    detail: str = Field(description="In a sentence.")


class ExplainedContent(Body):
    """Why a candidate had its score."""

    content_id: str = Field(description="The content.")
    score: float = Field(description="What the policy ranked on.")
    reasons: list[Reason] = Field(description="Lines that add up to the score, by the model that decided.")


class Trace(Body):
    """A decision with everything that is known of it."""

    decision_id: str = Field(description="The decision.")
    decision: dict[str, Any] = Field(description="The stored row.")
    started_at: str | None = Field(description="First activation, else when it was decided; null: not started.")
    matured_at: str | None = Field(description="When its outcome is final.")
    counted: bool = Field(description="Whether a batch has counted it.")
    events: list[TracedEvent] = Field(description="Its events, per metric.")
    outcomes: list[TracedOutcome] = Field(description="Its outcomes; zeros are left out.")
    rewards: list[TracedReward] = Field(description="What each chosen content earned.")
    replay: ReplayAnswer = Field(description="Whether it can be computed again.")
    reasons: list[ExplainedContent] | None = Field(
        None,
        description="With `explain=true`: of the chosen and the best, 50 in all; computed now by the model that decided. What was "
        "observed by then is one line, once it has moved on. Empty: it had no scores, or the model's files are gone.",
    )


class PromoteBody(Body):
    """Which version to serve."""

    version: Id = Field(description="A version that passed its gate.")
    replaces: Id | None = Field(
        None, description="The champion it is meant to replace; default: the one in force. Another one: 409."
    )
    actor: str = Field("api", min_length=1, max_length=128, description="Who says so, for the audit.")


class PromoteAnswer(Body):
    """The champion now."""

    loop: str = Field(description="The loop.")
    version: str = Field(description="The version in force.")
    revision: int = Field(description="Raised by every change.")
