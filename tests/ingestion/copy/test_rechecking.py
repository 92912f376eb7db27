"""Copy that is there already, under rules that changed."""

from typing import Any

from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading, writing
from ingestion.contents import add_contents, put_campaign, read_verdicts, set_approval, start_campaign
from ingestion.events import Campaign, Content
from ingestion.join.backfill import redefine
from ingestion.loops import LoopDefinition, parse_definition

COPY = {"a": "Save now on coats", "b": "Winter coats are in", "c": "Coats, free of charge", "d": "Save on boots"}


def loop(**rules: Any) -> LoopDefinition:
    """A loop of clicks with these rules of copy."""
    document = {"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}}
    return parse_definition(document | {"copy_rules": rules})


def fill(engine: Engine) -> None:
    """A campaign that runs with ``a`` and ``b``, while ``c`` waits; one that is over with ``d``."""
    redefine(engine, loop(banned=["free"]), 1)
    redefine(engine, loop(), 2)
    with writing(engine) as connection:
        for campaign, names in (("june", "abc"), ("may", "d")):
            put_campaign(connection, Campaign(campaign_id=campaign, loop_id="mail"))
            copy = [Content(content_id=name, campaign_id=campaign, slots={"subject": COPY[name]}) for name in names]
            add_contents(connection, campaign, copy, 20_000, 3)
        for name in "abd":
            set_approval(connection, name, "approved", "ann", "", 4)
        start_campaign(connection, "june", None, "ann", 5)
        connection.execute(
            tables.campaigns.update().where(tables.campaigns.c.campaign_id == "may").values(state="ended")
        )


def states(engine: Engine) -> dict[str, str]:
    """Approval by content."""
    with reading(engine) as connection:
        c = tables.contents.c
        return dict(connection.execute(select(c.content_id, c.approval)).tuples().all())


def test_what_breaks_a_new_rule_waits_again(any_engine: Engine) -> None:
    """Approved copy that breaks a new rule is no candidate any more, audited with the reason; what waits is marked; what
    keeps the rules, and campaigns that are over, stay as they are."""
    fill(any_engine)
    version = redefine(any_engine, loop(banned=["save", "free"]), 6, "bea")

    assert states(any_engine) == {"a": "draft", "b": "approved", "c": "draft", "d": "approved"}
    with reading(any_engine) as connection:
        verdicts = read_verdicts(connection, list("abcd"))
        rows = connection.execute(select(tables.verdicts)).all()
        audit = connection.execute(select(tables.audit).where(tables.audit.c.action == "approval")).all()
    assert {name: [one.passed for one in said] for name, said in verdicts.items()} == {
        "a": [False],
        "b": [True],
        "c": [False],
    }
    assert {(row.loop_version, row.at) for row in rows} == {(version, 6)}
    assert [(row.actor, row.subject) for row in audit[-1:]] == [("bea", "a")]
    assert "'save' is banned" in str(audit[-1].details)


def test_a_person_has_the_last_word(any_engine: Engine) -> None:
    """What waits again can be approved all the same, and stays so until the rules of copy change once more; other changes
    of the loop look at nothing."""
    fill(any_engine)
    redefine(any_engine, loop(banned=["save"]), 6)
    with writing(any_engine) as connection:
        set_approval(connection, "a", "approved", "ann", "it is true", 7)
    other = loop(banned=["save"]).model_copy(update={"holdout": 0.2})
    redefine(any_engine, other, 8)
    assert states(any_engine)["a"] == "approved"
    redefine(any_engine, loop(banned=["save", "boots"]), 9)

    assert states(any_engine)["a"] == "draft"


def test_of_two_that_are_alike_the_older_stands(any_engine: Engine) -> None:
    """Where near-duplicates are forbidden from now on, the later of two waits again."""
    fill(any_engine)
    with writing(any_engine) as connection:
        late = Content(content_id="z", campaign_id="june", slots={"subject": "Winter coats are in!"})
        add_contents(connection, "june", [late], 20_000, 10)
        set_approval(connection, "z", "approved", "ann", "", 11)
    redefine(any_engine, loop(most_similar=0.8), 12)

    assert {name: states(any_engine)[name] for name in "bz"} == {"b": "approved", "z": "draft"}
