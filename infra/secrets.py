"""The installation's secrets: one JSON file, readable by its owner only.

``{"master": hex, "units": {"1": hex}, "tokens": {"1": hex}}``: the highest key of ``units`` and ``tokens`` is the
one in use, lower ones still verify. Customers are matched under the newest two unit secrets, so the next rotation waits
for the longest window. ``"holdouts": {loop: hex}`` deals a loop's holdout anew. ``"webhooks": {connection: {"connector":
"shopify", "keys": ["new", "old"]}}`` lets vendors in; a connection named like its connector may leave ``connector`` out;
``"signature": "bearer"`` replaces the vendor's way of signing, and ``"unsigned": true`` in place of keys takes anybody's
word. The embedded mode makes the file on first use; a server must be given it.
"""

import json
import os
import re
import secrets as entropy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import Misconfigured
from infra.randomness import derive, digest
from infra.settings import Settings

CONNECTION = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Names of webhook connections: they are the permanent source of their events."""


@dataclass(frozen=True)
class Webhook:
    """Whom a connection belongs to: which connector reads it, and the keys in force, any of which may have signed."""

    connector: str
    keys: tuple[str, ...] = field(repr=False)
    signature: str | None = None
    """Another way of signing than the vendor's own, by name."""
    unsigned: bool = False
    """Nothing is checked: for a network that only the sender reaches."""


@dataclass(frozen=True)
class Secrets:
    """Keys of an installation. Nothing here is ever printed: the fields are left out of ``repr``."""

    master: bytes = field(repr=False)
    units: dict[int, bytes] = field(repr=False)
    tokens: dict[int, bytes] = field(repr=False)
    holdouts: dict[str, bytes] = field(repr=False, default_factory=dict)
    webhooks: dict[str, Webhook] = field(repr=False, default_factory=dict)

    def loop(self, loop_id: str) -> bytes:
        """The secret behind a loop's draws (invariant 8)."""
        return derive(self.master, f"loop:{loop_id}")

    def holdout(self, loop_id: str) -> bytes:
        """The salt of a loop's holdout, independent of the unit secret: each is rotated without the other."""
        return self.holdouts.get(loop_id) or derive(self.master, f"holdout:{loop_id}")

    def quarantine(self) -> bytes:
        """32 bytes that encrypt quarantined records."""
        return derive(self.master, "quarantine")

    def keys(self) -> bytes:
        """The secret under which API keys are hashed."""
        return derive(self.master, "api-keys")

    def unit(self, user_id: str) -> str:
        """The keyed hash that stands for a customer, under the secret in use: ``u<version>:<hex>``."""
        return self._unit(max(self.units), user_id)

    def unit_before(self, user_id: str) -> str | None:
        """The hash under the secret before the one in use, while a rotation is under way."""
        older = sorted(self.units)[:-1]
        return self._unit(older[-1], user_id) if older else None

    def every_unit(self, user_id: str) -> tuple[str, ...]:
        """The hashes under all secrets that are kept, the one in use first: what must never be missed is looked for under
        each."""
        return tuple(self._unit(version, user_id) for version in sorted(self.units, reverse=True))

    def mark(self, decision_id: str) -> str:
        """What is kept of a decision whose customer was forgotten: enough to know what comes late about it."""
        return f"d:{digest(self.master, 'forgotten decision', decision_id)[:16].hex()}"

    def _unit(self, version: int, user_id: str) -> str:
        return f"u{version}:{digest(self.units[version], 'unit', user_id)[:16].hex()}"


def load_secrets(settings: Settings) -> Secrets:
    """The secrets of these settings, made on first use in the embedded mode.

    Raises :class:`Misconfigured` when a server has none or the file cannot be read.
    """
    path = settings.secrets_path
    if not path.exists():
        if settings.mode != "embedded":
            raise Misconfigured(f"No secrets at {path}: set REWARDLOOP_SECRETS_FILE to the installation's secrets file")
        _make(path)
    try:
        stored = json.loads(path.read_text())
        salts = {loop_id: bytes.fromhex(salt) for loop_id, salt in stored.get("holdouts", {}).items()}
        keys = bytes.fromhex(stored["master"]), _keys(stored["units"]), _keys(stored["tokens"])
        webhooks = {name: _webhook(path, name, entry) for name, entry in stored.get("webhooks", {}).items()}
        return Secrets(*keys, salts, webhooks)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured(
            f"{path} is not a secrets file ({type(error).__name__}); restore it from its back-up"
        ) from None


def _keys(stored: dict[str, str]) -> dict[int, bytes]:
    keys = {int(version): bytes.fromhex(key) for version, key in stored.items()}
    if not keys or any(len(key) < 16 for key in keys.values()):
        raise ValueError("every key ring needs at least one key of 16 bytes or more")
    return keys


def _webhook(path: Path, name: str, entry: Any) -> Webhook:
    """One connection. What is wrong is said by its name, never with a key."""
    known = isinstance(entry, dict) and entry.keys() <= {"connector", "keys", "signature", "unsigned"}
    keys, unsigned = (entry.get("keys", []), entry.get("unsigned", False)) if known else (None, False)
    usable = isinstance(keys, list) and all(isinstance(key, str) and key.strip() for key in keys)
    if not re.fullmatch(CONNECTION, name) or not usable or not isinstance(unsigned, bool) or bool(keys) == unsigned:
        raise Misconfigured(
            f"Webhook {name[:64]!r} in {path} is wrong: write a name of letters, digits, '.', '_' and '-', with "
            '{"connector": "shopify", "keys": ["…"]}, or "unsigned": true in place of keys'
        )
    signature = entry.get("signature")
    return Webhook(
        connector=str(entry.get("connector", name)),
        keys=tuple(key.strip() for key in keys or ()),
        signature=None if signature is None else str(signature),
        unsigned=unsigned,
    )


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {"master": entropy.token_hex(32), "units": {"1": entropy.token_hex(32)}, "tokens": {"1": entropy.token_hex(32)}}
    )
    draft = path.with_name(f"{path.name}.{os.getpid()}.{entropy.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    try:
        os.link(draft, path)  # fails when another process was first: then its secrets are the ones
    except FileExistsError:
        pass
    finally:
        draft.unlink()
