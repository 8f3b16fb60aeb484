"""Accuracy and efficiency with a coefficient each, at the end (after Shibu et al. 2023, "Rewarded meta-pruning").

The paper balances the two by coefficients in its reward. Here accuracy is `record.quality`, and efficiency is the
removed share of the budgeted cost, averaged over budgets. Efficiency hardly varies within one tight budget, so the
coefficients matter for loose or several budgets.
"""

from pydantic import NonNegativeFloat

from autoprune.envs.rewards.record import RewardRecord


def rewarded_meta(
    record: RewardRecord, *, accuracy: NonNegativeFloat = 1.0, efficiency: NonNegativeFloat = 0.1
) -> float:
    """The coefficients times quality and removed share of the cost: between 0 and 1.1 by default.

    Args:
        record: the last step.
        accuracy: coefficient of the quality.
        efficiency: coefficient of the removed share of the cost.
    """
    removed = sum(1 - cost for cost in record.costs.values()) / len(record.costs)
    return accuracy * record.quality + efficiency * removed
