"""Guardrails: what copy has to hold, and what each rule says of copy that does not."""

from collections.abc import Mapping

import msgspec
import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading, writing
from ingestion.contents import add_contents, put_campaign, read_verdicts, set_approval
from ingestion.copy.copy_rules import CopyRules
from ingestion.copy.guardrails import Surroundings, Verdict, passed, vet
from ingestion.copy.near_duplicates import Known
from ingestion.events import Campaign, Content
from ingestion.loops import parse_definition, put_loop
from tests.reward_models.training import definition

BRIEF = "Winter sale: 20 % off all coats until 24 December 2026. Questions: help@shop.example, from €49.90."


def content(text: str, locale: str | None = None, **more: object) -> Content:
    return Content(content_id="c", campaign_id="k", slots={"subject": text}, locale=locale, **more)  # type: ignore[arg-type]


def verdict(
    text: str, rules: Mapping[str, object], locale: str | None = None, around: Surroundings | None = None
) -> Verdict:
    """The one verdict that one rule gives."""
    (found,) = vet(CopyRules.model_validate(rules), content(text, locale), around or Surroundings(brief=BRIEF))
    assert found.passed == (not found.reason)
    return found


def test_nothing_is_demanded_where_nothing_is_said() -> None:
    """A loop without rules takes every text, and gives no verdict."""
    assert vet(CopyRules(), content("ANYTHING {goes} 99 % off"), Surroundings()) == ()
    assert passed(())


@pytest.mark.parametrize(
    ("rules", "good", "bad", "told"),
    [
        ({"slots": {"subject": {"most": 12}}}, "Short enough", "A little too long", "subject has 17 characters"),
        ({"slots": {"cta": {"least": 1}}}, "", "No call to action", "cta has 0 characters"),
        ({"banned": ["last chance"]}, "Chance of snow", "LAST\u200b  Chance!", "'last chance' is banned"),
        ({"banned": ["free"]}, "Freedom and carefree days", "Ｆｒｅｅ shipping", "'free' is banned"),
        ({"required": ["Acme"]}, "News of ACME!", "News of Acmeville", "'Acme' is missing"),
        (
            {"links": ["*.shop.example"]},
            "www.shop.example/a?b=1.",
            "https://evil.example/shop.example",
            "no listed host",
        ),
        (
            {"links": ["shop.example"]},
            "https://shop.example/{{id}}",
            "https://shop.example@evil.example/",
            "no listed host",
        ),
        ({"links": []}, "No link. At all", "see bit.ly/abc", "bit.ly/abc leads to no listed host"),
        ({"links": []}, "Note: this is fine", "javascript:alert(1)", "no listed host"),
        (
            {"facts": "brief"},
            "Twenty percent off in December, €49.90",
            "Save 30 % today",
            "percentage 30 is not in the",
        ),
        ({"facts": "brief"}, "Until Dec 24th", "Until Friday", "date friday"),
        ({"facts": "brief"}, "Coats from 49,90 €", "Coats from $49.90", "price 49.9 USD"),
        ({"personal_data": False}, "Write to help@shop.example", "Write to jane.doe@mail.example", "an e-mail address"),
        ({"personal_data": False}, "Since 1999, 20 % off", "Call +49 171 2345678", "a telephone number"),
        ({"personal_data": False}, "Order 4111 1111", "4111 1111 1111 1111", "a card number"),
        ({"personal_data": False}, "DE 12 models", "DE89 3704 0044 0532 0130 00", "an account number"),
        ({"placeholders": ["first_name"]}, "Hi {{ first_name }}!", "Hi {{name}}!", "is no placeholder of the loop"),
        ({"placeholders": ["first_name"]}, "Hi {{first_name}}!", "Hi {{first_name}!", "broken placeholder"),
        ({"placeholders": []}, "Hi there!", "Hi [First Name]!", "broken placeholder"),
    ],
)
def test_each_rule_passes_what_it_should_and_says_what_is_wrong(
    rules: dict[str, object], good: str, bad: str, told: str
) -> None:
    """Of two lines one passes and the other is told why not."""
    if good:
        assert verdict(good, rules).passed
    assert told in verdict(bad, rules).reason


