"""SAC on continuous ratios: a stochastic actor kept at a set entropy (Haarnoja et al. 2018)."""

from dataclasses import dataclass
from typing import Any

import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents.replay import ReturnBuffer
from autoprune.agents.sb3 import Sb3Agent
from autoprune.envs.vectorized import PruningVecEnv


@dataclass
class SAC(Sb3Agent):
    """Args:
    gradient_steps: after each batch of episodes.
    batch_size: transitions of one gradient step.
    log_std: logarithm of the actor's standard deviation at the start.
    target_entropy: of the actor, nats an action; the entropy's weight is tuned towards it.
    tau: how far the target networks follow in one gradient step.
    returns: learn from whole returns; off bootstraps from the next step's value.
    """

    gradient_steps: int = 50
    batch_size: int = 256
    log_std: float = -1.5
    target_entropy: float = -1.0
    tau: float = 0.01
    returns: bool = True

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """SAC of stable-baselines3."""
        steps = env.episodes.walk.n_units
        defaults = {
            "train_freq": (steps, "step"), "gradient_steps": self.gradient_steps, "batch_size": self.batch_size,
            "learning_starts": 0, "buffer_size": 100_000, "tau": self.tau,
            "ent_coef": "auto_0.01", "target_entropy": self.target_entropy,
            "replay_buffer_class": ReturnBuffer if self.returns else None,
        }  # fmt: skip
        model = stable_baselines3.SAC("MlpPolicy", env, seed=seed, **common | defaults | self.options)
        layer: Any = model.actor.log_std
        layer.bias.data.fill_(self.log_std)
        return model
