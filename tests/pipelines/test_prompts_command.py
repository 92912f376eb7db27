"""Prompts of one's own, from the command line."""

import json
from pathlib import Path

import pytest

from pipelines.cli import run


def test_a_prompt_is_added_and_its_next_version(
    migrated_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same text again is the version that it was, other words are the next one; a template that nobody could fill in says what it
    may name."""
    (tmp_path / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path))
    path, answers = tmp_path / "story.txt", []
    for text in (
        "Tell {{count}} stories about {{brief}}",
        "Tell {{count}} stories about {{brief}}",
        "{{count}} of {{brief}}",
    ):
        path.write_text(text)
        assert run(["prompts", "add", "story", str(path), "--strategy", "story", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))

    assert [(one["version"], one["status"]) for one in answers] == [(1, "created"), (1, "existing"), (2, "created")]
    for text, said in (("{{brief}}", "does not name {{count}}"), ("{{brief}} {{count}} {{mood}}", "nobody fills in")):
        path.write_text(text)
        assert run(["prompts", "add", "story", str(path)]) == 1
        assert said in " ".join(capsys.readouterr().err.split())
    assert run(["prompts", "add", "story", str(tmp_path / "nothing.txt")]) == 1
