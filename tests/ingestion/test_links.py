"""Redirect links: what is signed is read, nothing else is, and no link leads to a host that is not listed."""

import string
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.errors import BadInput, Misconfigured, NotFound
from infra.secrets import Secrets
from infra.settings import Settings, load_settings
from ingestion.links import LINKS_LIMIT, Link, check_destination, check_links, make_link, read_link, with_token
from ingestion.tokens import make_token, read_token

SECRETS = Secrets(b"m" * 32, {1: b"u" * 32}, {1: b"a" * 32, 2: b"b" * 32})
HOSTS = ("shop.example.com", "*.example.org", "localhost:3000")
PUBLIC = "https://go.example.com"
SAFE = string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;=%"

GOOD = (
    "https://shop.example.com",
    "https://shop.example.com/",
    "http://shop.example.com/sale?x=1&y=a%20b#top",
    "HTTPS://Shop.Example.COM/a",
    "https://shop.example.com?x=1",
    "https://shop.example.com#top",
    "https://shop.example.com//evil.example/../x",
    "https://shop.example.com/@evil.example",
    "https://a.example.org/",
    "https://a.b-c.example.org/",
    "http://localhost:3000/x",
)

HOSTILE = (
    "",
    "//evil.example/",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "https://evil.example",
    "https://evil.example/shop.example.com",
    "https://evil.example?shop.example.com",
    "https://evil.example#shop.example.com",
    "https://shop.example.com@evil.example/",
    "https://shop.example.com:pw@evil.example/",
    "https://evil.example\\@shop.example.com/",
    "https://evil.example/\\@shop.example.com",
    "https://shop.example.com\\@evil.example/",
    "https://shop.example.com%40evil.example/",
    "https://shop.example.com%2eevil.example/",
    "https://shop.example.com.evil.example/",
    "https://shop.example.com./",
    "https://evilshop.example.com/",
    "https://evil-example.org/",
    "https://evilexample.org/",
    "https://example.org/",
    "https://.example.org/",
    "https://a..example.org/",
    "https://-a.example.org/",
    "https://xn--pypal-4ve.example.org/",
    "https://xn--shp-tna.example.com/",
    "https://shop.example.com:443/",
    "https://shop.example.com:8443/",
    "https://shop.example.com:/",
    "https://localhost/",
    "https://localhost:30000/",
    "https://127.0.0.1/",
    "https://2130706433/",
    "https://[::1]/",
    "https://shop.ехample.com/",
    "https://shop\u3002example\u3002com/",
    "https://ſhop.example.com/",
    "https://shop.example.com/\u2028",
    "https://shop.example.com/ü",
    " https://shop.example.com/",
    "https://shop.example.com/ ",
    "https://shop.example.com/a b",
    "https://shop.example.com\t/",
    "ht\ntps://shop.example.com/",
    "https://shop.example.com/\r\nLocation: https://evil.example",
    "https://shop.example.com/\r\nSet-Cookie: a=b",
    "https://shop.example.com/\n",
    "https://shop.example.com\n",
    "https://shop.example.com/\x00",
    "https://shop.example.com/\x7f",
    'https://shop.example.com/"><script>',
    "javascript:alert(1)//shop.example.com",
    "data:text/html,https://shop.example.com",
    "ftp://shop.example.com/",
    "file://shop.example.com/etc/passwd",
    "httpss://shop.example.com/",
    "view-source:https://shop.example.com/",
    "https://shop.example.com/" + "a" * 2_000,
)


def leads(url: str, hosts: tuple[str, ...] = HOSTS) -> bool:
    """Whether the URL is taken as a destination."""
    try:
        check_destination(url, hosts)
    except BadInput:
        return False
    return True


def signed(link: str) -> str:
    """The part of a link that is signed."""
    return link.removeprefix(f"{PUBLIC}/r/")


@pytest.mark.parametrize("url", GOOD)
def test_a_listed_host_is_led_to(url: str) -> None:
    """A plain address on a listed host is signed, and read as it was written."""
    check_destination(url, HOSTS)
    link = make_link(SECRETS, PUBLIC, "d1", 2, url)

    assert read_link(SECRETS, signed(link), HOSTS) == Link("d1", 2, url)


