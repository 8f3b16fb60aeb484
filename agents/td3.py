"""TD3 on continuous ratios: DDPG with two critics and a delayed actor (Fujimoto et al. 2018)."""

from dataclasses import dataclass
from typing import Any

import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents.replay import DecayingNoise, ReturnBuffer
from autoprune.agents.sb3 import Sb3Agent
from autoprune.envs.vectorized import PruningVecEnv


@dataclass
class TD3(Sb3Agent):
    """Args:
    gradient_steps: after each batch of episodes.
    batch_size: transitions of one gradient step.
    noise: standard deviation of what is added to actions at the start; falls linearly to 0.
    tau: how far the target networks follow in one gradient step.
    returns: learn from whole returns; off bootstraps from the next step's value.
    """

    gradient_steps: int = 50
    batch_size: int = 256
    noise: float = 0.3
    tau: float = 0.01
    returns: bool = True

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """TD3 of stable-baselines3."""
        steps = env.episodes.walk.n_units
        defaults = {
            "train_freq": (steps, "step"), "gradient_steps": self.gradient_steps, "batch_size": self.batch_size,
            "learning_starts": steps * env.num_envs, "buffer_size": 100_000, "tau": self.tau,
            "action_noise": DecayingNoise(self.decaying(self.noise)),
            "replay_buffer_class": ReturnBuffer if self.returns else None,
        }  # fmt: skip
        return stable_baselines3.TD3("MlpPolicy", env, seed=seed, **common | defaults | self.options)
