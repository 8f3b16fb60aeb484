"""The common part of agents on stable-baselines3: their settings and a search by training (training.py)."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from stable_baselines3.common.base_class import BaseAlgorithm

from autoprune.agents import weights
from autoprune.agents.decay import Decay
from autoprune.agents.training import Settled, Training
from autoprune.envs.episodes import Actions, EpisodeRules
from autoprune.envs.rewards.options import load_reward
from autoprune.envs.vectorized import PruningVecEnv
from autoprune.errors import UserError
from autoprune.objective import Objective
from autoprune.ports.agent import Agent


@dataclass
class Sb3Agent(Agent):
    """Args:
    reward: a name, `package.module:function` or `file.py:function`.
    reward_options: options of the reward, by name, as `autoprune list rewards` shows them.
    episodes: number of episodes that run side by side and are scored as one batch.
    tokens: size of the sample for the first batches, in tokens.
    race_tokens: size of the sample for races at the start, in tokens.
    widening: how far both samples grow by the end: 0 is not at all, 1 is the whole split, geometric in between.
    finalists: number of episodes of each batch that race the incumbent, besides the agent's choice without noise.
    sensitivity_tokens: tokens for each sensitivity. With 0 none is measured, and the start is the uniform policy.
    shaping: weight of the potential-based shaping.
    learning_rate: learning rate at the start. It falls linearly to 0 as the limits are spent.
    net_arch: sizes of the hidden layers of actor and critic.
    options: further arguments of the algorithm's class in stable-baselines3.
    pretrained: a run, or a directory with `agent.safetensors`. Training starts from its weights.
    callback: a BaseCallback of stable-baselines3, as `package.module:Object` or `file.py:Object`.
    tensorboard: a directory for TensorBoard's logs.
    """

    actions: ClassVar[Actions] = "continuous"
    alone: ClassVar[bool] = True  # stable-baselines3 seeds the generators of the whole process

    reward: str = "amc"
    reward_options: dict[str, Any] = field(default_factory=dict)
    episodes: PositiveInt = 8
    tokens: PositiveInt = 512
    race_tokens: PositiveInt = 4096
    widening: NonNegativeFloat = 0.5
    finalists: NonNegativeInt = 3
    sensitivity_tokens: NonNegativeInt = 512
    shaping: NonNegativeFloat = 0.0
    learning_rate: NonNegativeFloat = 1e-3
    net_arch: tuple[PositiveInt, ...] = (64, 64)
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    callback: str | None = None
    tensorboard: str | None = None

    def __post_init__(self) -> None:
        """Find mistakes before anything is computed."""
        self.options = copy.deepcopy(self.options)  # stable-baselines3 changes what is in it
        load_reward(self.reward, self.reward_options)
        if self.pretrained is not None:
            weights.find(Path(self.pretrained))
        if self.tensorboard is not None and find_spec("tensorboard") is None:
            raise UserError("the setting 'tensorboard' needs the package: pip install 'autoprune[rl]'.")

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """The algorithm of stable-baselines3 on an environment; `common` are arguments that all of them take."""
        raise NotImplementedError

    def rules(self, rules: EpisodeRules) -> EpisodeRules:
        """The rules of the episodes, from those that all of these agents have."""
        return rules

    def progress(self, objective: Objective, ended: int) -> float:
        """How far the search is, in [0, 1], for what falls with it; `ended` is the number of episodes so far."""
        return objective.progress

    def is_over(self, ended: int) -> bool:
        """Whether the search ends after so many episodes. By default the limits and `Patience` end it."""
        return False

    def decaying(self, start: float) -> Decay:
        """A number that falls from `start` to 0 as the limits are spent."""
        self.decays.append(Decay(start))
        return self.decays[-1]

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Train until the limits are spent or the policy has settled."""
        self._trained: BaseAlgorithm | None = None
        self.decays: list[Decay] = []
        with _own_randomness():
            training = Training(self, objective, rng)
            self._trained = training.model
            with suppress(Settled):
                training.run()

    def save(self, directory: Path) -> None:
        """Write `model.zip`, for stable-baselines3's own users, and `agent.safetensors`, which is what we read back.

        Raises:
            UserError: the disk is full or not writable.
        """
        if self._trained is not None:
            weights.save(self._trained, directory, type(self).__name__)


def prefer_pace(layer: Any, strength: float) -> None:
    """Set the biases of a layer with one output for each discrete action so that it prefers the middle one.

    Args:
        layer: a Linear layer, of logits or values.
        strength: what an action loses for each squared level away from the reference's pace.
    """
    actions = torch.arange(layer.out_features, dtype=torch.float32)
    layer.bias.data = -strength * (actions - layer.out_features // 2).square()


@contextmanager
def _own_randomness() -> Iterator[None]:
    """SB3 seeds the generators of the whole process: give them back as they were."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
