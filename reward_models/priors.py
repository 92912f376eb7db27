"""What a model says of a campaign before its counts: where its posterior starts.

prior_of(model, campaign_id) -> Prior        a new campaign starts from the loop, a known one from its own level
"""

import numpy as np

from reward_models.boosted import FEW, RewardModel
from reward_models.calibration import LEAST_SPREAD
from reward_models.levels import LEAST_SHARE
from reward_models.posterior import SPREAD, Prior

_FEW_CAMPAIGNS = 5
"""Fewer campaigns than this do not tell how far a new one may be from the loop's level."""


def prior_of(model: RewardModel, campaign_id: str) -> Prior:
    """The model's prior: a known campaign starts from its own level, a new one from the loop's and from how far the
    loop's campaigns lie apart. With few campaigns the model was held out by customers, not by contents: then its own
    spread says nothing about a content it has not seen, and is only believed where it is the wider one."""
    levels = model.levels
    mean, scale = (float(values[0]) for values in levels.of([campaign_id]))
    apart = float(np.std(list(levels.campaigns.values()))) if len(levels.campaigns) >= _FEW_CAMPAIGNS else 0.0
    learned = model.calibration.spread * scale / abs(mean) if mean else SPREAD
    few = model.report.get("components", 0.0) < FEW
    return Prior(
        level=abs(mean),
        level_sd=max(apart, LEAST_SHARE * levels.base) if campaign_id not in levels.campaigns and apart else None,
        spread=max(learned, SPREAD if few else LEAST_SPREAD),
        proportional=mean > LEAST_SHARE * levels.base,
    )
