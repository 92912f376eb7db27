"""The reward model as the metric of prompt optimisers: what a prompt is worth is what the copy it leads to will earn.

    score = CopyMetric(model)
    score("Ready for winter?")              in [0, 1]: ½ earns as much as the loop does in the mean, ⅔ twice as much
    score.of_field("subject")               for DSPy: (example, prediction, trace) -> float, reads ``prediction.subject``

    score = reward / (reward + level)       0 where the reward is expected to be negative

The metric of MLflow is made of it by ``mlflow.genai.scorers.scorer``. Optimisers search for what a metric likes, its mistakes included, so what
they find is copy to be tried, not proof: new copy still passes guardrails and approval, and earns its shares.
"""

from collections.abc import Callable
from typing import Any

from infra.errors import BadInput
from reward_models.boosted import RewardModel
from reward_models.scoring import slot_for, text_contents

TEXT_LIMIT_BYTES = 100_000


class CopyMetric:
    """Scores of single texts. Raises :class:`BadInput` for a slot that the model does not know."""

    def __init__(self, model: RewardModel, slot: str | None = None) -> None:
        if model.levels.base <= 0:
            raise BadInput("The loop has earned nothing yet: there is nothing that a prompt could be judged by")
        self._model = model
        self._slot = slot_for(model, slot)

    def __call__(self, text: str) -> float:
        """0 for a text that is empty or too long: an optimiser goes on, and away from it."""
        try:
            contents = text_contents([text], self._slot, TEXT_LIMIT_BYTES)
        except BadInput:
            return 0.0
        reward = max(0.0, float(self._model.rows([{}], contents)[0]))
        return reward / (reward + self._model.levels.base)

    def of_field(self, name: str) -> Callable[..., float]:
        """A metric of DSPy, which reads the text from this field of the prediction."""

        def metric(example: Any, prediction: Any, trace: Any = None, *_: Any, **__: Any) -> float:  # noqa: ARG001 (their signature)
            return self(str(getattr(prediction, name, "") or ""))

        return metric
