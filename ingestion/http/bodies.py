"""The bodies of the collector's calls: what comes in and what is answered."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ingestion.contents import Approval
from ingestion.decode import NativeEvent
from ingestion.events import Content
from ingestion.fields import Body, DecisionId, Features, Id, Moment, Name
from ingestion.loops import LoopDefinition, LoopId

Actor = Annotated[str, Field(min_length=1, max_length=128, description="Who says so, for the audit.")]


class ContentBody(Body):
    """One generated piece of copy."""

    id: Id | None = Field(None, description="Id of the content; without one it is made from the copy.")
    slots: Annotated[dict[Name, str], Field(min_length=1, max_length=20)] = Field(
        description="`{slot: text}`: subject, preheader, body, cta …", examples=[{"subject": "Your basket is waiting"}]
    )
    features: Features = Field(default_factory=dict, description="What is known about this content.")
    locale: str | None = Field(None, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$", description="BCP 47 tag.")
    prompt_id: Id | None = Field(None, description="The prompt that made it.")
    generator: str | None = Field(None, max_length=256, description="The model or person that made it.")
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=100, description="Generation parameters.")
    parent_id: Id | None = Field(None, description="The content this is an edit of.")

    def content(self, campaign_id: str) -> Content:
        """The fact, not yet admitted by its loop."""
        return Content(
            content_id=self.id or "",
            campaign_id=campaign_id,
            slots=self.slots,
            features={name: value for name, value in self.features.items() if value is not None},
            locale=self.locale,
            prompt_id=self.prompt_id,
            generator=self.generator,
            parameters=self.parameters,
            parent_id=self.parent_id,
        )


Contents = Annotated[list[ContentBody], Field(max_length=500, description="At most 500 contents.")]


class ContentsBody(Body):
    """Contents for one campaign."""

    campaign: Id = Field(description="The campaign they compete in.")
    contents: Contents = Field(min_length=1)


class ContentAnswer(Body):
    """One content after registration."""

    content_id: str = Field(description="Its id.")
    status: Literal["created", "existing"] = Field(description="`existing`: this copy was known; its id is given.")
    approval: Approval = Field(description="Only approved contents are candidates.")


class ContentsAnswer(Body):
    """Contents after registration, in the order given."""

    contents: list[ContentAnswer] = Field(description="One entry per content sent.")


class StoredContent(Body):
    """A content as stored."""

    content_id: str = Field(description="Its id.")
    campaign: str = Field(description="The campaign it competes in.")
    slots: dict[str, str] = Field(description="Its copy.")
    features: dict[str, Any] = Field(description="What is known about it.")
    locale: str | None = Field(description="BCP 47 tag.")
    prompt_id: str | None = Field(description="The prompt that made it.")
    generator: str | None = Field(description="What made it.")
    parameters: dict[str, Any] = Field(description="Generation parameters.")
    parent_id: str | None = Field(description="The content it is an edit of.")
    approval: Approval = Field(description="Only approved contents are candidates.")
    created_at: str = Field(description="When it was registered.")


class StoredContents(Body):
    """A page of contents, by id."""

    contents: list[StoredContent] = Field(description="The contents.")
    next: str | None = Field(description="Give it as `after` for the next page; null: this is the last.")


class CampaignBody(Body):
    """A brief and its contents inside a loop."""

    campaign: Id = Field(description="Id of the campaign.")
    loop: LoopId = Field(description="The loop it belongs to.")
    brief: str = Field("", max_length=20_000, description="What the copy is for.")
    channel: str = Field("email", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="email, push, sms, ad …")
    control: Id | None = Field(
        None,
        description="The approved content that is the baseline; default: uniform over those approved at the start.",
    )
    contents: Contents = Field(default_factory=list)
    state: Literal["draft", "running", "ended"] | None = Field(
        None,
        description="`running` starts it and freezes its baseline; default: it starts once a content is approved "
        "at the time of the call.",
    )


class CampaignAnswer(Body):
    """A campaign as stored."""

    campaign: str = Field(description="Its id.")
    loop: str = Field(description="The loop it belongs to.")
    brief: str = Field(description="What the copy is for.")
    channel: str = Field(description="The channel.")
    state: str = Field(description="`draft`, `running` or `ended`.")
    baseline: dict[str, Any] = Field(description="`{version, kind, content_ids, weights}`; empty before the start.")
    created_at: str = Field(description="When it was registered.")
    contents: list[ContentAnswer] = Field(default_factory=list, description="The contents sent with this call.")


class Campaigns(Body):
    """A page of campaigns, by id."""

    model_config = ConfigDict(title="CampaignList")  # generated clients would name it like its field

    campaigns: list[CampaignAnswer] = Field(description="The campaigns.")
    next: str | None = Field(description="Give it as `after` for the next page; null: this is the last.")


class MetricResult(Body):
    """One metric of a content."""

    successes: int = Field(description="Decisions with a value above 0.")
    total: float = Field(description="Sum of the values, in units.")
    mean: float = Field(description="Value per decision.")


class ContentResult(Body):
    """A content so far."""

    content_id: str = Field(description="The content.")
    exposures: int = Field(description="Decisions that showed it.")
    share: float = Field(description="Of all decisions of the campaign.")
    metrics: dict[str, MetricResult] = Field(description="By metric.")


class Results(Body):
    """A campaign so far. Contents that were never shown are left out; for causes look at the lift, not here."""

    campaign: str = Field(description="The campaign.")
    exposures: int = Field(description="Contents shown.")
    contents: list[ContentResult] = Field(description="By content id.")


class ApprovalBody(Body):
    """A person's word on a content."""

    approval: Literal["approved", "rejected", "retired"] = Field(description="The new state.")
    actor: Actor = "api"
    reason: str = Field("", max_length=2_000, description="Why.")


