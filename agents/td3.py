"""TD3 on continuous ratios: DDPG with two critics and a delayed actor (Fujimoto et al. 2018)."""

from dataclasses import dataclass
from typing import Any

import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents.off_policy import DeterministicActorAgent
from autoprune.envs.vectorized import PruningVecEnv


@dataclass
class TD3(DeterministicActorAgent):
    """As `ddpg`, with the remedies against critics that are too hopeful."""

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """TD3 of stable-baselines3."""
        arguments = common | self.replaying(env) | self.acting() | self.options
        return stable_baselines3.TD3("MlpPolicy", env, seed=seed, **arguments)
