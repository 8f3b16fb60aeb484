"""The loss itself: minus the log-ratio of the dense network's probabilities to the pruned one's, at the end."""

from autoprune.envs.rewards.record import RewardRecord


def loss(record: RewardRecord) -> float:
    """Minus (loss - dense loss), nats per token: the mean log p_pruned / p_dense of the text's or dense tokens."""
    return record.dense_loss - record.loss