@pytest.mark.parametrize("url", HOSTILE)
def test_no_open_redirect(url: str) -> None:
    """An address that some reader of URLs could take for another host is refused when it is signed, and also when it
    is followed although somebody with the key signed it."""
    assert not leads(url)
    with pytest.raises(NotFound):
        read_link(SECRETS, signed(make_link(SECRETS, PUBLIC, "d1", None, url)), HOSTS)


HOST_PIECES = st.sampled_from(
    ["shop.example.com", "example.org", "a.example.org", "evil.example", "localhost", "3000", "xn--a", "%2e", "ü", "。"]
)
GLUE = st.sampled_from(["", ".", "@", ":", "/", "\\", "?", "#", "//", "\t", "\r\n", " ", "%00", "%40", "..", "-", "["])
ATTACKS = st.builds(
    lambda scheme, parts: scheme + "".join(f"{glue}{piece}" for glue, piece in parts),
    st.sampled_from(["https://", "http://", "HTTPS://", "//", "https:", "https:/", "https:\\\\", "javascript:", ""]),
    st.lists(st.tuples(GLUE, HOST_PIECES), min_size=1, max_size=5),
)


@settings(max_examples=400, deadline=None)
@given(ATTACKS | st.text(max_size=60).map(lambda text: f"https://shop.example.com{text}"))
@example("https://shop.example.com\n")
def test_whatever_is_taken_leads_to_a_listed_host(url: str) -> None:
    """A URL that is taken has one host for a lenient parser and for the split at the first delimiter, and it is
    listed; it holds only characters that cannot end a header line."""
    if not leads(url):
        return
    authority = urlsplit(url).netloc.lower()
    first = url.split("//", 1)[1].replace("\\", "/").replace("?", "/").replace("#", "/").split("/")[0].lower()

    assert authority == first
    assert authority in HOSTS or authority.endswith(".example.org")
    assert set(url) <= set(SAFE)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), st.none() | st.integers(1, 500), st.text(SAFE, max_size=80))
def test_round_trip(decision_id: str, position: int | None, rest: str) -> None:
    """Any decision id, position and path come back from the link, which needs no escaping."""
    url = f"https://shop.example.com/{rest}"
    link = signed(make_link(SECRETS, PUBLIC, decision_id, position, url))

    assert read_link(SECRETS, link, HOSTS) == Link(decision_id, position, url)
    assert set(link) <= set(string.ascii_letters + string.digits + "-_.")


@settings(max_examples=20, deadline=None)
@given(st.sampled_from("A_9.-é\x00"))
def test_every_changed_character_is_refused(other: str) -> None:
    """A link with any one character changed leads nowhere."""
    link = signed(make_link(SECRETS, PUBLIC, "d1", 1, "https://shop.example.com/sale"))

    for place, character in enumerate(link):
        if character != other:
            with pytest.raises(NotFound):
                read_link(SECRETS, link[:place] + other + link[place + 1 :], HOSTS)


@given(st.text(max_size=300))
def test_any_text_is_refused_without_a_crash(text: str) -> None:
    """Text that we did not sign leads nowhere, and breaks nothing."""
    with pytest.raises(NotFound):
        read_link(SECRETS, text, HOSTS)


def test_a_token_is_no_link_and_a_link_no_token() -> None:
    """What was signed for one purpose is worth nothing for the other."""
    with pytest.raises(NotFound):
        read_link(SECRETS, make_token(SECRETS, "d1"), HOSTS)
    with pytest.raises(BadInput):
        read_token(SECRETS, signed(make_link(SECRETS, PUBLIC, "d1", 1, "https://shop.example.com/")))


