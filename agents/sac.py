"""SAC on continuous ratios: a stochastic actor with a target entropy (Haarnoja et al. 2018)."""

from dataclasses import dataclass
from typing import Any

import stable_baselines3
from pydantic import NonNegativeFloat
from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents.off_policy import OffPolicyAgent
from autoprune.envs.vectorized import PruningVecEnv


@dataclass
class SAC(OffPolicyAgent):
    """Args:
    log_std: logarithm of the actor's standard deviation at the start.
    target_entropy: target entropy of the actor, nats for each action. The entropy's weight is adjusted towards it.
    tau: how far the target networks follow in one gradient step.
    """

    log_std: float = -1.5
    target_entropy: float = -1.0
    tau: NonNegativeFloat = 0.01

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """SAC of stable-baselines3, which draws from its actor from the first episode on."""
        entropy = {"ent_coef": "auto_0.01", "target_entropy": self.target_entropy, "tau": self.tau}
        arguments = common | self.replaying(env) | entropy | {"learning_starts": 0} | self.options
        model = stable_baselines3.SAC("MlpPolicy", env, seed=seed, **arguments)
        layer: Any = model.actor.log_std
        layer.bias.data.fill_(self.log_std)
        return model
