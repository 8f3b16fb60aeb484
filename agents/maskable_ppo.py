"""PPO on levels that never draws a level outside the budgets (Huang & Ontanon 2022; needs sb3-contrib)."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, cast

from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents.sb3 import Sb3Agent, prefer_pace
from autoprune.envs.episodes import Actions
from autoprune.envs.vectorized import PruningVecEnv
from autoprune.errors import UserError


@dataclass
class MaskablePPO(Sb3Agent):
    """A rollout is one batch of episodes; advantages are their returns, so `gae_lambda` is 1.

    Args:
        epochs: passes over a rollout.
        clip: clipping range of the probability ratio.
        spread: standard deviation, in levels, of the first policy around the reference's pace.
    """

    actions: ClassVar[Actions] = "discrete"

    learning_rate: float = 3e-3
    epochs: int = 10
    clip: float = 0.2
    spread: float = 0.6

    def __post_init__(self) -> None:
        """Find mistakes before anything is computed."""
        super().__post_init__()
        if find_spec("sb3_contrib") is None:
            raise UserError("the agent 'maskable-ppo' needs sb3-contrib: pip install 'autoprune[rl]'.")

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """MaskablePPO of sb3-contrib."""
        import sb3_contrib

        steps = env.episodes.walk.n_units
        defaults = {
            "n_steps": steps, "batch_size": steps * env.num_envs, "n_epochs": self.epochs, "gae_lambda": 1.0,
            "clip_range": self.clip, "ent_coef": 0.0,
        }  # fmt: skip
        model: Any = sb3_contrib.MaskablePPO("MlpPolicy", env, seed=seed, **common | defaults | self.options)
        prefer_pace(model.policy.action_net, 1 / (2 * self.spread**2))
        return cast(BaseAlgorithm, model)
