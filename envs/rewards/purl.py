"""PuRL's dense reward: accuracy and sparsity relative to targets, at every step (Gupta et al. 2020, sec. 3.2).

The reward is -beta (max(1 - A / T_A, 0) + max(1 - S / T_S, 0)). A is the accuracy of the network pruned so far; for
language models it is `record.quality`. Its target T_A is at least what the uniform policy reaches. S is the removed
share of the budgeted cost, and its target T_S is the share that the budget requires. With several budgets, the smallest
S / T_S counts.
"""

import math

from autoprune.envs.rewards.record import RewardRecord, every_step

BETA = 5.0
TARGET = 1.1  # of the uniform policy's quality: a target that nothing exceeds would pay everything alike


@every_step
def purl(record: RewardRecord) -> float:
    """Minus 5 times the shortfalls from both targets; at most 0."""
    uniform = math.exp(-max(0.0, record.uniform_loss - record.dense_loss))
    accuracy = record.quality / min(1.0, TARGET * uniform)
    sparsity = min(_reached(record.costs[metric], bound) for metric, bound in record.budgets.items())
    return -BETA * (max(1 - accuracy, 0.0) + max(1 - sparsity, 0.0))


def _reached(cost: float, bound: float) -> float:
    """Share of the sparsity that a budget asks for; 1 where it asks for none."""
    return (1 - cost) / (1 - bound) if bound < 1 else 1.0