def test_key_rotation() -> None:
    """The newest key signs; a link of the key before works as long as that key is kept, and not after."""
    before = Secrets(SECRETS.master, SECRETS.units, {1: b"a" * 32})
    gone = Secrets(SECRETS.master, SECRETS.units, {2: b"b" * 32})
    old = signed(make_link(before, PUBLIC, "d1", 1, "https://shop.example.com/"))

    assert read_link(SECRETS, old, HOSTS).decision_id == "d1"
    assert signed(make_link(SECRETS, PUBLIC, "d1", 1, "https://shop.example.com/")).startswith("2.")
    with pytest.raises(NotFound):
        read_link(gone, old, HOSTS)


def test_a_host_taken_off_the_list_is_not_led_to_any_more() -> None:
    """The list is asked again when a link is followed."""
    link = signed(make_link(SECRETS, PUBLIC, "d1", 1, "https://shop.example.com/"))

    with pytest.raises(NotFound, match="REWARDLOOP_REDIRECT_HOSTS"):
        read_link(SECRETS, link, ("other.example.com",))


def test_without_a_list_links_are_refused() -> None:
    """An installation that lists no hosts says which setting to set."""
    with pytest.raises(BadInput, match="REWARDLOOP_REDIRECT_HOSTS") as refused:
        check_links({"cta": "https://shop.example.com/"}, 1, Settings())

    assert refused.value.pointer == "/links/cta"


def test_the_answer_stays_small() -> None:
    """Links times slots have a limit."""
    links = {f"l{number}": "https://shop.example.com/" for number in range(LINKS_LIMIT)}
    listed = Settings(redirect_hosts=HOSTS)

    check_links(links, 25, listed)
    with pytest.raises(BadInput, match="20 links for 26 slots"):
        check_links(links, 26, listed)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example", "https://a.example?rl=T"),
        ("https://a.example/p#f?x", "https://a.example/p?rl=T#f?x"),
        ("https://a.example/p?x=1&y", "https://a.example/p?x=1&y&rl=T"),
        ("https://a.example/p?x=1&", "https://a.example/p?x=1&rl=T"),
        ("https://a.example/p?", "https://a.example/p?rl=T"),
        ("https://a.example/p?url=1", "https://a.example/p?url=1&rl=T"),
        ("https://a.example/p?rl=own&x=1", "https://a.example/p?rl=own&x=1"),
        ("https://a.example/p?x=1&rl#f", "https://a.example/p?x=1&rl#f"),
    ],
)
def test_the_token_goes_into_the_query(url: str, expected: str) -> None:
    """The token becomes one more query parameter, before the fragment; an `rl` that is there stays."""
    assert with_token(url, "T") == expected


@given(st.sampled_from(GOOD))
def test_a_destination_with_a_token_is_the_same_destination(url: str) -> None:
    """The added token changes neither host nor path, is read back whole, and the result still passes the check."""
    token = make_token(SECRETS, "d1", 3)
    changed = with_token(url, token)

    check_destination(changed, HOSTS)
    assert urlsplit(changed)._replace(query="") == urlsplit(url)._replace(query="")
    assert parse_qs(urlsplit(changed).query)["rl"] == [token]


@pytest.mark.parametrize(
    "hosts",
    [
        ["https://shop.example.com"],
        ["*"],
        ["*.com"],
        ["*.10.0"],
        ["a/b"],
        ["a b"],
        ["a@b"],
        ["ü.example"],
        [""],
        ["a.*"],
    ],
)
def test_a_wrong_host_in_the_settings_stops_the_start(hosts: list[str]) -> None:
    """The list holds hosts, and no pattern that is wider than one domain."""
    with pytest.raises(Misconfigured, match="REWARDLOOP_REDIRECT_HOSTS"):
        load_settings(redirect_hosts=hosts)


@pytest.mark.parametrize(
    "url", ["go.example.com", "ftp://go.example.com", "https://a b", "https://x/?q", "https://x\n"]
)
def test_a_wrong_public_address_stops_the_start(url: str) -> None:
    """The public address is scheme, host and perhaps a path."""
    with pytest.raises(Misconfigured, match="REWARDLOOP_PUBLIC_URL"):
        load_settings(public_url=url)
