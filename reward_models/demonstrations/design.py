"""A choice as columns: what is known of each candidate, and the same times what is known of the customer.

    φ(x, c) = [f(c), f(c) ⊗ g(x)]

f: features and copy factors of the content, g: the context, both scaled to mean 0 and variance 1. The context alone is no
column: it is the same for all candidates, so no choice tells anything of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingestion.events import Content
from reward_models.contextual import Encoder, fit_encoder
from reward_models.demonstrations.choices import Demonstration
from reward_models.factors import FACTORS
from reward_models.features import SLOTS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COPY, CUSTOMER = 40, 16
"""Most columns of copy and of customer."""


@dataclass(frozen=True)
class Design:
    """The columns of a set of choices: d_f of copy, then d_f · d_g of copy times customer."""

    copy: Encoder
    customer: Encoder

    @property
    def names(self) -> list[str]:
        """One per column; ``a × b`` for copy times customer."""
        copy, customer = ([_name(*column) for column in one.columns] for one in (self.copy, self.customer))
        return [*copy, *(f"{left} × {right}" for left in copy for right in customer)]

    def rows(self, contexts: Sequence[Mapping[str, Any]], contents: Sequence[Content]) -> Floats:
        """φ of pairs, shape (n, d)."""
        return self.joined(self.copy.rows([described(content) for content in contents]), self.customer.rows(contexts))

    def joined(self, f: Floats, g: Floats) -> Floats:
        """φ from its parts, shapes (…, d_f) and (…, d_g)."""
        both = f[..., :, None] * g[..., None, :]
        return np.concatenate([f, both.reshape(*both.shape[:-2], -1)], axis=-1)

    def per_unit(self, context: Mapping[str, Any]) -> Floats:
        """What turns weights into utility per unit of each copy column for such customers, shape (d_f, d)."""
        g = self.customer.rows([context])[0]
        eye = np.eye(len(self.copy.columns))
        return np.asarray(self.joined(eye, np.broadcast_to(g, (len(eye), len(g)))) / self.copy.scale[:, None])


@dataclass(frozen=True)
class Situations:
    """m choices among candidates, as rows: ``begin`` of each choice's rows, and the row that was chosen."""

    phi: Floats
    """Shape (r, d)."""
    begin: Ints
    """Shape (m,), rising; the first is 0."""
    chosen: Ints
    """Row of each choice, shape (m,)."""
    by: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def of_row(self) -> Ints:
        """The choice of each row, shape (r,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.begin, append=len(self.phi)))

    def subset(self, kept: npt.NDArray[np.bool_]) -> "Situations":
        """Some of the choices, by a mask of shape (m,)."""
        rows = np.flatnonzero(kept[self.of_row])
        sizes = np.diff(self.begin, append=len(self.phi))[kept]
        begin = np.cumsum(sizes) - sizes
        return Situations(
            self.phi[rows],
            begin,
            begin + (self.chosen - self.begin)[kept],
            tuple(name for name, stays in zip(self.by, kept.tolist(), strict=True) if stays),
        )


def described(content: Content) -> dict[str, Any]:
    """Features of a content and the copy factors of its slots, by name."""
    found: dict[str, Any] = dict(content.features)
    for slot in sorted(content.slots)[:SLOTS]:
        found |= {f"{slot}.{name}": factor(content.slots[slot]) for name, factor in FACTORS.items()}
    return found


def design_of(shown: Sequence[Demonstration]) -> Design:
    """The columns that vary in these choices."""
    distinct = {content.content_id: content for one in shown for content in one.candidates}
    return Design(
        fit_encoder([described(content) for content in distinct.values()], COPY),
        fit_encoder([one.context for one in shown], CUSTOMER),
    )


def situations_of(design: Design, shown: Sequence[Demonstration]) -> Situations:
    """The choices as rows of these columns."""
    distinct = {content.content_id: content for one in shown for content in one.candidates}
    place = {name: index for index, name in enumerate(distinct)}
    f = design.copy.rows([described(content) for content in distinct.values()])
    g = design.customer.rows([one.context for one in shown])
    sizes = np.array([len(one.candidates) for one in shown], dtype=np.int64)
    begin = np.cumsum(sizes) - sizes
    of_content = np.array([place[content.content_id] for one in shown for content in one.candidates], dtype=np.int64)
    return Situations(
        design.joined(f[of_content], g[np.repeat(np.arange(len(shown)), sizes)]),
        begin,
        begin + np.array([one.chosen for one in shown], dtype=np.int64),
        tuple(one.by for one in shown),
    )


def _name(name: str, word: str | None) -> str:
    return name if word is None else f"{name}={word}"
