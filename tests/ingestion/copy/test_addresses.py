"""Addresses: what a mail program would make a link of is found, however it is written, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.copy.addresses import addresses, shown, without_addresses
from ingestion.copy.copy_rules import CopyRules
from ingestion.copy.guardrails import Surroundings, vet
from ingestion.events import Content

LISTED = CopyRules(links=("shop.example.com", "*.shop.example"))


def passes(text: str) -> bool:
    (found,) = vet(LISTED, Content(content_id="c", campaign_id="k", slots={"text": text}), Surroundings())
    return found.passed


@pytest.mark.parametrize(
    "text",
    [
        "evil.ru",
        "evil.dev",
        "evil.click/now",
        "evil.online/x",
        "evil.anything/x",
        "evil.anything:8080/x",
        "//evil.ru/x",
        "//shop.example.com.evil/x",
        "\\\\evil.ru\\x",
        "shop.example.com.evil.ru/x",
        "shop.example.com.Jetzt",
        "evil\u200b.com",
        "evil\u00ad.c\ufe0fom",
        "ｅｖｉｌ．ｃｏｍ",
        "evil。com",
        "evil｡com",
        "bücher.de",
        "BÜCHER.DE",
        "example.рф",
        "xn--bcher-kva.xn--p1ai",
        "i❤.ws",
        "❤.ws",
        "Jetzt...evil.ru",
        "Nur bei evil.ru-Kunden",
        "検索はevil.comで",
        "x.de@evil.ru/x",
        "evil.ru@ jetzt",
        "https:evil.ru",
        "HTTPS:/\\evil.ru",
        "intent://evil.ru",
        "x=https://evil.ru",
        "www.evil.anything",
        "https://shop.example.com\n.evil.ru",
        "https://shop.example.com@evil.ru",
        "1.2.3.4/x",
        "javascript:alert(1)",
    ],
)
def test_no_other_host_passes(text: str) -> None:
    """Whatever leads somewhere else is refused, alone and within a sentence."""
    assert not passes(text)
    assert not passes(f"Jetzt: {text}, bis morgen")


@pytest.mark.parametrize(
    "text",
    [
        "shop.example.com",
        "Shop.Example.COM/Mantel?a=1#b",
        "//shop.example.com/x",
        "https://shop.example.com/a/b.html, and (www.shop.example/x).",
        "👉shop.example.com🎉",
        "Mit shop.example.com-Gutschein",
        "jetzt bei shop.example.comで",
        "shop.example.com... und mehr",
        "e.g. this, i.e. that, z.B. hier, d.h. dort, u.a., a.m., Ph.D., e.g.this",
        "Mr.Smith and Dr.Oetker of St.Gallen",
        "v2.0, 3.5.1, 1.000,50 and 24.12.2026, 2.5GB, 10.MB, 6.30pm, 1/2",
        "The end.Next sentence. Fertig.Los!",
        "Mo.-Fr. 9.00/18.00 Uhr",
        "GmbH & Co.KG, Node.js, E.ON, s.Oliver, katalog.pdf",
        "write to ann@evil.ru or @evil.ru, und/oder, 24/7",
        "{{first_name}}, {{product.title}}...",
        "今日はセール。明日もセール。男性/女性",
        "Note: 5:30, a // b, http status",
    ],
)
def test_listed_hosts_and_ordinary_words_pass(text: str) -> None:
    """Listed hosts pass in every place, and so does what only looks like an address."""
    assert passes(text)


WIDE = {ord(sign): ord(sign) + 0xFEE0 for sign in "abcdefghijklmnopqrstuvwxyz0123456789.-/:"}
UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\ufe0f"


@st.composite
def disguised(draw: st.DrawFn, host: str) -> str:
    """The host with its case, its widths, its dots and invisible signs as somebody may write them."""
    signs = []
    for sign in host:
        form = draw(st.sampled_from([sign, sign.upper(), sign.translate(WIDE)]))
        form = draw(st.sampled_from(".．。｡․")) if sign == "." else form
        signs.append(form + draw(st.sampled_from(["", "", *UNSEEN])))
    return "".join(signs)


@given(
    st.data(), st.sampled_from(["evil.ru", "evil.com", "shop.example.com.evil.de", "evil-shop.online", "x.anything/y"])
)
def test_no_spelling_hides_a_host(data: st.DataObject, host: str) -> None:
    """Case, width, invisible signs and other dots change nothing, with words around or without."""
    before, after = data.draw(st.sampled_from([("", ""), ("Now at ", "!"), ("(", ")"), ("„", "“"), ("//", "/x")]))
    assert not passes(f"{before}{data.draw(disguised(host))}{after}")


@given(st.data())
def test_a_listed_host_passes_in_every_spelling(data: st.DataObject) -> None:
    """The same spellings of a listed host are that host."""
    before, after = data.draw(st.sampled_from([("", ""), ("Now at ", "!"), ("(", ")"), ("„", "“"), ("//", "/x")]))
    assert passes(f"{before}{data.draw(disguised('shop.example.com'))}{after}")


@given(st.text(alphabet="ab.@/:-_ \\。é👉1\u200b?", max_size=40))
def test_addresses_are_parts_of_the_text_in_order(text: str) -> None:
    """Any text is read to its end; no two addresses overlap."""
    seen = shown(text)
    found = addresses(seen)

    ends = [0, *(each.end for each in found)]
    assert all(end <= each.start < each.end <= len(seen) for end, each in zip(ends, found, strict=False))


def test_only_plain_addresses_are_taken_out() -> None:
    """What may be a figure stays: a host of digits, and what only looks like a host."""
    assert without_addresses("a shop.de/7 b https://my.horse/20 c").split() == ["a", "b", "c"]
    assert without_addresses("www.50%off 20.de https://50%off") == "www.50%off 20.de https://50%off"
