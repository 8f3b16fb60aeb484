"""Runs N episodes side by side: sets levels, scores the policies in one batch, pays rewards. Both environments use it.

Shapes: N episodes, U units, L levels, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from autoprune.envs.observation import GROUPS, HIGH_F, LOW_F, Observer, columns_of
from autoprune.envs.rewards.record import HIGHEST_LOSS, Reward, RewardRecord, pay, pays_every_step
from autoprune.envs.thresholds import THRESHOLDS, levels_at
from autoprune.envs.walk import Walk
from autoprune.errors import UserError
from autoprune.objective import Objective
from autoprune.space import Levels

Floats = NDArray[np.float64]
Actions = Literal["discrete", "continuous", "thresholds"]
Sampler = Callable[[np.random.Generator], Sequence[int]]
"""A function that draws the sequences on which the next episodes are scored."""


class InvalidAction(UserError, ValueError):  # noqa: N818 (as Gymnasium names its own)
    """An action outside the space."""


@dataclass(frozen=True)
class EpisodeRules:
    """The rules of an episode. They are the same for one environment and for many side by side.

    Args:
        objective: scores policies and knows the space.
        reward: a function of a `RewardRecord`.
        actions: `discrete` for levels, `continuous` for a ratio, or `thresholds` on magnitudes (thresholds.py).
        sampler: draws the sequences of the next episodes; None is the whole search split.
        added_UL: single-unit sensitivities (sensitivity.py). With None, they are observed as zeros and shaping is off.
        reference: the policy whose pace the neutral action keeps. With None, actions are mapped to ratios directly.
        shaping: weight of the potential-based shaping; 0 is off.
        observation: `vector` or `dict`.
        thresholds: the actions `thresholds`, in standard deviations of a unit's weights.
    """

    objective: Objective
    reward: Reward
    actions: Actions = "discrete"
    sampler: Sampler | None = None
    added_UL: Floats | None = None
    reference: Levels | None = None
    shaping: float = 0.0
    observation: Literal["vector", "dict"] = "vector"
    thresholds: tuple[float, ...] = THRESHOLDS

    def action_space(self) -> spaces.Space[Any]:
        """`Discrete(L)`, `Box(-1, 1, (1,))`, or `Discrete(T)` for T thresholds."""
        if self.actions == "thresholds":
            return spaces.Discrete(len(self.thresholds))
        if self.actions == "continuous":
            return spaces.Box(-1.0, 1.0, (1,), np.float32)
        return spaces.Discrete(int(self.objective.space.n_levels_U.max()))

    def observation_space(self) -> spaces.Space[Any]:
        """The table's ranges, as one `Box` or as a `Dict` of its groups."""
        if self.observation == "vector":
            return spaces.Box(LOW_F, HIGH_F, dtype=np.float32)
        return spaces.Dict({group: spaces.Box(LOW_F[columns_of(group)], HIGH_F[columns_of(group)]) for group in GROUPS})


@dataclass(frozen=True)
class Outcome:
    """Finished episodes: their policies `[N]`, their mean losses on the sample `[N]`, and the sample."""

    policies: list[Levels]
    losses_N: Floats
    sample: Sequence[int]
    rewards_N: Floats = field(repr=False)


