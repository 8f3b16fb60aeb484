"""AMC's reward: the error of the finished policy, paid at the end (He et al. 2018, sec. 3.3, R_err).

AMC pays minus the error of the pruned network and copies it to every step of the episode. Here the error is the loss
above dense divided by that of the uniform policy on the same sample. So a text that is hard for every policy does not
count against one of them. With undiscounted returns, a terminal reward already counts at every step. The agent `ddpg`
learns step by step and copies it into its replay buffer, as AMC does.
"""

from pydantic import PositiveFloat

from autoprune.envs.rewards.record import RewardRecord


def amc(record: RewardRecord, *, scale: PositiveFloat = 1.0) -> float:
    """Minus the loss above dense, divided by the uniform policy's: -1 is as bad as uniform, 0 is as good as dense.

    Args:
        record: the last step.
        scale: number that the reward is multiplied by.
    """
    uniform = record.uniform_loss - record.dense_loss
    return scale * (-(record.loss - record.dense_loss) / max(uniform, 1e-6))
