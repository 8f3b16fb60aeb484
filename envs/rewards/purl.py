"""PuRL's dense reward: accuracy and sparsity relative to targets, at every step (Gupta et al. 2020, sec. 3.2).

The reward is -beta (max(1 - A / T_A, 0) + max(1 - S / T_S, 0)). A is the accuracy of the network pruned so far; for
language models it is `record.quality`. Its target T_A is by default at least what the uniform policy reaches. S is the
removed share of the budgeted cost. Its target T_S is by default the share that the budget requires. With several
budgets, the smallest S / T_S counts.
"""

import math
from typing import Annotated

from pydantic import Field, NonNegativeFloat

from autoprune.envs.rewards.record import RewardRecord, every_step

TARGET = 1.1  # of the uniform policy's quality: a target that nothing exceeds would pay everything alike

Share = Annotated[float, Field(gt=0, le=1)]


@every_step
def purl(
    record: RewardRecord,
    *,
    beta: NonNegativeFloat = 5.0,
    accuracy_target: Share | None = None,
    sparsity_target: Share | None = None,
) -> float:
    """PuRL's reward: minus the shortfalls of accuracy and sparsity, at every step (Gupta et al. 2020, sec. 3.2).

    Args:
        record: one step.
        beta: size of the penalty.
        accuracy_target: T_A, relative to the dense network; the default is 1.1 times what the uniform policy reaches.
        sparsity_target: T_S, as a share of the dense cost that is removed; the default is what the budget requires.
    """
    uniform = math.exp(-max(0.0, record.uniform_loss - record.dense_loss))
    wanted = min(1.0, TARGET * uniform) if accuracy_target is None else accuracy_target
    reached = [_reached(record.costs[metric], bound, sparsity_target) for metric, bound in record.budgets.items()]
    return -beta * (max(1 - record.quality / wanted, 0.0) + max(1 - min(reached), 0.0))


def purl_at_end(
    record: RewardRecord,
    *,
    beta: NonNegativeFloat = 5.0,
    accuracy_target: Share | None = None,
    sparsity_target: Share | None = None,
) -> float:
    """The reward `purl`, paid at the end alone: an episode costs one score.

    Args:
        record: the last step.
        beta: size of the penalty.
        accuracy_target: T_A, as of `purl`.
        sparsity_target: T_S, as of `purl`.
    """
    return purl(record, beta=beta, accuracy_target=accuracy_target, sparsity_target=sparsity_target)


def _reached(cost: float, bound: float, target: float | None) -> float:
    """Share of the sparsity that is asked for; 1 where none is."""
    asked = 1 - bound if target is None else target
    return (1 - cost) / asked if asked > 0 else 1.0
