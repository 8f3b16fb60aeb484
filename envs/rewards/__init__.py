"""Rewards. Each file has one function of a `RewardRecord` (record.py)."""

from autoprune.envs.rewards.record import RewardRecord, every_step

__all__ = ["RewardRecord", "every_step"]
