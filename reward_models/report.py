"""What people read about a model version: three pictures and a plain-language description.

Pictures are PNG bytes, drawn without a display and without scripts. The description's numbers are looked up in
the very metrics that are logged, so the two cannot disagree; generated copy is escaped, because a headline is
not markup.
"""

import html
import io
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ingestion.loops import LoopDefinition


@dataclass(frozen=True)
class Theme:
    """Colours of a picture."""

    ink: str
    accent: str
    quiet: str
    paper: str
    grid: str


LIGHT = Theme(ink="#1f2933", accent="#0b7285", quiet="#9aa5b1", paper="#ffffff", grid="#e4e7eb")
DARK = Theme(ink="#e8ecf1", accent="#4fc3d9", quiet="#7b8794", paper="#161c25", grid="#2c3542")


@dataclass(frozen=True)
class Bar:
    """One line of a chart: a label, a value and its interval; ``low`` and ``high`` may be the value itself.
    ``marked``: it stands out."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Story:
    """What happened to one version, in words that need no numbers."""

    loop_id: str
    version: str
    kind: str
    state: str
    verdict: str
    serving: str
    changed: Sequence[str]
    cautions: Sequence[str]
    top: Sequence[Bar]


def reward_words(definition: LoopDefinition) -> str:
    """What one unit of the loop's reward is called: its only metric, with the currency for money, else ``reward``."""
    weights = {name: weight for name, weight in definition.reward.items() if weight}
    if list(weights.values()) != [1.0]:
        return "reward"
    metric = definition.metric(next(iter(weights)))
    return f"{metric.name} ({metric.currency})" if metric.currency else metric.name


def reliability_diagram(
    predicted: np.ndarray,
    observed: np.ndarray,
    weight: np.ndarray,
    words: str,
    theme: Theme = LIGHT,
    per: str = "decision",
) -> bytes:
    """Predicted against observed reward in bins; a point's area is its share of the decisions. Shapes (bins,)."""
    figure, axes = canvas(5.2, 5.2, theme)
    top = float(max(predicted.max(initial=0), observed.max(initial=0))) * 1.08 or 1.0
    low = float(min(0.0, predicted.min(initial=0), observed.min(initial=0)))
    axes.plot([low, top], [low, top], color=theme.quiet, linestyle="--", linewidth=1, label="perfect")
    axes.scatter(predicted, observed, s=20 + 380 * weight / max(weight.sum(), 1e-12), color=theme.accent, alpha=0.8)
    axes.set(xlim=(low, top), ylim=(low, top), xlabel=f"predicted {words} per {per}", ylabel="observed")
    axes.set_title("Does the model promise what arrives?")
    axes.legend(frameon=False, labelcolor=theme.ink)
    return png(figure)


def value_chart(bars: Sequence[Bar], words: str) -> bytes:
    """What each policy would earn per 1,000 decisions, with 95 % intervals."""
    title = "What each policy would earn (95 % intervals; dark: the estimate to believe)"
    return bar_chart(bars, f"{words} per 1,000 decisions", title)


def content_chart(bars: Sequence[Bar], words: str) -> bytes:
    """The best contents by predicted reward, with their copy and an interval."""
    return bar_chart(bars, f"predicted {words} per 1,000 decisions", "Top contents")


