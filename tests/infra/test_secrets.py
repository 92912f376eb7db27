"""Secrets: one private file, key rings that rotate."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.errors import Misconfigured
from infra.secrets import Secrets, Webhook, load_secrets
from infra.settings import Settings


def test_the_embedded_mode_makes_secrets_once_for_its_owner_only(settings: Settings) -> None:
    """The file is readable by its owner alone, and the next start reads the same secrets."""
    first, second = load_secrets(settings), load_secrets(settings)

    assert stat.S_IMODE(settings.secrets_path.stat().st_mode) == 0o600
    assert first == second
    assert len(first.master) == 32


def test_of_processes_that_start_together_all_get_the_same_secrets(settings: Settings) -> None:
    """Whoever links its file first wins; nobody is left with secrets that were not kept."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_secrets(settings), range(16)))

    assert all(secrets == found[0] for secrets in found)
    assert [path.name for path in settings.home.iterdir()] == ["secrets.json"]


def test_a_server_must_be_given_its_secrets(tmp_path: Path) -> None:
    """Secrets made up by a server would be others on the next one."""
    with pytest.raises(Misconfigured, match="REWARDLOOP_SECRETS_FILE"):
        load_secrets(Settings(home=tmp_path, mode="server"))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"master": "zz", "units": {}, "tokens": {}}', '{"master": "00", "units": {"1": "00"}}']
)
def test_a_damaged_file_is_refused(settings: Settings, text: str) -> None:
    """Anything but a whole secrets file stops the start, without showing what is in it."""
    settings.secrets_path.write_text(text)

    with pytest.raises(Misconfigured, match="is not a secrets file"):
        load_secrets(settings)


def test_secrets_are_never_shown(secrets: Secrets) -> None:
    """No key appears in the text of the object."""
    assert repr(secrets) == "Secrets()"


def test_units_are_hashed_with_the_newest_secret_and_known_by_the_one_before(settings: Settings) -> None:
    """After a rotation a unit has a new hash, and the one before for events of the overlap."""
    before = load_secrets(settings)
    stored = json.loads(settings.secrets_path.read_text())
    stored["units"]["2"] = "22" * 32
    settings.secrets_path.write_text(json.dumps(stored))
    after = load_secrets(settings)

    assert before.unit_before("ann") is None
    assert after.unit_before("ann") == before.unit("ann")
    assert after.unit("ann").startswith("u2:")
    assert after.unit("ann")[3:] != before.unit("ann")[3:]
    assert after.holdout("emails") == before.holdout("emails")


def test_a_holdout_is_dealt_anew_without_touching_anything_else(settings: Settings) -> None:
    """A new salt for one loop leaves customers' hashes, draws and the other loops' holdouts as they were."""
    before = load_secrets(settings)
    stored = json.loads(settings.secrets_path.read_text())
    settings.secrets_path.write_text(json.dumps(stored | {"holdouts": {"emails": "33" * 32}}))
    after = load_secrets(settings)

    assert after.holdout("emails") != before.holdout("emails")
    assert after.holdout("banners") == before.holdout("banners")
    assert (after.unit("ann"), after.loop("emails")) == (before.unit("ann"), before.loop("emails"))


def test_hashes_of_units_are_frozen(secrets: Secrets) -> None:
    """The hash of a customer is part of the record: it never changes for the same secret."""
    assert secrets.unit("ann@example.org") == "u1:bce7256d3c22c3f11b6204e7dd33d1f1"


def test_derived_secrets_differ_by_purpose_and_loop(secrets: Secrets) -> None:
    """Loops, holdouts and quarantine share no key."""
    keys = [
        secrets.loop("emails"),
        secrets.loop("banners"),
        secrets.holdout("emails"),
        secrets.holdout("banners"),
        secrets.quarantine(),
        secrets.master,
    ]
    assert len(set(keys)) == 6


def test_webhook_connections_are_read_and_never_shown(settings: Settings) -> None:
    """A connection named like its connector needs no more than keys; keys lose the spaces around them."""
    write_webhooks(
        settings, {"shopify": {"keys": [" new ", "old"]}, "in-house": {"connector": "native", "unsigned": True}}
    )
    found = load_secrets(settings)

    assert found.webhooks == {
        "shopify": Webhook("shopify", ("new", "old")),
        "in-house": Webhook("native", (), unsigned=True),
    }
    assert repr(found) == "Secrets()"
    assert "new" not in repr(found.webhooks["shopify"])


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"keys": []},
        {"keys": [""]},
        {"keys": "top-secret"},
        {"keys": ["top-secret"], "unsigned": True},
        {"keys": ["top-secret"], "key": "top-secret"},
        {"unsigned": False},
        {"unsigned": "yes"},
        ["top-secret"],
        None,
    ],
)
def test_a_webhook_is_signed_or_says_that_it_is_not(settings: Settings, entry: Any) -> None:
    """Neither keys nor ``unsigned``, or both, or anything else stops the start by the connection's name, not its keys."""
    write_webhooks(settings, {"shop": entry})
    with pytest.raises(Misconfigured, match="Webhook 'shop'") as refused:
        load_secrets(settings)

    assert "top-secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "a b", "-shop", "shop/eu", "import:shop", "x" * 65, "shop\n"])
def test_a_webhooks_name_is_plain(settings: Settings, name: str) -> None:
    """It is a part of a path and the permanent source of events."""
    write_webhooks(settings, {name: {"connector": "shopify", "keys": ["k"]}})
    with pytest.raises(Misconfigured, match="Webhook"):
        load_secrets(settings)


def write_webhooks(settings: Settings, webhooks: Any) -> None:
    """Secrets with these connections."""
    load_secrets(settings)
    stored = json.loads(settings.secrets_path.read_text())
    settings.secrets_path.write_text(json.dumps(stored | {"webhooks": webhooks}))
