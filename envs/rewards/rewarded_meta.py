"""Accuracy and efficiency with a coefficient each, at the end (after Shibu et al. 2023, "Rewarded meta-pruning").

The paper balances the two by coefficients in its reward. Here accuracy is `record.quality`, and efficiency is the
removed share of the budgeted cost, averaged over budgets. Efficiency hardly varies within one tight budget, so the
coefficients matter for loose or several budgets.
"""

from autoprune.envs.rewards.record import RewardRecord

ACCURACY, EFFICIENCY = 1.0, 0.1


def rewarded_meta(record: RewardRecord) -> float:
    """1.0 x quality + 0.1 x removed share of the cost: between 0 and 1.1."""
    efficiency = sum(1 - cost for cost in record.costs.values()) / len(record.costs)
    return ACCURACY * record.quality + EFFICIENCY * efficiency
