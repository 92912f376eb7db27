"""``rewardloop topics`` against a real Kafka."""

import json

import pytest

from infra.settings import Settings
from pipelines import cli

pytestmark = pytest.mark.stack


@pytest.fixture
def elsewhere(kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names this test's broker and a prefix without topics."""
    monkeypatch.setenv("REWARDLOOP_KAFKA_BOOTSTRAP_SERVERS", kafka_settings.kafka_bootstrap_servers)
    monkeypatch.setenv("REWARDLOOP_KAFKA_TOPIC_PREFIX", f"{kafka_settings.kafka_topic_prefix}.elsewhere")
    monkeypatch.setenv("REWARDLOOP_LOG_LEVEL", "error")


@pytest.mark.usefixtures("elsewhere")
def test_topics_are_listed_made_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is made once; both commands print the same document."""
    missing, made, there = (document(capsys, what) for what in ("list", "ensure", "list"))

    assert [topic["exists"] for topic in missing] == [False] * 4
    assert [(topic["exists"], topic["created"]) for topic in made] == [(True, True)] * 4
    assert [(topic["exists"], topic["created"]) for topic in there] == [(True, False)] * 4
    assert [topic["partitions"] for topic in there] == [6, 6, 1, 1]
    assert [topic["differences"] for topic in there] == [[]] * 4


@pytest.mark.usefixtures("elsewhere")
def test_the_table_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Missing topics come with the command that makes them."""
    assert cli.run(["topics", "list"]) == 0
    said = capsys.readouterr().out
    assert said.count("missing") == 5
    assert "rewardloop topics ensure" in said


def document(capsys: pytest.CaptureFixture[str], what: str) -> list[dict[str, object]]:
    """The JSON that ``rewardloop topics <what>`` prints."""
    assert cli.run(["topics", what, "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found
