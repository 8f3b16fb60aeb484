"""The loss itself: minus the log-ratio of the dense network's probabilities to the pruned one's, at the end."""

from pydantic import PositiveFloat

from autoprune.envs.rewards.record import RewardRecord


def loss(record: RewardRecord, *, scale: PositiveFloat = 1.0) -> float:
    """Minus (loss - dense loss), nats per token: the mean log p_pruned / p_dense of the text's or dense tokens.

    Args:
        record: the last step.
        scale: number that the reward is multiplied by.
    """
    return scale * (record.dense_loss - record.loss)
