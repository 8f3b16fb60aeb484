"""DQN on levels, the algorithm of PuRL (Mnih et al. 2015; Gupta et al. 2020)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import stable_baselines3
from pydantic import NonNegativeFloat
from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents.off_policy import OffPolicyAgent
from autoprune.agents.sb3 import prefer_pace
from autoprune.envs.episodes import Actions
from autoprune.envs.vectorized import PruningVecEnv


@dataclass
class DQN(OffPolicyAgent):
    """Args:
    exploration: probability of a random level at the start. It falls linearly to 0 as the limits are spent.
    preference: how much the initial values fall with each squared level away from the reference's pace.
    """

    actions: ClassVar[Actions] = "discrete"

    exploration: NonNegativeFloat = 0.15
    preference: NonNegativeFloat = 0.05

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """DQN of stable-baselines3."""
        target = {"target_update_interval": max(env.episodes.walk.n_units, env.num_envs)}
        arguments = common | self.replaying(env) | target | self.options
        model = stable_baselines3.DQN("MlpPolicy", env, seed=seed, **arguments)
        model.exploration_schedule = self.decaying(self.exploration)
        for network in (model.q_net, model.q_net_target):
            prefer_pace(network.q_net[-1], self.preference)
        return model
