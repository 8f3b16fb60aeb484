"""What the agents on stable-baselines3 share: a search is training on the pruning environment until the limits.

The walk (He et al. 2018) is stable-baselines3's own training loop over N episodes side by side. Around it:

- Single-unit sensitivities on few tokens come first. They are features, and the policy that is best under their sum is
  the reference whose pace a neutral action keeps: training starts from there and learns where to depart from it.
- The N episodes of a batch are scored on one sample, which is drawn anew for each batch and widens as the search goes
  on, beside the uniform policy: what is learned from is differences on the same text.
- The answer is an incumbent. After each batch the best episodes and the agent's own choice without noise race it on a
  larger sample, as offspring race their parent in `evolution`.
"""

import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from autoprune import registry
from autoprune.agents import weights
from autoprune.agents.decay import Decay
from autoprune.agents.evolution import race
from autoprune.envs import sensitivity
from autoprune.envs.episodes import Actions, Episodes, Outcome, Task
from autoprune.envs.vectorized import PruningVecEnv
from autoprune.errors import LimitReached, UserError
from autoprune.objective import Objective
from autoprune.space import Levels

PATIENCE = 50  # batches in which fewer scores than batches were new: the policy has settled


class Settled(Exception):  # noqa: N818 (an end, not an error)
    """Nothing new is proposed any more."""


@dataclass
class Sb3Agent:
    """Args:
    reward: a name, `package.module:function` or `file.py:function`.
    episodes: played side by side and scored as one batch.
    tokens: of the sample that the first batches are scored on.
    race_tokens: of the sample that a new incumbent must win on at the start.
    widening: how far both samples grow by the end: 0 not at all, 1 to the whole split, geometrically in between.
    finalists: episodes of each batch that race the incumbent, besides the agent's choice without noise.
    sensitivity_tokens: for each sensitivity; 0 measures none, and starts from the uniform policy.
    shaping: weight of the potential-based shaping.
    learning_rate: at the start; falls linearly to 0 as the limits are spent.
    net_arch: hidden layers of actor and critic.
    options: further arguments of the algorithm's class in stable-baselines3.
    pretrained: a run, or a directory with `agent.safetensors`, whose weights training starts from.
    callback: `package.module:Object` or `file.py:Object`, a BaseCallback that is called as SB3 does.
    tensorboard: a directory for TensorBoard's logs.
    """

    actions: ClassVar[Actions] = "continuous"

    reward: str = "amc"
    episodes: int = 8
    tokens: int = 1024
    race_tokens: int = 4096
    widening: float = 0.5
    finalists: int = 1
    sensitivity_tokens: int = 512
    shaping: float = 0.0
    learning_rate: float = 1e-3
    net_arch: tuple[int, ...] = (64, 64)
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    callback: str | None = None
    tensorboard: str | None = None

    def build(self, env: PruningVecEnv, seed: int, common: dict[str, Any]) -> BaseAlgorithm:
        """The algorithm of stable-baselines3 on an environment; `common` are arguments that all of them take."""
        raise NotImplementedError

    def decaying(self, start: float) -> Decay:
        """A number that falls from `start` to 0 as the limits are spent."""
        self._decays.append(Decay(start))
        return self._decays[-1]

    def search(self, objective: Objective, rng: np.random.Generator) -> None:
        """Train until the limits, or until the policy has settled."""
        self._trained: BaseAlgorithm | None = None
        self._decays: list[Decay] = []
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