class Episodes:
    """N episodes of the same rules, in step.

    Args:
        rules: the rules of the episodes.
        n: the number of episodes.
    """

    def __init__(self, rules: EpisodeRules, n: int = 1) -> None:
        self.rules, self.n, space = rules, n, rules.objective.space
        free = rules.actions == "thresholds"
        table_UT = levels_at(rules.objective, rules.thresholds) if free else None
        self.walk = Walk(space, n, rules.reference, table_UT)
        self._observer = Observer(rules.objective, rules.added_UL, rules.reference or space.uniform())
        self._every_step = pays_every_step(rules.reward)
        self._budgets = {
            metric: float(bound / max(space.cost(space.dense, metric), 1e-300))
            for metric, bound in space.budgets.items()
        }
        self._potential_UL = np.zeros((len(space.units), self.walk.n_levels))
        if rules.shaping and rules.added_UL is not None:
            uniform = float(rules.added_UL[np.arange(len(space.units)), space.uniform()].sum())
            self._potential_UL = -rules.shaping * rules.added_UL / max(uniform, 1e-9)
        self.sample: Sequence[int] = ()
        self.outcome: Outcome | None = None
        self._uniform: float | None = None

    def begin(self, rng: np.random.Generator) -> None:
        """Restart all episodes on a new sample."""
        objective = self.rules.objective
        self.walk.reset()
        self.sample = range(objective.n_sequences) if self.rules.sampler is None else self.rules.sampler(rng)
        self.outcome = None
        self._dense = float(objective.dense_losses(self.sample).mean())
        self._uniform = None
        self._losses_N = np.full(self.n, self._dense)
        self._potential_N, self._total_N = np.zeros(self.n), np.zeros(self.n)

    def observe(self) -> NDArray[np.float32]:
        """The observation table in every episode, `[N, F]`."""
        running_N = np.zeros(self.n)
        if self._every_step and self._uniform is not None:
            running_N = (self._losses_N - self._dense) / max(self._uniform - self._dense, 1e-6)
        return self._observer.observe(self.walk, running_N)

    def masks(self) -> NDArray[np.bool_]:
        """Discrete actions that the present step may choose, `[N, L]`."""
        return self.walk.action_masks()

    def step(self, actions: NDArray[Any]) -> Floats:
        """Set the present unit in every episode. Returns the rewards `[N]`. The last step fills in `outcome`.

        Raises:
            InvalidAction: an action is not a level, or not a number in [-1, 1].
            UserError: the reward is not a finite number.
            LimitReached: the objective's limits are spent.
        """
        u = self.walk.unit
        level_N = self.choose(actions)
        policies = self.walk.policies()
        done = self.walk.done
        previous_N = self._losses_N
        if done or self._every_step:
            self._losses_N = self._score(policies, probe=not done)
        rewards_N = self._shaped(u, level_N)
        if done or self._every_step:
            priced = self.walk.chosen() if self.walk.free else policies  # what repair changed is no merit of theirs
            costs = {metric: self._costs(priced, metric) for metric in self._budgets}
            for i in range(self.n):
                rewards_N[i] += self._pay(i, u, level_N, previous_N, {m: float(c[i]) for m, c in costs.items()})
        self._total_N = self._total_N + rewards_N
        if done:
            self.outcome = Outcome(policies, self._losses_N, self.sample, self._total_N)
        return rewards_N

    def choose(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        """Set the present unit in every episode, without scores or rewards. Returns its levels, `[N]`."""
        level_N = self._levels(np.asarray(actions))
        self.walk.set(level_N)
        return level_N

    def policies(self) -> list[Levels]:
        """The policies so far, with the remaining units dense. After the last step, the policies that were scored."""
        return self.outcome.policies if self.outcome else self.walk.policies()

    def render(self, i: int = 0) -> str:
        """A bar of the share kept for every unit set so far, block by block."""
        rows, policy = [], self.policies()[i]
        for u, unit in enumerate(self.rules.objective.space.units[: self.walk.step]):
            share = self.walk.density_UL[u, policy[u]]
            rows.append(f"{unit.name:>14} {'█' * round(20 * share):·<20} {share:4.0%}")
        return "\n".join(rows)

    # -- the parts of a step -------------------------------------------------------------------------------------

    def _levels(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        if self.rules.actions != "continuous":
            level_N = actions.reshape(self.n)
            if level_N.dtype.kind not in "iu" or level_N.min() < 0 or level_N.max() >= self.walk.n_actions:
                raise InvalidAction(
                    f"the action {actions.tolist()} is outside the space: integers from 0 to "
                    f"{self.walk.n_actions - 1} are in it."
                )
            return self.walk.nearest_allowed(level_N.astype(np.int64))
        action_N = actions.reshape(self.n).astype(np.float64)
        if not np.all(np.abs(action_N) <= 1 + 1e-6):  # NaN is refused too
            raise InvalidAction(f"the action {actions.tolist()} is not a number from -1 to 1.")
        return self.walk.levels_at(self.walk.ratios(action_N))

    def _score(self, policies: list[Levels], probe: bool) -> Floats:
        """Losses on the sample; the uniform policy comes along as the measure of what is usual (free once scored)."""
        batch = [self.rules.objective.space.uniform(), *policies]
        losses_P = self.rules.objective.by_sequence(batch, self.sample, probe=probe).mean(axis=1)
        losses_P = np.minimum(losses_P, HIGHEST_LOSS)
        self._uniform = float(losses_P[0])
        return np.asarray(losses_P[1:])

    def _shaped(self, u: int, level_N: NDArray[np.int64]) -> Floats:
        """Phi(s') - Phi(s), undiscounted, with Phi of the last state 0: sums to 0 over an episode (Ng et al. 1999)."""
        after_N = np.zeros(self.n) if self.walk.done else self._potential_N + self._potential_UL[u, level_N]
        shaped_N, self._potential_N = after_N - self._potential_N, after_N
        return np.asarray(shaped_N)

    def _costs(self, policies: list[Levels], metric: str) -> Floats:
        space = self.rules.objective.space
        dense = max(space.cost(space.dense, metric), 1e-300)
        return np.array([space.cost(policy, metric) for policy in policies]) / dense

    def _pay(self, i: int, u: int, level_N: NDArray[np.int64], previous_N: Floats, costs: dict[str, float]) -> float:
        assert self._uniform is not None
        record = RewardRecord(
            step=self.walk.step,
            steps=self.walk.n_units,
            unit=self.rules.objective.space.units[u],
            kept=float(self.walk.density_UL[u, level_N[i]]),
            loss=float(self._losses_N[i]),
            previous_loss=float(previous_N[i]),
            dense_loss=self._dense,
            uniform_loss=self._uniform,
            costs=costs,
            budgets=self._budgets,
        )
        return pay(self.rules.reward, record)
