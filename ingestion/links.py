"""Redirect links: ``<public url>/r/<signed>`` records a click and leads on to a page of yours.

The signed part holds decision, position and destination, so that a link is made and read without any storage. It is
signed with the token's key ring for a purpose of its own: old keys verify for as long as they are in the ring.

No open redirect: a destination is checked when it is signed and again when it is followed, against the hosts the
settings list. It is not parsed but matched, by a form so narrow that every reader of URLs sees the same host: http or
https, a plain host name, a port only where the list names it, then the characters of RFC 3986 and nothing else. What
readers disagree about (user info, backslashes, blanks, control characters, dots at the end, letters beyond ASCII)
does not match.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from infra.errors import BadInput, NotFound
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.tokens import PARAMETER, sign, verified

PURPOSE = "link:"
URL_LIMIT = 2_000
LINKS_LIMIT = 20
SIGNED_LIMIT = 500
"""Most redirect links in one answer: links times slots."""

_LONGEST = 4_000
_DESTINATION = re.compile(
    r"https?://(?P<host>[a-z0-9.-]+(:[0-9]{1,5})?)([/?#][a-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?", re.ASCII | re.IGNORECASE
)
_LABEL = re.compile(r"(?!xn--)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Link(msgspec.Struct, frozen=True, array_like=True):
    """What a redirect link says."""

    decision_id: str
    position: int | None
    url: str


def check_links(links: Mapping[str, str], slots: int, settings: Settings) -> None:
    """Whether these may be signed for an answer of so many slots. Raises :class:`BadInput` that names the link."""
    if len(links) * slots > SIGNED_LIMIT:
        raise BadInput(
            f"{len(links)} links for {slots} slots; at most {SIGNED_LIMIT} redirect links in one answer", "/links"
        )
    for name, url in links.items():
        try:
            check_destination(url, settings.redirect_hosts)
        except BadInput as error:
            raise BadInput(f"Link {name!r}: {error}", f"/links/{name}") from None


def make_link(secrets: Secrets, public_url: str, decision_id: str, position: int | None, url: str) -> str:
    """The redirect link to a destination that was checked."""
    content = msgspec.msgpack.encode(Link(decision_id, position, url))
    return f"{public_url.rstrip('/')}/r/{sign(secrets, content, PURPOSE)}"


def read_link(secrets: Secrets, signed: str, hosts: Sequence[str]) -> Link:
    """What the last part of a redirect link says. Raises :class:`NotFound` unless we signed exactly it, and its host
    is still listed."""
    content = verified(secrets, signed, _LONGEST, PURPOSE)
    if content is None:
        raise NotFound("The link was not signed by this installation or was changed")
    link = msgspec.msgpack.decode(content, type=Link)
    try:
        check_destination(link.url, hosts)
    except BadInput:
        raise NotFound("The link leads to a host that is not in REWARDLOOP_REDIRECT_HOSTS any more") from None
    return link


def check_destination(url: str, hosts: Sequence[str]) -> None:
    """Raises :class:`BadInput` unless the URL has the one form we take and one of these hosts."""
    if not hosts:
        raise BadInput(
            "redirect links are off; list the hosts they may lead to in REWARDLOOP_REDIRECT_HOSTS, "
            'for example ["shop.example.com"]'
        )
    matched = _DESTINATION.fullmatch(url)
    if len(url) > URL_LIMIT or not matched:
        raise BadInput(
            f"not an address this installation leads to; write http:// or https://, a host, then at most {URL_LIMIT} "
            "characters in all, percent-encoded"
        )
    host = matched["host"].lower()
    if not any(_is_host(host, listed) for listed in hosts):
        raise BadInput(f"host {host!r} is not listed; add it to REWARDLOOP_REDIRECT_HOSTS if it is yours")


def with_token(url: str, token: str) -> str:
    """The URL with ``rl=<token>`` in its query, before the fragment; one that has an ``rl`` keeps its own."""
    address, mark, fragment = url.partition("#")
    path, _, query = address.partition("?")
    if any(part.partition("=")[0] == PARAMETER for part in query.split("&")):
        return url
    separator = "&" if query and not query.endswith("&") else ""
    return f"{path}?{query}{separator}{PARAMETER}={token}{mark}{fragment}"


def _is_host(host: str, listed: str) -> bool:
    if not listed.startswith("*."):
        return host == listed
    below = host.removesuffix(listed[1:])
    return below != host and all(_LABEL.fullmatch(label) for label in below.split("."))
