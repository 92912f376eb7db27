"""Which copy becomes an example, and in which form."""

import json
from typing import Any, NamedTuple

import pytest

from pipelines.exports.chats import alike, completion_of, prompt_of
from pipelines.exports.evidence import Campaign, Standing, better
from pipelines.exports.examples import Choice, dpo, kto, sft

SURE = Choice("emails", 0.95)


class Copy(NamedTuple):
    """A row of ``contents``."""

    content_id: str
    slots: dict[str, str]
    approval: str = "approved"
    locale: str | None = "en"
    campaign_id: str = "june"
    parent_id: str | None = None
    prompt_id: str | None = "p1"
    generator: str | None = None
    parameters: Any = None
    fingerprint: str = "f"


class Brief(NamedTuple):
    """A row of ``campaigns``."""

    campaign_id: str = "june"
    brief: str = "Sell shoes."
    channel: str = "email"


def one(name: str, mean: float, sd: float = 0.001, **more: Any) -> Standing:
    """A content with its posterior."""
    slots = more.pop("slots", {"subject": f"Buy {name}"})
    return Standing(Copy(name, slots, **more), mean, sd, 1_000)  # type: ignore[arg-type]


def campaign(*contents: Standing) -> Campaign:
    """A campaign whose sends earn 0.05 on average."""
    return Campaign(Brief(), 0.05, contents)  # type: ignore[arg-type]


JUNE = campaign(
    one("good", 0.06, parameters={"seed": 1}), one("same", 0.0501), one("bad", 0.04), one("unsure", 0.09, sd=0.1)
)


def test_only_significant_pairs_are_pairs() -> None:
    """Each pair's chosen copy is better with the probability that was asked for; what cannot be told apart is in none;
    the surest come first."""
    rows = list(dpo([JUNE], SURE))
    pairs = [(row["chosen_provenance"]["content_id"], row["rejected_provenance"]["content_id"]) for row in rows]

    assert set(pairs) == {("good", "bad"), ("good", "same"), ("same", "bad")}
    assert [row["probability"] for row in rows] == sorted((row["probability"] for row in rows), reverse=True)
    assert all(row["probability"] >= 0.95 and row["margin"] > 0.0 for row in rows)
    assert better(one("a", 0.05, 0.003), one("b", 0.04, 0.004)) == pytest.approx(0.97725, abs=1e-5)


def test_pairs_answer_one_prompt() -> None:
    """Copy in another language or with other slots is no pair, nor is the same copy twice."""
    others = [
        one("french", 0.02, locale="fr"),
        one("long", 0.02, slots={"subject": "x", "body": "y"}),
        one("again", 0.02, slots={"subject": "Buy good"}),
    ]

    assert list(dpo([campaign(one("good", 0.06), *others)], SURE)) == []
    assert alike(one("a", 0).row, one("b", 0).row)


def test_rejected_copy_is_never_shown_as_good() -> None:
    """Whatever it earned, it is not to imitate, not chosen, not liked; as the worse one it may stand."""
    shady = campaign(one("shady", 0.08, approval="rejected"), one("good", 0.06), one("poor", 0.03, approval="rejected"))

    assert [row["provenance"]["content_id"] for row in sft([shady], SURE)] == ["good"]
    assert {row["chosen_provenance"]["content_id"] for row in dpo([shady], SURE)} == {"good"}
    assert {(row["provenance"]["content_id"], row["label"]) for row in kto([shady], SURE)} == {
        ("good", True),
        ("poor", False),
    }


def test_rows_are_conversations_with_reward_and_provenance() -> None:
    """Roles and texts are as TRL reads them; what it earned, how sure that is and where it comes from are beside it, with
    the same columns in every row."""
    [row] = sft([JUNE], SURE)

    assert row["messages"] == [
        {"role": "user", "content": "Sell shoes.\n\nChannel: email. Language: en. Write: subject."},
        {"role": "assistant", "content": "Buy good"},
    ]
    assert row["reward"] == {"mean": 0.06, "sd": 0.001, "sends": 1_000.0, "campaign_mean": 0.05}
    assert row["provenance"]["prompt_id"] == "p1"
    assert row["provenance"]["generator"] == ""
    assert json.loads(row["provenance"]["parameters"]) == {"seed": 1}
    assert {frozenset(each) for each in kto([JUNE], SURE)} == {
        frozenset({"prompt", "completion", "label", "probability", "reward", "provenance"})
    }


def test_labels_of_kto() -> None:
    """Clearly above the campaign is true, clearly below is false, the rest is no example."""
    assert {row["provenance"]["content_id"]: row["label"] for row in kto([JUNE], SURE)} == {"good": True, "bad": False}


def test_copy_of_several_slots_is_json() -> None:
    """A prompt that asks for several slots says how to answer, and the answer is the object."""
    content = one("a", 0.1, slots={"subject": "Häuser", "body": "“x”"}, locale=None).row

    assert json.loads(completion_of(content)[0]["content"]) == {"subject": "Häuser", "body": "“x”"}
    assert prompt_of(Brief(brief=" "), content)[0]["content"].startswith("Copy for the campaign june.")  # type: ignore[arg-type]
    assert "JSON object" in prompt_of(Brief(), content)[0]["content"]  # type: ignore[arg-type]


def test_phrases_are_dense_rewards() -> None:
    """With phrases each row has what its copy's phrases add, asked for once per campaign."""
    asked = []

    def phrases(campaign: Campaign) -> dict[str, list[dict[str, Any]]]:
        asked.append(campaign)
        return {"good": [{"slot": "subject", "text": "Buy", "start": 0, "end": 3, "reward": 0.01}]}

    rows = list(kto([JUNE], Choice("emails", 0.95, phrases)))
    [pair, *_] = dpo([JUNE], Choice("emails", 0.95, phrases))

    assert {row["provenance"]["content_id"]: len(row["phrases"]) for row in rows} == {"good": 1, "bad": 0}
    assert pair["chosen_phrases"][0]["reward"] == 0.01
    assert len(asked) == 2
