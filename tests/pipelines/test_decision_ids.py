"""A client names its decisions as it likes: any text of 1 to 256 characters (invariant 8)."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from tests.pipelines.api import click, define, ok, rank, running, send, trace

NAMES = ["a b", "Größe/7?x=1#y", '"quoted" <b>&', "100 %", "mail:1/activate", "\u200b", "🎁" * 256]


def walk(client: TestClient, name: str) -> list[Any]:
    """Rank, repeat, click by token, activate and trace under this name: what each answered."""
    first, again = rank(client, decision_id=name), rank(client, decision_id=name)
    sent = send(client, click(f"e{NAMES.index(name)}", token=first["token"]))
    path = quote(name, safe="")
    activated = ok(client.post(f"/v1/decisions/{path}/activate"))
    return [first == again, sent["rejected"], activated["decision_id"], trace(client, path)["decision_id"]]


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_any_name_goes_the_whole_way(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every call works under any name, and answers it unchanged."""
    with running(request.getfixturevalue(url), tmp_path / "home") as client:
        define(client)
        walked = {name: walk(client, name) for name in NAMES}

    assert walked == {name: [True, [], name, name] for name in NAMES}