class Training:
    """One search by one agent.

    Args:
        agent: its settings.
        objective: scores policies.
        rng: all randomness comes from it.
    """

    def __init__(self, agent: Sb3Agent, objective: Objective, rng: np.random.Generator) -> None:
        self.agent, self.objective, self._rng = agent, objective, rng
        self._evals: deque[int] = deque(maxlen=PATIENCE)
        self.incumbent = objective.space.uniform()
        reward = registry.load("rewards", agent.reward)
        added_UL = self._sensitivities()
        if added_UL is None:
            reference = self.incumbent
        else:
            reference = sensitivity.additive_solution(objective.space, added_UL)
        self.task = Task(objective, reward, agent.actions, self._sample, added_UL, reference, agent.shaping)
        env = PruningVecEnv(self.task, agent.episodes, rng, self._ended)
        self.model = agent.build(env, int(rng.integers(2**31 - 1)), self._common())
        if agent.pretrained is not None:
            weights.load(self.model, Path(agent.pretrained), type(agent).__name__)

    def run(self) -> None:
        """Race the reference against uniform, then train.

        Raises:
            LimitReached: the limits are spent.
            Settled: nothing new is proposed any more.
        """
        assert self.task.reference is not None
        self._race([self.task.reference], [])
        self.model.learn(total_timesteps=10**12, callback=self._callback(), tb_log_name=type(self.agent).__name__)

    def _common(self) -> dict[str, Any]:
        agent = self.agent
        return {
            "learning_rate": agent.decaying(agent.learning_rate),
            "gamma": 1.0,
            "policy_kwargs": {"net_arch": list(agent.net_arch)},
            "tensorboard_log": agent.tensorboard,
            "device": "cpu",
        }

    def _sensitivities(self) -> Any:
        """Sensitivities, if a tenth of the tokens and evaluations is enough for them."""
        objective, points = self.objective, 3
        if not self.agent.sensitivity_tokens:
            return None
        sequences = range(objective.sequences_for(self.agent.sensitivity_tokens))
        count = len(sensitivity.probes(objective.space, points))
        evals, tokens = objective.limits.evals, objective.limits.tokens
        if evals is not None and count > evals / 4:
            return None
        if tokens is not None and count * len(sequences) * objective.tokens_per_sequence > tokens / 4:
            return None
        return sensitivity.measure(objective, sequences, points)

    # -- samples, and what is done when episodes end --------------------------------------------------------------

    def _sample(self, rng: np.random.Generator) -> list[int]:
        return self._draw(self.agent.tokens, rng)

    def _draw(self, tokens: int, rng: np.random.Generator) -> list[int]:
        """Sequences in random order; their number grows geometrically with what is spent."""
        first = self.objective.sequences_for(tokens)
        growth = (self.objective.n_sequences / first) ** (self.agent.widening * self.objective.progress)
        return [int(s) for s in rng.permutation(self.objective.n_sequences)[: round(first * growth)]]

    def _ended(self, outcome: Outcome) -> None:
        """A batch has ended: race its best, set the learning rate, and see whether anything is new."""
        ranked = [outcome.policies[i] for i in np.argsort(outcome.losses_N, kind="stable")]
        finalists = list(dict.fromkeys([*ranked[: self.agent.finalists], self._choice()]))
        self._race(finalists, list(outcome.sample))
        self._update_decays()
        evals = self.objective.spent.evals
        if len(self._evals) == PATIENCE and evals - self._evals[0] < PATIENCE:
            raise Settled
        self._evals.append(evals)

    def _update_decays(self) -> None:
        for decay in self.agent._decays:
            decay.progress = self.objective.progress

    def _race(self, finalists: list[Levels], seen: list[int]) -> None:
        """Let policies race the incumbent on a sample that begins with the sequences that they were scored on."""
        drawn = self._draw(self.agent.race_tokens, self._rng)
        sample = list(dict.fromkeys([*seen, *drawn]))[: max(len(seen), len(drawn))]
        self.objective.by_sequence([self.incumbent], sample)
        self.objective.declare(self.incumbent)
        rivals = [policy for policy in finalists if policy != self.incumbent]
        self.incumbent = race(self.objective, self.incumbent, rivals, sample) or self.incumbent
        self.objective.declare(self.incumbent)

    def _choice(self) -> Levels:
        """What the agent would choose now, without noise."""
        episodes = Episodes(self.task)
        while not episodes.walk.done:
            action, _ = self.model.predict(episodes.observe(), deterministic=True)
            episodes.choose(action)
        return episodes.walk.policies()[0]

    def _callback(self) -> BaseCallback | None:
        if self.agent.callback is None:
            return None
        made = registry.load("callbacks", self.agent.callback)
        callback = made() if isinstance(made, type) else made
        if not isinstance(callback, BaseCallback):
            raise UserError(f"the callback '{self.agent.callback}' is no stable_baselines3 BaseCallback.")
        return callback


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
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 (SB3 uses the legacy generator)
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
