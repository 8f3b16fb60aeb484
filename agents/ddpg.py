"""DDPG on continuous ratios, the algorithm of AMC (Lillicrap et al. 2016; He et al. 2018)."""

from dataclasses import dataclass
from typing import Any

import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents.off_policy import DeterministicActorAgent
from autoprune.envs.vectorized import PruningVecEnv


@dataclass
class DDPG(DeterministicActorAgent):
    """AMC's: the reward of an episode copied to each of its steps, noise that shrinks, no discount."""

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """DDPG of stable-baselines3."""
        arguments = common | self.replaying(env) | self.acting() | self.options
        return stable_baselines3.DDPG("MlpPolicy", env, seed=seed, **arguments)
