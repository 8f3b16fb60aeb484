"""Accuracy and efficiency with a coefficient each, at the end (after Shibu et al. 2023, "Rewarded meta-pruning").

The paper controls the trade between the two by coefficients in its reward. Here accuracy is `record.quality` and
efficiency the share of the budgeted cost that is gone, averaged over budgets. Within a budget that is always used up
efficiency hardly varies, so the coefficients matter where there is room: loose budgets, or several.
"""

from autoprune.envs.rewards.record import RewardRecord

ACCURACY, EFFICIENCY = 1.0, 0.1


def rewarded_meta(record: RewardRecord) -> float:
    """1.0 x quality + 0.1 x share of the cost that is gone: between 0 and 1.1."""
    efficiency = sum(1 - cost for cost in record.costs.values()) / len(record.costs)
    return ACCURACY * record.quality + EFFICIENCY * efficiency
