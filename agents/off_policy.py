"""The common part of agents with a replay buffer. They train after each batch of episodes, from whole returns."""

from dataclasses import dataclass
from typing import Any

from pydantic import NonNegativeFloat, PositiveInt

from autoprune.agents.replay import DecayingNoise, ReturnBuffer
from autoprune.agents.sb3 import Sb3Agent
from autoprune.envs.vectorized import PruningVecEnv


@dataclass
class OffPolicyAgent(Sb3Agent):
    """Args:
    gradient_steps: number of gradient steps after each batch of episodes.
    batch_size: number of transitions in a gradient step.
    returns: whether critics learn from whole returns. Otherwise they bootstrap from the next value, as in the papers.
    """

    gradient_steps: PositiveInt = 50
    batch_size: PositiveInt = 256
    returns: bool = True

    def replaying(self, env: PruningVecEnv) -> dict[str, Any]:
        """Arguments that all of these algorithms take."""
        steps = env.episodes.walk.n_units
        return {
            "train_freq": (steps, "step"),
            "gradient_steps": self.gradient_steps,
            "batch_size": self.batch_size,
            "learning_starts": steps * env.num_envs,
            "buffer_size": 100_000,
            "replay_buffer_class": ReturnBuffer if self.returns else None,
        }


@dataclass
class DeterministicActorAgent(OffPolicyAgent):
    """Args:
    noise: standard deviation of what is added to actions at the start; falls linearly to 0.
    tau: how far the target networks follow in one gradient step.
    """

    noise: NonNegativeFloat = 0.3
    tau: NonNegativeFloat = 0.01

    def acting(self) -> dict[str, Any]:
        """Arguments of DDPG and TD3."""
        return {"action_noise": DecayingNoise(self.decaying(self.noise)), "tau": self.tau}
