"""Addresses in copy, as a mail program would find them: with a scheme, or as bare as ``shop.example.com``.

    addresses(text) -> [Address]        without_addresses(text) -> the text less those that say nothing but where they lead

The text is read as it is shown (``shown``): full-width letters, invisible signs and ideographic stops hide nothing, and a host
goes on as long as its labels do, so that ``shop.example.com.evil.ru`` is one host. What counts as an address:

1. anything behind a scheme (``https://…``, ``javascript:…``); what holds a dot behind two slashes; ``www.`` with two more labels.
2. labels with dots between them, whose last has two letters or more, if a path follows: ``evil.anything/now``.
3. labels with dots between them of which any but the first is a top-level domain that we know
   (``domains.py``). So a full stop without its blank (``end.Next``, ``Mr.Smith``) is an address only where the next word
   is such a domain too (``Ende.In Berlin``): mail programs make a link of that, and a blank behind the stop mends it.

Abbreviations (``z.B.``, ``e.g.``), numbers, versions, e-mail addresses and handles are none. A bare host under a rare generic
domain, without a path, is not found.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from ingestion.copy.domains import DOMAINS

_WORDS = frozenset({"co.kg"})
"""What is written with a dot and no blank, and leads nowhere."""

_SCHEMES = "https?|ftp|javascript|vbscript|data|mailto|tel|sms|file|blob"
_SIGN = r"[^\x00-,./:-?\[-^`{-\x7f·]"
_START = re.compile(
    rf"(?P<scheme>(?<![a-z0-9+.-])(?:[a-z][a-z0-9+.-]*:[/\\]{{2}}|(?:{_SCHEMES}):)\S+)"
    rf"|(?P<slashes>[/\\]{{2,}})(?={_SIGN})"
    rf"|(?P<name>{_SIGN}+(?:\.{_SIGN}+)*)",
    re.IGNORECASE,
)
_PATH = re.compile(r"[/\\]\S*|:\d\S*|[?#]\w\S*")
_NAME = re.compile(rf"{_SIGN}+(?:\.{_SIGN}+)+")
_FOUR_NUMBERS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_BEHIND = ".,;:!?)]}\"'*_·"
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


class Address(NamedTuple):
    """``text[start:end]`` of the shown text."""

    start: int
    end: int
    written: str
    plain: bool
    """Whether it is sure to be nothing but an address: its host is of words, under a domain that there is."""


def shown(text: str) -> str:
    """A text in one form of each sign (NFKC), without the invisible ones; capitals stay."""
    seen = (sign for sign in _INVISIBLE.sub("", text) if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFKC", "".join(seen))


def addresses(text: str) -> list[Address]:
    """Every address of a text, as :func:`shown` gives it, in order."""
    return list(_found("".join(map(_searched, text))))


def without_addresses(text: str) -> str:
    """The shown text, plain addresses taken out: others may hide a figure (``www.50%off``, ``20.de``)."""
    left, parts, last = shown(text), list[str](), 0
    for found in addresses(left):
        if found.plain:
            parts += [left[last : found.start], " "]
            last = found.end
    return "".join([*parts, left[last:]])


def _searched(sign: str) -> str:
    """One sign for one: ideographic stops are dots, other punctuation beyond ASCII parts names without being a blank."""
    if sign.isascii():
        return sign
    kind = unicodedata.category(sign)[0]
    return "." if sign == "。" else " " if kind == "Z" else "·" if kind in "PC" else sign


def _found(text: str) -> Iterator[Address]:
    at = 0
    while match := _START.search(text, at):
        found: Address | None
        if match["scheme"]:
            found = _behind_scheme(match)
        elif match["slashes"]:
            found = _behind_slashes(text, match)
        else:
            found = _bare(text, match)
        if found is not None:
            yield found
        at = match.end() if found is None else max(found.end, match.start() + 1)


def _behind_scheme(match: re.Match[str]) -> Address:
    written = match["scheme"].rstrip(_BEHIND)
    host = re.match(rf"https?://({_NAME.pattern})(?=[/?#:]|$)", written, re.IGNORECASE)
    return Address(match.start(), match.end(), written, host is not None and _is_plain(host[1], any_domain=True))


def _behind_slashes(text: str, match: re.Match[str]) -> Address | None:
    if (name := _NAME.match(text, match.end())) is None:
        return None
    end = _end_of_path(text, name.end())
    return Address(match.start(), end, text[name.start() : end].rstrip(_BEHIND), _is_plain(name[0]))


def _bare(text: str, match: re.Match[str]) -> Address | None:
    """The first address of a run of signs and dots; a run that holds ``@`` may be an e-mail address."""
    run, start = match["name"], match.start()
    user, sign, host = run.rpartition("@")
    if sign and "@" not in user and _ends_in_letters(host):
        if (end := _end_of_path(text, match.end())) == match.end():
            return None
        return Address(start, end, text[start:end].rstrip(_BEHIND), False)
    for part in re.finditer(r"[^@]+", run):
        if found := _host(text, start + part.start(), start + part.end()):
            return found
    return None


def _host(text: str, start: int, end: int) -> Address | None:
    """The address in a run without ``@``, if it is one."""
    lead = re.match(r"[^\w]+(?=\w)|[-_]+", text[start:end])
    start += lead.end() if lead and "." not in lead[0] else 0
    name = text[start:end].rstrip("-_")
    labels = name.lower().split(".")
    if len(labels) < 2 or name.lower() in _WORDS:
        return None
    if tail := _tail(labels[-1]):
        return Address(start, start + len(name) - tail, name[:-tail], _is_plain(name[:-tail]))
    behind = _end_of_path(text, end)
    if not any(map(_begins_known, labels[1:])):
        lettered = _ends_in_letters(name) and (behind > end or (labels[0] == "www" and len(labels) > 2))
        if not lettered and not (behind > end and _FOUR_NUMBERS.fullmatch(name)):
            return None
    written = text[start:behind].rstrip(_BEHIND) if behind > end else name
    return Address(start, max(behind, start + len(name)), written, _is_plain(name))


def _end_of_path(text: str, at: int) -> int:
    path = _PATH.match(text, at)
    return path.end() if path else at


def _ends_in_letters(name: str) -> bool:
    last = name.lower().rpartition(".")
    return bool(last[1]) and (last[2] in DOMAINS or re.fullmatch(r"[a-z]{2,}|xn--[a-z0-9-]+", last[2]) is not None)


def _begins_known(label: str) -> bool:
    """Whether a label is a top-level domain, or one with something behind it that no domain has."""
    return label in DOMAINS or label.startswith("xn--") or _tail(label) > 0


def _tail(label: str) -> int:
    """How many signs stand behind a domain's own: ``com-Gutschein``, ``com`` before letters of another script; else 0."""
    letters = re.match(r"[a-z]+(?=[^a-z0-9])", label)
    if letters is None or letters[0] not in DOMAINS:
        return 0
    return 0 if unicodedata.name(label[letters.end()], "").startswith("LATIN") else len(label) - letters.end()


def _is_plain(host: str, any_domain: bool = False) -> bool:
    labels = host.lower().split(".")
    if any(label.isdigit() for label in labels):
        return False
    return labels[-1] in DOMAINS or labels[-1].startswith("xn--") or (any_domain and _ends_in_letters(host))
