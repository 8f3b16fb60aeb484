"""A search by reinforcement learning: trains on the pruning environment until the limits are spent.

stable-baselines3's training loop runs over N episodes side by side (He et al. 2018). Around it:

- Single-unit sensitivities are measured first, on few tokens. They are features of the observation. The policy with the
  least sum is the reference, whose pace a neutral action keeps. So training starts there and learns where to deviate.
- The N episodes of a batch and the uniform policy are scored on the same sample, so that the agent learns from
  differences on the same text. Each batch draws a new sample, which grows during the search.
- The answer is an incumbent. After each batch the best episodes and the agent's own choice without noise race it on a
  larger sample, as offspring race their parent in `evolution`.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from autoprune import registry
from autoprune.agents import weights
from autoprune.agents.racing import Patience, begin
from autoprune.envs.episodes import EpisodeRules, Episodes, Outcome
from autoprune.envs.rewards.options import load_reward
from autoprune.envs.vectorized import PruningVecEnv
from autoprune.errors import LimitReached, UserError
from autoprune.objective import Objective
from autoprune.space import Levels
from autoprune.usercode import call

if TYPE_CHECKING:
    from autoprune.agents.sb3 import Sb3Agent

HOOKS = ("_init_callback", "_on_training_start", "_on_rollout_start", "_on_step", "_on_rollout_end", "_on_training_end")


class Settled(Exception):  # noqa: N818 (an end, not an error)
    """The agent proposes nothing new any more."""


class Training:
    """One search by one agent.

    Args:
        agent: its settings.
        objective: scores policies.
        rng: all randomness comes from it.
    """

    def __init__(self, agent: "Sb3Agent", objective: Objective, rng: np.random.Generator) -> None:
        self.agent, self.objective, self._rng = agent, objective, rng
        self._patience = Patience(objective)
        self._incumbent, reference, added_UL = begin(objective, rng, agent)
        reward = load_reward(agent.reward, agent.reward_options)
        self.rules = agent.rules(
            EpisodeRules(objective, reward, agent.actions, self._sample, added_UL, reference, agent.shaping)
        )
        self._episodes = 0
        env = PruningVecEnv(self.rules, agent.episodes, rng, self._ended)
        with _explained(agent):
            self.model = agent.build(env, int(rng.integers(2**31 - 1)), self._common())
        if agent.tensorboard is None:
            self.model.set_logger(Logger(folder=None, output_formats=[]))  # SB3's own makes a folder in /tmp
        if agent.pretrained is not None:
            weights.load(self.model, Path(agent.pretrained), type(agent).__name__)

    def run(self) -> None:
        """Race the reference, and what a pretrained agent would choose, against uniform, then train.

        Raises:
            LimitReached: the limits are spent.
            Settled: the agent proposes nothing new any more.
        """
        assert self.rules.reference is not None
        self._incumbent.challenge([self.rules.reference, *([self._choice()] if self.agent.pretrained else [])])
        callback = self._callback()
        try:
            with _explained(self.agent):
                self.model.learn(total_timesteps=10**12, callback=callback, tb_log_name=type(self.agent).__name__)
        except (LimitReached, Settled):
            if callback is not None:
                callback.on_training_end()  # which SB3 calls only where training ends by itself
            raise

    def _common(self) -> dict[str, Any]:
        agent = self.agent
        return {
            "learning_rate": agent.decaying(agent.learning_rate),
            "gamma": 1.0,
            "policy_kwargs": {"net_arch": list(agent.net_arch)},
            "tensorboard_log": agent.tensorboard,
            "device": "cpu",
        }

    # -- samples, and what is done when episodes end --------------------------------------------------------------

    def _sample(self, _: np.random.Generator) -> list[int]:
        return self._incumbent.draw(self.agent.tokens)

    def _ended(self, outcome: Outcome) -> None:
        """Finish a batch: race its best episodes, lower what falls with progress, and check for new policies."""
        ranked = [outcome.policies[i] for i in np.argsort(outcome.losses_N, kind="stable")]
        self._incumbent.challenge([*ranked[: self.agent.finalists], self._choice()], outcome.sample)
        self._episodes += len(outcome.policies)
        for decay in self.agent.decays:
            decay.progress = self.agent.progress(self.objective, self._episodes)
        if self._patience.lost() or self.agent.is_over(self._episodes):
            raise Settled

    def _choice(self) -> Levels:
        """What the agent would choose now, without noise."""
        episodes = Episodes(self.rules)
        while not episodes.walk.done:
            action, _ = self.model.predict(episodes.observe(), deterministic=True)
            episodes.choose(action)
        return episodes.walk.policies()[0]

    def _callback(self) -> BaseCallback | None:
        if self.agent.callback is None:
            return None
        made = registry.load("callbacks", self.agent.callback)
        callback = call("callback", made) if isinstance(made, type) else made
        if not isinstance(callback, BaseCallback):
            raise UserError(f"the callback '{self.agent.callback}' is no stable_baselines3 BaseCallback.")
        for hook in HOOKS:  # what is wrong in them is told with their file and line
            setattr(callback, hook, functools.partial(call, "callback", getattr(callback, hook)))
        return callback


@contextmanager
def _explained(agent: "Sb3Agent") -> Iterator[None]:
    """Turn what stable-baselines3 says of a setting, or of weights that have become NaN, into one sentence."""
    try:
        yield
    except UserError:
        raise
    except (AssertionError, TypeError, ValueError) as error:
        name, first = type(agent).__name__, (str(error).strip() or type(error).__name__).splitlines()[0]
        settings = f"learning_rate={agent.learning_rate}, options={agent.options}"
        raise UserError(f"{name} of stable-baselines3 failed ({first}): look at its settings, {settings}.") from error
