"""Where notices go: a file that only its owner reads, because addresses of hooks and passwords are secrets.

    {"targets": [
      {"name": "ops",  "kind": "webhook", "url": "https://…", "secret": "…"},
      {"name": "team", "kind": "slack",   "url": "https://hooks.slack.com/services/…"},
      {"name": "mail", "kind": "email",   "server": "smtp.example.com", "port": 587, "user": "…", "password": "…",
                       "sender": "rewardloop@example.com", "to": ["ops@example.com"]},
      {"name": "flow", "kind": "prefect", "block": "slack-webhook/marketing", "only": ["approval"]}
    ]}

``only`` limits a target to these kinds of notices. A Prefect block keeps its secret in Prefect.
"""

from pathlib import Path
from typing import Annotated

import msgspec

from infra.errors import Misconfigured
from pipelines.notifying.notices import Kind, Notice

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s@]+$", max_length=2_000)]
Address = Annotated[str, msgspec.Meta(pattern=r"^[^\s@<>,]+@[^\s@<>,]+$", max_length=254)]
Line = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
Block = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")]


class _Target(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    name: Name
    only: tuple[Kind, ...] = ()

    def wants(self, notice: Notice) -> bool:
        """Whether this kind of notice goes there."""
        return not self.only or notice.kind in self.only


class Webhook(_Target, frozen=True, kw_only=True, tag="webhook"):
    """A JSON document is posted there; with a secret it is signed."""

    url: Url
    secret: Line | None = None


class Slack(_Target, frozen=True, kw_only=True, tag="slack"):
    """An incoming webhook of Slack, or of what speaks like it."""

    url: Url


class Email(_Target, frozen=True, kw_only=True, tag="email"):
    """A mail. ``encryption``: `starttls`, `tls` from the first byte, or `none` on this machine."""

    server: Line
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 587
    encryption: Annotated[str, msgspec.Meta(pattern="^(starttls|tls|none)$")] = "starttls"
    user: Line | None = None
    password: Line | None = None
    sender: Address
    to: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1, max_length=50)]


class PrefectBlock(_Target, frozen=True, kw_only=True, tag="prefect"):
    """A notification block of Prefect, as `type/name`."""

    block: Block


Target = Webhook | Slack | Email | PrefectBlock


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    targets: Annotated[tuple[Target, ...], msgspec.Meta(max_length=50)]


def load_targets(path: Path | None) -> tuple[Target, ...]:
    """The targets of a file; none without one. Raises :class:`Misconfigured`, which shows no value of the file."""
    if path is None:
        return ()
    try:
        if path.stat().st_mode & 0o077:
            raise Misconfigured(f"{path} holds secrets and others may read it: chmod 600 {path}")
        found = msgspec.json.decode(path.read_bytes(), type=_File).targets
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{path} cannot be read ({type(error).__name__}); see docs/how-to/notifications.md"
        ) from None
    except msgspec.DecodeError as error:
        raise Misconfigured(
            f"{path} is no list of targets: {_place(error)}; see docs/how-to/notifications.md"
        ) from None
    names = [target.name for target in found]
    if len(set(names)) != len(names):
        raise Misconfigured(f"Two targets in {path} have the same name; give each its own")
    return found


def _place(error: msgspec.DecodeError) -> str:
    """What is wrong and where, without what was written there."""
    return str(error).split(" - at ")[0] if "matching regex" not in str(error) else str(error).partition("matching")[0]
