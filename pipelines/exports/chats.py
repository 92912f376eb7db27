"""Examples for fine-tuning as conversations: what TRL's trainers read.

    prompt      [{role: user, content: the brief, the channel, the language, what to write}]
    completion  [{role: assistant, content: the copy}]

Copy of one slot is its text; of several a JSON object of slots, by name. The prompt of all contents of a campaign with the
same slots and language is the same. Nothing of a customer is in it.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

Message = Mapping[str, str]


def prompt_of(campaign: Row[Any], content: Row[Any]) -> list[Message]:
    """What a generator would be asked for this content."""
    brief = campaign.brief.strip() or f"Copy for the campaign {campaign.campaign_id}."
    asked = [f"Channel: {campaign.channel or 'email'}."]
    asked += [f"Language: {content.locale}."] if content.locale else []
    asked.append(f"Write: {', '.join(sorted(content.slots))}.")
    if len(content.slots) > 1:
        asked.append("Answer with a JSON object of these names.")
    return [{"role": "user", "content": f"{brief}\n\n{' '.join(asked)}"}]


def completion_of(content: Row[Any]) -> list[Message]:
    """What a generator should have answered."""
    slots = content.slots
    text = next(iter(slots.values())) if len(slots) == 1 else json.dumps(slots, ensure_ascii=False, sort_keys=True)
    return [{"role": "assistant", "content": text}]


def alike(one: Row[Any], other: Row[Any]) -> bool:
    """Whether two contents answer the same prompt, with different copy."""
    same = one.locale == other.locale and set(one.slots) == set(other.slots)
    return same and one.slots != other.slots


def provenance_of(loop_id: str, content: Row[Any]) -> dict[str, str]:
    """Where a content comes from. All texts, empty where unknown, so that every row has the same columns."""
    return {
        "loop_id": loop_id,
        "campaign_id": content.campaign_id,
        "content_id": content.content_id,
        "parent_id": content.parent_id or "",
        "prompt_id": content.prompt_id or "",
        "generator": content.generator or "",
        "parameters": json.dumps(content.parameters, ensure_ascii=False, sort_keys=True),
        "locale": content.locale or "",
        "approval": content.approval,
        "fingerprint": content.fingerprint,
    }