def describe(story: Story, metrics: Mapping[str, float], words: str) -> str:
    """The Markdown at the top of a run: what changed, would earn, the verdict, what serves, what to decide, what to doubt."""
    parts = [
        f"# {plain(story.loop_id)}: {plain(story.version)} ({story.kind}, {story.state})",
        f"**What changed.** {_sentences(story.changed)}",
        f"**What it would earn.** {earnings(metrics, words)}",
        f"**What the gate said.** {plain(story.verdict)}",
        f"**What is serving now.** {plain(story.serving)}",
        f"**What needs a decision.** {_decision(story)}",
        f"**What not to trust yet.** {_sentences(story.cautions) or 'Nothing known.'}",
    ]
    if story.top:
        parts.append("**Top contents.**\n\n" + "\n".join(f"1. {plain(bar.label)}" for bar in story.top))
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text as it is: neither Markdown, HTML nor an address in it means anything, and it stays on its line."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    escaped = re.sub(r"([\\`*_{}\[\]#|~!])", r"\\\1", escaped)
    escaped = re.sub(r"^([-+])", r"\\\1", escaped)
    return re.sub(r"(^\d+(?=[.)])|[a-zA-Z](?=://)|www(?=\.))", r"\1\\", escaped)


def earnings(metrics: Mapping[str, float], words: str) -> str:
    """What a version would have earned, in a sentence with its interval."""
    if "expected_gain_per_1000" not in metrics:
        return "There is no honest number yet."
    gain, low, high = (metrics[f"expected_gain_per_1000{end}"] for end in ("", "_low", "_high"))
    return (
        f"Against what served when it was judged, {_number(gain)} {plain(words)} per 1,000 decisions "
        f"(95 % interval {_number(low)} to {_number(high)}).{_power(metrics)}"
    )


def _power(metrics: Mapping[str, float]) -> str:
    """What so many customers could have shown; nothing where that was not computed."""
    if "smallest_detectable_per_1000" not in metrics:
        return ""
    units, detectable = metrics["units_judged"], metrics["smallest_detectable_per_1000"]
    said = f" So many customers ({units:,.0f}) show a gain of {detectable:,.2f} four times in five"
    return (
        f"{said}; a gain like this one takes {metrics['units_needed']:,.0f}."
        if "units_needed" in metrics
        else f"{said}."
    )


def _decision(story: Story) -> str:
    if story.state == "passed":
        return (
            f"Approve it with `rewardloop approve {story.loop_id} {story.version}`, or here: set the tag `approval` of the "
            "registered version to `approved`. Or leave things as they are."
        )
    return "Nothing."


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(plain(part) for part in parts)


def _number(value: float) -> str:
    return f"{value:+,.2f}" if abs(value) < 100 else f"{value:+,.0f}"


def bar_chart(bars: Sequence[Bar], axis: str, title: str, theme: Theme = LIGHT) -> bytes:
    """Values with their intervals, one line each, the first on top; 0 is marked where it is among them."""
    labels = [_label(bar) for bar in bars]
    lines = sum(1 + label.count("\n") for label in labels)
    figure, axes = canvas(8.0, 1.4 + 0.28 * max(2, lines), theme)
    rows = np.arange(len(bars))[::-1]
    for row, bar in zip(rows, bars, strict=True):
        reach = [[max(bar.value - bar.low, 0.0)], [max(bar.high - bar.value, 0.0)]]
        axes.errorbar(bar.value, row, xerr=reach, fmt="o", color=theme.ink if bar.marked else theme.accent, capsize=3)
    axes.set_yticks(rows, labels)
    axes.set_ylim(-0.7, max(len(bars), 1) - 0.3)
    axes.set_xlabel(axis)
    axes.set_title(title)
    axes.grid(axis="x", color=theme.grid)
    if any(bar.low < 0.0 for bar in bars) and any(bar.high > 0.0 for bar in bars):
        axes.axvline(0.0, color=theme.quiet, linewidth=1)
    return png(figure)


def _label(bar: Bar) -> str:
    """A label for a chart: `$` would start a formula in matplotlib, and long copy is broken over two lines."""
    text = textwrap.shorten(" ".join(bar.label.split()), 88, placeholder="…")
    lines = textwrap.wrap(text, 46) or [""]
    return "\n".join([*lines, *([bar.note] if bar.note else [])]).replace("$", r"\$")


def canvas(width: float, height: float, theme: Theme = LIGHT) -> tuple[Figure, Axes]:
    """An empty picture of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=theme.paper)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=theme.paper)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(theme.quiet)
    axes.tick_params(colors=theme.ink)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(theme.ink)
    return figure, axes


def png(figure: Figure) -> bytes:
    """The picture's bytes; the same picture gives the same."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box; the description has the copy in full
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()