class ApprovalAnswer(Body):
    """A content's approval, before and after."""

    content_id: str = Field(description="The content.")
    before: Approval = Field(description="The state before.")
    approval: Approval = Field(description="The state now.")


class SwitchBody(Body):
    """The kill switch."""

    killed: bool = Field(True, description="True: the baseline at once. False: let the loop choose again.")
    actor: Actor = "api"
    reason: str = Field("", max_length=2_000, description="Why.")


class SwitchAnswer(Body):
    """The switch as it is now."""

    loop: str = Field(description="The loop.")
    killed: bool = Field(description="True: every answer is the baseline.")


class LoopAnswer(Body):
    """A loop as stored."""

    loop: str = Field(description="The loop.")
    version: int = Field(description="Raised by every change of the definition.")
    killed: bool = Field(description="True: every answer is the baseline.")
    definition: LoopDefinition = Field(description="The definition in force.")


class Loops(Body):
    """Every loop."""

    model_config = ConfigDict(title="LoopList")

    loops: list[LoopAnswer] = Field(description="The loops, by id.")


_ONE_EVENT = {
    "anyOf": [
        {"$ref": "#/components/schemas/NativeEvent"},
        {"description": "Anything else is put into quarantine; the others count."},
    ]
}


class EventsBody(Body):
    """A batch of native events; each stands or falls alone."""

    events: Annotated[
        list[Any],
        Field(min_length=1, json_schema_extra={"items": _ONE_EVENT}),
    ] = Field(description="The events, at most 1,000.")


class RejectedEvent(Body):
    """An event that could not be used; its bytes and the reason are in quarantine."""

    index: int = Field(description="Place in the request, from 0.")
    event_id: str | None = Field(description="Its id, if it had one.")
    reason: str = Field(description="What is wrong and what to do.")


class EventsAnswer(Body):
    """What became of each event: the four numbers and the list add up to the events sent."""

    accepted: int = Field(description="New facts, joined with their decisions.")
    duplicate: int = Field(description="Known already, with the same body.")
    pending: int = Field(description="New facts whose decision is not known yet.")
    ignored: int = Field(description="About customers who asked to be deleted, or past retention; not stored.")
    rejected: list[RejectedEvent] = Field(description="Put into quarantine.")


class PublishedAnswer(Body):
    """What became of each event with Kafka configured: the number and the list add up to the events sent."""

    accepted: int = Field(description="Acknowledged by Kafka; the worker counts each once.")
    rejected: list[RejectedEvent] = Field(description="Put into quarantine.")


class ActivateBody(Body):
    """That a decision was really sent."""

    occurred_at: Moment | None = Field(None, description="When, ISO 8601; default: now.")


class ActivateAnswer(Body):
    """The activation as stored."""

    decision_id: str = Field(description="The decision.")
    activated_at: str = Field(description="Its earliest activation.")
    state: Literal["applied", "duplicate", "published"] = Field(
        description="`duplicate`: it was activated before; `published`: it is on the events topic."
    )


class FeedbackBody(Body):
    """What a person or a judge says. Never an outcome."""

    feedback_id: Id | None = Field(None, description="Makes the call repeatable; default: a new id.")
    kind: Literal["comment", "rating", "demonstration", "preference", "ranking"] = Field(
        description="What `value` holds."
    )
    source: Literal["HUMAN", "LLM_JUDGE", "CODE"] = Field("HUMAN", description="Who says so.")
    loop: LoopId | None = Field(None, description="The loop it is about.")
    decision_id: DecisionId | None = Field(None, description="The decision it is about.")
    content_id: Id | None = Field(None, description="The content it is about.")
    annotator: Name | None = Field(
        None, description="Whose word it is: a name of yours for a person, so that agreement can be measured."
    )
    value: dict[Name, Any] = Field(
        max_length=20,
        description="rating: `{rating: number}`; comment: `{text}`; demonstration: `{slots: {slot: text}}`, or a "
        "choice `{chosen, candidates, context?}` among ids of contents; "
        "preference: `{winner, loser}`, ids of contents; ranking: `{ranking: [ids of contents]}`, the best first.",
    )


class FeedbackAnswer(Body):
    """Feedback as stored."""

    feedback_id: str = Field(description="Its id.")
    status: Literal["created", "existing"] = Field(description="`existing`: the same was said before.")


NATIVE_EVENT = NativeEvent
"""Named here so that the OpenAPI document can hold its schema, although each event is decoded alone."""
