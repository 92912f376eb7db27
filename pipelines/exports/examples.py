"""Which copy becomes an example: only what the outcomes can tell apart.

    SFT  {messages, reward, …}                  copy that earns more than its campaign with probability ≥ confidence
    DPO  {prompt, chosen, rejected, …}          two contents of one prompt, the first better with probability ≥ confidence
    KTO  {prompt, completion, label, …}         copy that earns more (true) or less (false) with probability ≥ confidence

Rejected copy is never shown as good, whatever it earned. Rows carry the posterior reward, how sure it is, how many sends are
behind it, and where the copy comes from; with a model and ``phrases`` also what each phrase adds. Formats: TRL's
conversational dataset formats.

    sft(campaigns, …)   dpo(campaigns, …)   kto(campaigns, …)    rows one by one
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from pipelines.exports.chats import alike, completion_of, prompt_of, provenance_of
from pipelines.exports.evidence import Campaign, Standing, better

Example = dict[str, Any]

PAIRS = 1_000
"""Most pairs of one campaign: the surest."""

Dense = Mapping[str, Sequence[Mapping[str, Any]]]
"""Of each content: its phrases with what each adds, reward units per send."""
Phrases = Callable[[Campaign], Dense]


class Choice(NamedTuple):
    """``confidence``: least probability of what an example claims; ``phrases``: null for none."""

    loop_id: str
    confidence: float
    phrases: Phrases | None = None


def sft(campaigns: Iterable[Campaign], choice: Choice) -> Iterator[Example]:
    """Copy to imitate, the surest first within a campaign."""
    for campaign in campaigns:
        phrases = _phrases(campaign, choice)
        for one, likely in _judged(campaign):
            if likely >= choice.confidence:
                messages = [*prompt_of(campaign.row, one.row), *completion_of(one.row)]
                yield {"messages": messages, **_of(campaign, one, likely, choice, phrases)}


def kto(campaigns: Iterable[Campaign], choice: Choice) -> Iterator[Example]:
    """Copy to like and copy to dislike."""
    for campaign in campaigns:
        phrases = _phrases(campaign, choice)
        for one, likely in _judged(campaign):
            if max(likely, 1.0 - likely) >= choice.confidence:
                asked = {"prompt": prompt_of(campaign.row, one.row), "completion": completion_of(one.row)}
                yield {**asked, "label": likely >= 0.5, **_of(campaign, one, likely, choice, phrases)}


def dpo(campaigns: Iterable[Campaign], choice: Choice) -> Iterator[Example]:
    """Pairs of one campaign, the surest first."""
    for campaign in campaigns:
        phrases = _phrases(campaign, choice)
        for likely, first, second in _pairs(campaign, choice.confidence):
            yield {
                "prompt": prompt_of(campaign.row, first.row),
                "chosen": completion_of(first.row),
                "rejected": completion_of(second.row),
                "probability": likely,
                "margin": first.mean - second.mean,
                "chosen_reward": _reward(campaign, first),
                "rejected_reward": _reward(campaign, second),
                "chosen_provenance": provenance_of(choice.loop_id, first.row),
                "rejected_provenance": provenance_of(choice.loop_id, second.row),
                **({} if phrases is None else {"chosen_phrases": phrases.get(first.row.content_id, [])}),
                **({} if phrases is None else {"rejected_phrases": phrases.get(second.row.content_id, [])}),
            }


def _judged(campaign: Campaign) -> Iterator[tuple[Standing, float]]:
    """Each content with the probability that it is above its campaign, the surest first."""
    found = [(campaign.above(one), one) for one in campaign.contents if one.row.slots]
    for likely, one in sorted(found, key=lambda pair: (-abs(pair[0] - 0.5), pair[1].row.content_id)):
        if one.row.approval != "rejected" or likely < 0.5:
            yield one, likely


def _pairs(campaign: Campaign, confidence: float) -> list[tuple[float, Standing, Standing]]:
    found = []
    for one, other in combinations(campaign.contents, 2):
        first, second = (one, other) if one.mean >= other.mean else (other, one)
        likely = better(first, second)
        if likely >= confidence and alike(first.row, second.row) and first.row.approval != "rejected":
            found.append((likely, first, second))
    found.sort(key=lambda pair: (-pair[0], pair[1].row.content_id, pair[2].row.content_id))
    return found[:PAIRS]


def _of(campaign: Campaign, one: Standing, likely: float, choice: Choice, phrases: Dense | None) -> Example:
    return {
        "probability": likely,
        "reward": _reward(campaign, one),
        "provenance": provenance_of(choice.loop_id, one.row),
        **({} if phrases is None else {"phrases": phrases.get(one.row.content_id, [])}),
    }


def _phrases(campaign: Campaign, choice: Choice) -> Dense | None:
    return None if choice.phrases is None else choice.phrases(campaign)


def _reward(campaign: Campaign, one: Standing) -> dict[str, float]:
    return {"mean": one.mean, "sd": one.sd, "sends": float(one.sends), "campaign_mean": campaign.level}
