"""Many pruning episodes as one vectorised environment of stable-baselines3, scored in one batch.

All episodes have as many steps as there are units, so they end together. Their N policies are scored as one batch, and
with dense rewards so are the N partial policies of each step. So reinforcement learning also profits from shared
prefixes and parallel scoring.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from autoprune.envs.episodes import EpisodeRules, Episodes, Outcome
from autoprune.envs.observation import split


class PruningVecEnv(VecEnv):
    """N episodes of the same rules, in step.

    Args:
        rules: the rules of the episodes (episodes.py).
        n_envs: N.
        rng: draws the samples that episodes are scored on.
        on_end: called with the outcome when the N episodes have ended.

    Infos of the last step hold `levels`, `loss`, `terminal_observation` and, as SB3's Monitor writes it, `episode`.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 (Gymnasium's convention)

    def __init__(
        self,
        rules: EpisodeRules,
        n_envs: int,
        rng: np.random.Generator,
        on_end: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self.episodes, self._rng, self._on_end = Episodes(rules, n_envs), rng, on_end
        self.render_mode = "ansi"
        self._dict = rules.observation == "dict"
        self._actions: NDArray[Any] = np.zeros(0)
        super().__init__(n_envs, rules.observation_space(), rules.action_space())

    def reset(self) -> VecEnvObs:
        """Start N episodes."""
        self.episodes.begin(self._rng)
        self._begun = time.monotonic()
        self._reset_seeds()
        self._reset_options()
        return self._observed()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Store the actions, `[N]` or `[N, 1]`, for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Set the present unit in all episodes. The last step scores the policies and starts new episodes."""
        rewards_N = self.episodes.step(self._actions).astype(np.float32)
        outcome = self.episodes.outcome
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done_N = np.full(self.num_envs, outcome is not None)
        if outcome is None:
            return self._observed(), rewards_N, done_N, infos
        seconds, last_NF = time.monotonic() - self._begun, self.episodes.observe()
        for i, info in enumerate(infos):
            episode = {"r": float(outcome.rewards_N[i]), "l": self.episodes.walk.n_units, "t": seconds}
            info |= {"levels": outcome.policies[i], "loss": float(outcome.losses_N[i]), "episode": episode}
            info["terminal_observation"] = split(last_NF[i]) if self._dict else last_NF[i]
        self._on_end(outcome)
        return self.reset(), rewards_N, done_N, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Discrete actions allowed now, `[N, L]`."""
        return self.episodes.masks()

    def render(self, mode: str | None = None) -> str:  # type: ignore[override] # SB3 returns images or nothing
        """The first episode as bars."""
        return self.episodes.render()

    def close(self) -> None:
        """Nothing to close."""

    # -- what SB3 asks of its vectorised environments ------------------------------------------------------------

    def has_attr(self, attr_name: str) -> bool:
        """Whether there is such an attribute (sb3-contrib asks for `action_masks`)."""
        return hasattr(self, attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, once for each environment."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute for all environments, which are one object."""
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """One row of the answer for each environment."""
        answer: Sequence[Any] = getattr(self, method_name)(*method_args, **method_kwargs)
        return [answer[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No wrappers, but `infos` hold what a Monitor would add."""
        chosen: Iterable[int] = self._get_indices(indices)
        return [wrapper_class.__name__ == "Monitor" for _ in chosen]

    def _observed(self) -> VecEnvObs:
        observed_NF = self.episodes.observe()
        return split(observed_NF) if self._dict else observed_NF
