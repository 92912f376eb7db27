"""What a loop says about whom it may send to, and how often: parts of its definition.

    "suppression": {"events": ["unsubscribe", "complaint"], "scope": "all"}
    "frequency": [{"most": 2, "window": "7d"}, {"most": 1, "window": "30d", "per": "content"}]

Who is suppressed is kept in ``ingestion/people/suppressions.py``; what a customer was sent is counted when it is asked for
(``reward_models/serving/eligibility.py``).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ingestion.metrics import Duration, parse_duration

EventType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,62}$")]

Per = Literal["loop", "campaign", "content"]
"""What is counted: sends of the loop, of the campaign that is asked for, or of each content alone."""


class SuppressionSettings(BaseModel):
    """Events that end all sending to a customer: from then on the answer is `no_send`, until it is lifted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: tuple[EventType, ...] = Field(
        ("unsubscribe", "complaint", "spam_report"), max_length=20, description="Types of the events that suppress."
    )
    scope: Literal["all", "loop"] = Field(
        "all", description="all: in every loop; loop: only in the loop of the decision that the event is about."
    )


class FrequencyCap(BaseModel):
    """At most so many sends to one customer in a time. Sending nothing is no send; what was not activated is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most: int = Field(ge=1, le=1_000, description="Sends to one customer.")
    window: Duration = Field(gt=0, le=parse_duration("365d"), description="How far back they are counted.")
    per: Per = Field("loop", description="loop, campaign: of all contents together; content: of each alone.")