def test_a_locale_is_named_allowed_and_what_the_text_is_in() -> None:
    """The tag has to be of the list, and the words and letters of the tag."""
    rules = {"locales": ["de", "en-GB"]}

    assert verdict("Die Mäntel sind da", rules, "de-AT").passed
    assert verdict("Coats", rules, "en-GB").passed
    assert "names no locale" in verdict("Coats", rules).reason
    assert "its locale is en-US" in verdict("Coats", rules, "en-US").reason
    assert "not those of de" in verdict("Зимняя коллекция", rules, "de").reason
    assert "reads like en" in verdict("This is the best of all that you are looking for", rules, "de").reason


def test_an_edit_keeps_the_placeholders_of_its_parent() -> None:
    """What the parent filled in, the edit fills in too."""
    around = Surroundings(parent=content("Hi {{first_name}}, welcome to {{city}}"))
    rules = {"placeholders": ["first_name", "city"]}

    assert verdict("{{city}} greets {{first_name}}", rules, around=around).passed
    assert "{{city}} of its parent is lost" in verdict("Hello {{first_name}}", rules, around=around).reason


def test_near_duplicates_name_what_they_repeat() -> None:
    """The verdict says which content it is too much like."""
    around = Surroundings(others=Known([("c7", "The winter collection is here")]))

    found = verdict("The winter collection is here!!", {"most_similar": 0.8}, around=around)

    assert "content c7" in found.reason
    assert verdict("Your basket is waiting", {"most_similar": 0.8}, around=around).passed


RULES = {"facts": "brief", "most_similar": 0.8, "placeholders": ["first_name"]}


@pytest.mark.parametrize("approval", ["automatic", "manual"])
def test_copy_that_breaks_a_rule_is_rejected_with_its_verdicts(any_engine: Engine, approval: str) -> None:
    """What passes is approved or waits, by the loop's approval; what fails is rejected; each verdict is stored."""
    rules = parse_definition(definition(approval=approval).model_dump() | {"copy_rules": RULES})
    lines = ("20 % off all coats", "30 % off all coats", "20 % off all coats!", "20 % off all coats")
    with writing(any_engine) as connection:
        put_loop(connection, rules, 1)
        put_campaign(connection, Campaign(campaign_id="k", loop_id="emails", brief=BRIEF))
        copies = [msgspec.structs.replace(content(line), content_id="") for line in lines]
        answers = add_contents(connection, "k", copies, 1_000, 5)
    with reading(any_engine) as connection:
        verdicts = read_verdicts(connection, [answer.content_id for answer in answers])

    waiting = "approved" if approval == "automatic" else "draft"
    assert [answer.approval for answer in answers] == [waiting, "rejected", "rejected", waiting]
    assert [answer.status for answer in answers] == ["created", "created", "created", "existing"]
    assert [one.rule for one in verdicts[answers[0].content_id]] == ["facts", "near_duplicate", "placeholders"]
    assert passed(verdicts[answers[0].content_id])
    failed = {one.rule: one.reason for answer in answers for one in verdicts[answer.content_id] if not one.passed}
    assert set(failed) == {"facts", "near_duplicate"}


def test_a_verdict_of_somebody_else_rejects_too(engine: Engine) -> None:
    """Whoever registers copy may add verdicts; one that fails is enough, and is stored as the rules' are."""
    with writing(engine) as connection:
        put_loop(connection, definition(approval="automatic"), 1)
        put_campaign(connection, Campaign(campaign_id="k", loop_id="emails"))
        kept, dropped = content("Kept"), msgspec.structs.replace(content("Dropped"), content_id="d")
        said = {dropped.fingerprint: [Verdict("best_of", False, "others are better")], kept.fingerprint: []}
        answers = add_contents(connection, "k", [kept, dropped], 1_000, 5, said)

    assert [answer.approval for answer in answers] == ["approved", "rejected"]
    with reading(engine) as connection:
        assert read_verdicts(connection, ["c", "d"]) == {"d": [Verdict("best_of", False, "others are better")]}


def test_a_person_may_approve_what_the_rules_rejected(engine: Engine) -> None:
    """The rules do not have the last word; that somebody overruled them is in the audit."""
    rules = parse_definition(definition().model_dump() | {"copy_rules": {"banned": ["sale"]}})
    with writing(engine) as connection:
        put_loop(connection, rules, 1)
        put_campaign(connection, Campaign(campaign_id="k", loop_id="emails"))
        add_contents(connection, "k", [content("Sale!")], 1_000, 5)
        assert set_approval(connection, "c", "approved", "ann", "the brand is called Sale", 6) == "rejected"

    with reading(engine) as connection:
        assert connection.scalar(select(tables.audit.c.actor).where(tables.audit.c.subject == "c")) == "ann"
