"""DQN on levels, the algorithm of PuRL (Mnih et al. 2015; Gupta et al. 2020)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents.replay import ReturnBuffer
from autoprune.agents.sb3 import Sb3Agent, prefer_pace
from autoprune.envs.episodes import Actions
from autoprune.envs.vectorized import PruningVecEnv


@dataclass
class DQN(Sb3Agent):
    """Args:
    gradient_steps: after each batch of episodes.
    batch_size: transitions of one gradient step.
    exploration: chance of a random level at the start; falls linearly to 0 as the limits are spent.
    returns: learn from whole returns; off bootstraps from the next step's value, as PuRL.
    preference: what the first values take off for each squared level away from the reference's pace.
    """

    actions: ClassVar[Actions] = "discrete"

    gradient_steps: int = 50
    batch_size: int = 256
    exploration: float = 0.15
    returns: bool = True
    preference: float = 0.05

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """DQN of stable-baselines3."""
        steps = env.episodes.walk.n_units
        defaults = {
            "train_freq": (steps, "step"), "gradient_steps": self.gradient_steps, "batch_size": self.batch_size,
            "learning_starts": steps * env.num_envs, "buffer_size": 100_000, "target_update_interval": steps,
            "replay_buffer_class": ReturnBuffer if self.returns else None,
        }  # fmt: skip
        model = stable_baselines3.DQN("MlpPolicy", env, seed=seed, **common | defaults | self.options)
        model.exploration_schedule = self.decaying(self.exploration)
        for network in (model.q_net, model.q_net_target):
            prefer_pace(network.q_net[-1], self.preference)
        return model
