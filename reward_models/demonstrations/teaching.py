"""From choices to a training set that has learned them: what `demonstrations fit` and every retrain do.

taught(training, shown, contents, usual) -> Taught        ``training`` is what outcomes alone teach
"""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.errors import BadInput
from infra.logs import log
from ingestion.events import Content
from reward_models.dataset import TrainingSet
from reward_models.demonstrations.choices import Demonstration
from reward_models.demonstrations.implied import LEAST, Implied, implied_by
from reward_models.demonstrations.prior import Believed, Trusted, believe, judged

_CONTEXTS = 500
"""Contexts of decisions that belief is spread over, beside those of the choices."""

USUAL = 0.02
"""Reward of a decision where nobody says and no outcome tells: one response in fifty."""


@dataclass(frozen=True)
class Taught:
    """What was learned of choices, and how outcomes see it."""

    implied: Implied
    trusted: Trusted
    believed: Believed


def taught(
    training: TrainingSet, shown: Sequence[Demonstration], contents: Sequence[Content], usual: float = USUAL
) -> Taught:
    """Choices beside the outcomes of ``training``, as decisions that are believed about ``contents``.

    Raises :class:`BadInput` for too few choices, or candidates that differ in nothing that is known.
    """
    implied = implied_by(shown)
    trusted = judged(training, implied)
    contexts = [*training.contexts[:_CONTEXTS], *(one.context for one in shown)]
    return Taught(implied, trusted, believe(training, implied, contents, contexts, trusted=trusted, usual=usual))


def learned_too(training: TrainingSet, shown: Sequence[Demonstration], contents: Sequence[Content]) -> Believed:
    """The same for a retrain, which goes on without choices that nothing can be learned from."""
    if not contents or len(shown) < LEAST:
        return Believed(training, 0.0)
    try:
        return taught(training, shown, contents).believed
    except BadInput as error:
        log.info("choices_not_learned", loop=training.loop_id, reason=str(error))
        return Believed(training, 0.0)
