"""Credit drawn over the text: a page of HTML, colours for a terminal, and marks for a log.

    page(credited, unit) -> HTML, one document without scripts; whatever the copy holds is escaped
    strength(effect, largest) -> −1 … 1, how strong a colour is

Green earned, red cost; the strongest word of all that is drawn together has the full colour. Sums are written beside, so
that colours are never all there is to see.
"""

from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined

from reward_models.credit.copy import CopyCredit, Part

SHOWN = 12
"""Most factors listed below a copy."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What earned it</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
section { border-top: 1px solid #8884; padding: 1rem 0; }
.slot { color: #777; font-size: .8rem; } .copy { font-size: 1.2rem; white-space: pre-wrap; margin: .2rem 0 .6rem; }
.up { background: rgb(34 160 80 / var(--s)); } .down { background: rgb(214 60 60 / var(--s)); }
.copy span { border-radius: .2em; padding: .1em 0; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; } td.n { text-align: right; }
</style></head><body>
<h1>What earned it</h1>
<p>What the reward model makes of each part, in {{ unit }} per 1,000 sends. Green earned, red cost; the parts of a copy add up to its
expectation. They say what the model makes of the words, not what would happen without them.</p>
{% for credit in credited %}<section>
<h2>{{ credit.content.content_id }}: {{ number(credit.expected) }}</h2>
{% for slot in credit.slots %}<div class="slot">{{ slot.name }} {{ number(slot.effect) }}</div>
<p class="copy">{% for piece in slot.pieces %}{% if piece.part %}<span class="{{ 'up' if piece.part.effect >= 0 else 'down' }}" \
style="--s: {{ piece.strength }}" title="{{ number(piece.part.effect) }}">{{ piece.text }}</span>{% else %}{{ piece.text }}\
{% endif %}{% endfor %}</p>
{% endfor %}<table>
{% for part in credit.others %}<tr><td>{{ part.what }}</td><td>{{ part.slot or '' }}</td><td>{{ part.kind }}</td>\
<td class="n">{{ number(part.effect) }}</td></tr>
{% endfor %}</table></section>
{% endfor %}</body></html>
"""


def page(credited: Sequence[CopyCredit], unit: str) -> str:
    """The copy with its words in colour, what each slot adds, and the strongest parts that are in no word."""
    largest = largest_of(credited)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    drawn = [
        {
            "content": credit.content,
            "expected": credit.expected,
            "slots": [
                {"name": slot, "effect": effect, "pieces": _pieces(credit, slot, largest)}
                for slot, effect in credit.by_slot().items()
            ],
            "others": others(credit),
        }
        for credit in credited
    ]
    return environment.from_string(_PAGE).render(credited=drawn, unit=unit, number=number)


def others(credit: CopyCredit, most: int = SHOWN) -> list[Part]:
    """The campaign, then what is in no word, strongest first; what is beyond ``most`` is one part."""
    found = credit.of("factor", "feature", "context", "wording")
    rest = sum(part.effect for part in found[most:])
    more = [Part("everything else", "wording", None, rest)] if len(found) > most else []
    return [*credit.of("campaign"), *found[:most], *more]


def cut(credit: CopyCredit, slot: str) -> list[tuple[str, Part | None]]:
    """The text of a slot in pieces: words with their credit, and what stands between them."""
    text, at = credit.content.slots[slot], 0
    found: list[tuple[str, Part | None]] = []
    for part in credit.words(slot):
        start, end = part.start or 0, part.end or 0
        found += [(text[at:start], None)] if start > at else []
        found.append((text[start:end], part))
        at = end
    return found + ([(text[at:], None)] if at < len(text) else [])


def largest_of(credited: Sequence[CopyCredit]) -> float:
    """The strongest effect of a word."""
    return max((abs(part.effect) for credit in credited for part in credit.of("word")), default=0.0)


def strength(effect: float, largest: float) -> float:
    """From −1 to 1; 0 where nothing has any effect."""
    return effect / largest if largest else 0.0


def number(effect: float) -> str:
    """Per 1,000 sends, with its sign."""
    return f"{1000.0 * effect:+,.3g}".replace("-", "−")


def _pieces(credit: CopyCredit, slot: str, largest: float) -> list[dict[str, object]]:
    return [
        {"text": text, "part": part, "strength": 0 if part is None else f"{abs(strength(part.effect, largest)):.2f}"}
        for text, part in cut(credit, slot)
    ]
