"""PPO on continuous ratios (Schulman et al. 2017)."""

from dataclasses import dataclass
from typing import Any

import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents.sb3 import Sb3Agent
from autoprune.envs.vectorized import PruningVecEnv


@dataclass
class PPO(Sb3Agent):
    """A rollout is one batch of episodes; advantages are their returns, so `gae_lambda` is 1.

    Args:
        epochs: passes over a rollout.
        log_std: logarithm of the actions' standard deviation at the start.
        clip: clipping range of the probability ratio.
    """

    learning_rate: float = 3e-3
    epochs: int = 20
    log_std: float = -2.0
    clip: float = 0.2

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """PPO of stable-baselines3."""
        steps = env.episodes.walk.n_units
        common["policy_kwargs"]["log_std_init"] = self.log_std
        defaults = {
            "n_steps": steps, "batch_size": steps * env.num_envs, "n_epochs": self.epochs, "gae_lambda": 1.0,
            "clip_range": self.clip, "ent_coef": 0.0,
        }  # fmt: skip
        return stable_baselines3.PPO("MlpPolicy", env, seed=seed, **common | defaults | self.options)
