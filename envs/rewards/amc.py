"""AMC's reward: the quality of the finished policy, nothing before (He et al. 2018, sec. 3.3, R_err).

AMC pays minus the error of the pruned network, and copies it to every step of the episode. Here the error is the loss
over dense as a share of the uniform policy's, on the same sample, so that a text that is hard for every policy does
not count against one of them. Undiscounted returns are the terminal reward at every step already; the agent `ddpg`,
whose critic is taught step by step, copies it into its replay buffer as AMC does.
"""

from autoprune.envs.rewards.record import RewardRecord


def amc(record: RewardRecord) -> float:
    """Minus the loss over dense in units of the uniform policy's: -1 is as bad as uniform, 0 is dense."""
    uniform = record.uniform_loss - record.dense_loss
    return -(record.loss - record.dense_loss) / max(uniform, 1e-6)
