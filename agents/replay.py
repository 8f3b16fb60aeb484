"""Additions to stable-baselines3 for off-policy agents: a replay buffer of whole returns, and noise that shrinks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise

from autoprune.agents.decay import Decay


class ReturnBuffer(ReplayBuffer):
    """Stores the steps of an episode when it ends, each with its return, as if the episode ended there.

    If the reward comes only at the end, this copies it to every step, undiscounted, as AMC does (He et al. 2018, sec.
    3.3). Critics then learn from returns and not from their own estimates. Bootstrapping over dozens of steps would
    take more than a few hundred episodes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: list[tuple[Any, ...]] = []

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Hold a step of all environments back; store what is held when they end, which they do together."""
        self._held.append((obs.copy(), next_obs.copy(), action.copy(), reward.copy(), infos))
        if not done.all():
            return
        returns_N = np.zeros_like(reward)
        for held in reversed(self._held):
            returns_N = returns_N + held[3]
            obs, next_obs, action, _, infos = held
            super().add(obs, next_obs, action, returns_N, np.ones_like(done), infos)
        self._held = []


class DecayingNoise(ActionNoise):
    """Normal noise on actions, AMC's without its truncation (stable-baselines3 clips actions to the space anyway).

    Args:
        scale: standard deviation, falling as the limits are spent.
    """

    def __init__(self, scale: Decay) -> None:
        super().__init__()
        self._scale = scale

    def __call__(self) -> NDArray[np.float32]:
        """Noise for one environment, `[1]`, from NumPy's legacy generator, which stable-baselines3 seeds."""
        return np.random.normal(0.0, self._scale(0.0), 1).astype(np.float32)

    def __deepcopy__(self, _: Any) -> "DecayingNoise":
        """stable-baselines3 copies noise for each environment; all of them follow one search."""
        return self
