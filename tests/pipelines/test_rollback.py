"""The way back by one click: it works from our page, once, for whoever may promote, and from nowhere else."""

import base64
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from infra.database import reading, writing
from ingestion.audit import read_audit
from ingestion.keys import create_key
from reward_models import registry
from tests.pipelines.api import define, inside, keys_of, running

OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def client(migrated_file: Path, tmp_path: Path) -> Iterator[TestClient]:
    """An API that needs keys, whose loop was promoted twice. The client is nobody."""
    (tmp_path / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    with running(f"sqlite:///{tmp_path / 'rewardloop.db'}", tmp_path, api_keys="required") as client:
        client.headers["X-API-Key"] = key_of(client, "boss", ["admin", "content"])
        define(client)
        del client.headers["X-API-Key"]
        with writing(serving(client).engine) as connection:
            for number in (1, 2):
                name = f"mail-{number}"
                about: Any = {
                    "config_digest": "c",
                    "loop_version": 1,
                    "as_of": 1,
                    "cutoff": 1,
                    "kind": "first",
                    "now": number,
                }
                registry.register(connection, "mail", name, digest=f"d{number}", **about)
                registry.settle(connection, "mail", name, "passed", {})
                registry.promote(connection, "mail", name, number - 1, number, "flow")
        yield client


def serving(client: TestClient) -> Any:
    return inside(client).serving


def key_of(client: TestClient, name: str, scopes: list[str]) -> str:
    with writing(serving(client).engine) as connection:
        key = create_key(connection, serving(client).secrets, name, scopes, [], "100/second", 0)
    keys_of(client).refresh()
    return key


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"any:{key}".encode()).decode()}


def button(client: TestClient, key: str) -> str:
    """Where the page's form posts to."""
    found = re.search(r'<form class="back" method="post" action="([^"]+)">', client.get("/", headers=basic(key)).text)
    assert found is not None
    return html.unescape(found[1])


def champion(client: TestClient) -> str:
    with reading(serving(client).engine) as connection:
        found = registry.champion(connection, "mail")
    assert found is not None
    return found.version


def test_one_click_goes_back(client: TestClient) -> None:
    """The button names the version before; a click serves it, is audited under the key's name, and works once."""
    key = key_of(client, "ann", ["admin", "content"])
    address = button(client, key)
    answer = client.post(address, headers=basic(key) | OURS, follow_redirects=False)
    again = client.post(address, headers=basic(key) | OURS, follow_redirects=False)
    with reading(serving(client).engine) as connection:
        (line,) = read_audit(connection, action="rollback")

    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert champion(client) == "mail-1"
    assert (line.actor, line.subject) == ("ann: page", "mail-1")
    assert again.status_code in (403, 409)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_another_site_cannot_click(client: TestClient, site: str) -> None:
    """A form sent from elsewhere is refused, whatever password the browser sends along, and nothing changes."""
    key = key_of(client, "ann", ["admin", "content"])
    address = button(client, key)
    refused = client.post(address, headers=basic(key) | {"Sec-Fetch-Site": site})

    assert (refused.status_code, champion(client)) == (403, "mail-2")


def test_a_password_needs_a_browser_that_says_where_it_is(client: TestClient) -> None:
    """Without a word about the site a password does not count: only a key in a header of its own would."""
    key = key_of(client, "ann", ["admin", "content"])
    refused = client.post(button(client, key), headers=basic(key))

    assert (refused.status_code, champion(client)) == (401, "mail-2")


def test_a_signature_is_one_persons(client: TestClient) -> None:
    """An address that was made for another key, or changed, is refused."""
    ann, bob = (key_of(client, name, ["admin", "content"]) for name in ("ann", "bob"))
    address = button(client, ann)
    assert client.post(address, headers=basic(bob) | OURS).status_code == 403
    assert (
        client.post(address.replace("version=mail-1", "version=mail-2"), headers=basic(ann) | OURS).status_code == 403
    )
    assert champion(client) == "mail-2"


def test_who_may_not_promote_may_not_go_back(client: TestClient) -> None:
    """A key for copy sees the page, and its click is refused."""
    key = key_of(client, "writer", ["content"])
    refused = client.post(button(client, key), headers=basic(key) | OURS)

    assert (refused.status_code, champion(client)) == (403, "mail-2")
