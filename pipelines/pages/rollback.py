"""The way back by one click: the version that served before this one, for whoever may promote.

A form on the first page posts to ``/loops/{loop}/rollback``. Three things keep another site from clicking it: the browser
must say that the click came from our own page (``Sec-Fetch-Site``, which pages cannot set), the address carries a
signature that only our page knows, and that signature is of the champion's revision, so it works once.
"""

import hmac

from sqlalchemy import Connection

from infra.errors import Conflict, Forbidden
from infra.randomness import derive, digest
from infra.secrets import Secrets
from ingestion.audit import read_audit, record
from reward_models import registry


def earlier(connection: Connection, loop_id: str) -> tuple[str, int] | None:
    """The version that the champion replaced, and the champion's revision; None where there is no way back."""
    champion = registry.champion(connection, loop_id)
    if champion is None:
        return None
    promotions = read_audit(connection, action="promote", subject=champion.version, limit=1)
    before = promotions[-1].details.get("replaces") if promotions else None
    return (str(before), champion.revision) if before else None


def signature(secrets: Secrets, loop_id: str, version: str, revision: int, who: str) -> str:
    """What the form carries. ``who``: the key that the page was shown to, empty without keys."""
    return digest(derive(secrets.master, "pages"), "rollback", "\x00".join((loop_id, version, who)), revision).hex()


def go_back(
    connection: Connection, secrets: Secrets, loop_id: str, asked: tuple[str, int, str], who: str, actor: str, now: int
) -> str:
    """Serve the earlier version again. ``asked``: version, revision and signature from the form. Returns the version.

    Raises :class:`Forbidden` for a signature that is not ours, :class:`Conflict` when the champion changed since.
    """
    version, revision, signed = asked
    if not hmac.compare_digest(signature(secrets, loop_id, version, revision, who), signed):
        raise Forbidden("This click did not come from our page; open the page again, then decide")
    if earlier(connection, loop_id) != (version, revision):
        raise Conflict(f"The champion of loop {loop_id!r} changed meanwhile; look at it again, then decide")
    record(connection, actor, "rollback", version, {"loop": loop_id}, now)
    registry.promote(connection, loop_id, version, revision, now, actor)
    return version
