"""The rows that are fitted, put together only when and as far as they are needed: a matrix is the largest thing there is.

    Table.of(schema, training, content, position)    decisions, then past results, which have no context
    table.rows(index, text_scores) -> (k, columns)   some rows, with the text score of each content last

Until then a row is a place among the contexts and one among the contents, whose columns are there once per content.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reward_models.contexts import Contexts
from reward_models.dataset import TrainingSet
from reward_models.features import FeatureSchema, content_rows, fill_context

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BLOCK = 16_384
"""Rows that are written together, so that they stay in the processor's cache from the first column to the last."""


@dataclass(frozen=True)
class Table:
    """All columns of n decisions and m past results, in parts: those of contexts, and those of the k contents."""

    schema: FeatureSchema
    contexts: Contexts
    position: Ints
    """Shape (n + m,)."""
    content: Ints
    """Row of ``of_contents``, shape (n + m,)."""
    of_contents: Floats
    """Shape (k, content columns); the text score is not there yet."""

    @staticmethod
    def of(schema: FeatureSchema, training: TrainingSet, content: Ints, position: Ints) -> "Table":
        """From a training set, and the content and the position of each row."""
        unknown = np.full(len(training.contents), np.nan)
        of_contents = content_rows(schema, training.contents, unknown)
        return Table(schema, Contexts.of(training.contexts), position, content, of_contents)

    def rows(self, index: Ints, text_scores: Floats) -> Floats:
        """The rows of an ascending index, shape (k, columns). ``text_scores``: of each content."""
        matrix = np.empty((len(index), len(self.schema.columns)))
        for begin in range(0, len(index), _BLOCK):
            part = slice(begin, begin + _BLOCK)
            self._fill(matrix[part], index[part], text_scores)
        return matrix

    def _fill(self, matrix: Floats, index: Ints, text_scores: Floats) -> None:
        width, decided = len(self.schema.context), int(np.searchsorted(index, len(self.contexts)))
        content, position = self.content[index], self.position[index]
        known = self.contexts.take(index[:decided])
        fill_context(self.schema, known, position[:decided], matrix[:decided, :width])
        matrix[decided:, : width - 1] = np.nan
        matrix[decided:, width - 1] = position[decided:]
        matrix[:, width:] = self.of_contents[content]
        matrix[:, -1] = text_scores[content]
