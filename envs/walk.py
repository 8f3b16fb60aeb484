"""The walk over the units: the levels that the next unit may have so that every budget can still be met.

N episodes walk side by side, because all have as many steps as there are units. Nothing is scored here.

Shapes: N episodes, U units, L levels, M budgeted metrics.
"""

import numpy as np
from numpy.typing import NDArray

from autoprune.space import SLACK, Levels, SearchSpace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Walk:
    """Levels of N policies, set unit after unit.

    Args:
        space: the units, their costs and the budgets.
        episodes: N.
        reference: the policy that the neutral continuous action follows. With None, [-1, 1] is mapped to ratios
            directly.
        table_UT: the level of each of T discrete actions for each unit. They are free: no level is ruled out on the
            way, and the policy at the end is repaired. None: actions are levels, and the budgets hold on the way.
    """

    def __init__(
        self,
        space: SearchSpace,
        episodes: int = 1,
        reference: Levels | None = None,
        table_UT: Ints | None = None,
    ) -> None:
        self.space, self.episodes, self._table_UT = space, episodes, table_UT
        self.n_units, self.n_levels = len(space.units), int(space.n_levels_U.max())
        units = np.arange(self.n_units)
        self.cost_MUL = np.array([space.costs[metric] for metric in space.budgets])
        self.bound_M = np.array(list(space.bounds.values()))
        self.dense_MU = self.cost_MUL[:, units, 0]
        self.dense_M = np.maximum(self.dense_MU.sum(axis=1), 1e-300)
        self.slack_M = SLACK * self.dense_M  # what sums may miss by rounding; costs below it are none
        self.density_UL = space.density_UL
        self._rest_MU = _behind(self.cost_MUL[:, units, space.sparsest])
        self.to_come_MU = self.dense_MU[:, ::-1].cumsum(axis=1)[:, ::-1]  # this unit and those behind it, dense
        self._reference_U = None if reference is None else self.density_UL[units, list(reference)]
        self._reference_MU = np.zeros_like(self.dense_MU)
        if reference is not None:
            self._reference_MU = self.cost_MUL[:, units, list(reference)][:, ::-1].cumsum(axis=1)[:, ::-1]
        self.reset()

    def reset(self) -> None:
        """Forget the levels set."""
        self.step = 0
        self.levels_NU = np.zeros((self.episodes, self.n_units), dtype=np.int64)
        self.used_NM = np.zeros((self.episodes, len(self.bound_M)))

    @property
    def free(self) -> bool:
        """Whether actions may break the budgets until the end."""
        return self._table_UT is not None

    @property
    def n_actions(self) -> int:
        """Number of discrete actions."""
        return self.n_levels if self._table_UT is None else self._table_UT.shape[1]

    @property
    def done(self) -> bool:
        """Whether every unit is set."""
        return self.step == self.n_units

    @property
    def unit(self) -> int:
        """Index of the unit to be set next; the last one when done."""
        return min(self.step, self.n_units - 1)

    def allowed(self) -> NDArray[np.bool_]:
        """Levels of the present unit that exist and leave enough of each budget for the sparsest rest, `[N, L]`."""
        u = self.unit
        total_NML = self.used_NM[:, :, None] + self.cost_MUL[None, :, u] + self._rest_MU[None, :, u, None]
        allowed_NL = np.all(total_NML <= (self.bound_M + self.slack_M)[None, :, None], axis=1)
        allowed_NL[:, self.space.sparsest[u]] = True  # rounding of sums must not leave no way out
        return np.asarray(allowed_NL)

    def levels_at(self, ratio_N: Floats) -> Ints:
        """The allowed levels whose density is nearest to a ratio, `[N]` (AMC, He et al. 2018, algorithm 1)."""
        distance_NL = np.abs(self.density_UL[self.unit] - ratio_N[:, None])
        return np.asarray(np.where(self.allowed(), distance_NL, np.inf).argmin(axis=1))

    def nearest_allowed(self, action_N: Ints) -> Ints:
        """Each discrete action's level, or that of the nearest action that is allowed, `[N]`."""
        if self._table_UT is not None:
            return np.asarray(self._table_UT[self.unit, action_N])
        distance_NL = np.abs(np.arange(self.n_levels) - action_N[:, None]).astype(np.float64)
        return self.levels_of(np.where(self.action_masks(), distance_NL, np.inf).argmin(axis=1))

    def levels_of(self, action_N: Ints) -> Ints:
        """Levels of discrete actions, `[N]`; -1 if there is no such level.

        Without a reference, the action is the level. With a reference, the middle action keeps its pace, and each
        action above or below is one level sparser or denser.
        """
        if self._reference_U is None:
            return action_N
        level_N = self.levels_at(self._pace()) + action_N - self.n_levels // 2
        return np.asarray(np.where((level_N >= 0) & (level_N < self.n_levels), level_N, -1))

    def action_masks(self) -> NDArray[np.bool_]:
        """Discrete actions whose level is allowed now, `[N, L]`; free ones always are, `[N, T]`."""
        if self.free:
            return np.ones((self.episodes, self.n_actions), dtype=bool)
        allowed_NL = self.allowed()
        if self._reference_U is None:
            return allowed_NL
        masks_NL = np.zeros_like(allowed_NL)
        for action in range(self.n_levels):
            level_N = self.levels_of(np.full(self.episodes, action))
            masks_NL[:, action] = (level_N >= 0) & allowed_NL[np.arange(self.episodes), level_N]
        return masks_NL

    def ratios(self, action_N: Floats) -> Floats:
        """Ratios kept for actions in [-1, 1]: -1 is nothing, 1 everything, and 0 is half, or the pace of the reference.

        The pace is the reference's share of this unit, scaled by a factor. With the same factor for all remaining
        units, the policy would meet the budgets exactly. So all remaining units share what earlier ones took too much
        or left over.
        """
        if self._reference_U is None:
            return (action_N + 1) / 2
        pace_N = self._pace()
        return np.where(action_N < 0, pace_N * (1 + action_N), pace_N + (1 - pace_N) * action_N)

    def _pace(self) -> Floats:
        assert self._reference_U is not None
        u, share = self.unit, float(self._reference_U[self.unit])
        left_NM, planned_M, dense_M = self.left(), self._reference_MU[:, u], self.to_come_MU[:, u]
        thinner_NM = share * left_NM / np.maximum(planned_M, self.slack_M)
        denser_NM = share + (1 - share) * (left_NM - planned_M) / np.maximum(dense_M - planned_M, self.slack_M)
        return np.asarray(np.where(left_NM < planned_M, thinner_NM, denser_NM).min(axis=1).clip(0.0, 1.0))

    def set(self, level_N: Ints) -> None:
        """Set the present unit's level in every episode, and go on to the next."""
        assert not self.done
        self.levels_NU[:, self.step] = level_N
        self.used_NM += self.cost_MUL[:, self.step, level_N].T
        self.step += 1

    def policies(self) -> list[Levels]:
        """The policies so far, with the remaining units dense. At the end, what is left of the budgets is filled."""
        policies = self.chosen()
        return [self.space.repair(policy) for policy in policies] if self.done else policies

    def chosen(self) -> list[Levels]:
        """The levels as they were set, with the remaining units dense."""
        return [tuple(int(level) for level in row) for row in self.levels_NU]

    def left(self) -> Floats:
        """What is left of each budget, with the slack for rounding, `[N, M]`."""
        return np.asarray(self.bound_M + self.slack_M - self.used_NM)

    def room(self) -> Floats:
        """Share of each budget that the present unit may use at most, `[N, M]`."""
        return np.asarray((self.left() - self._rest_MU[:, self.unit]) / np.maximum(self.bound_M, self.slack_M))


def _behind(value_MU: Floats) -> Floats:
    """For each unit the sum over the units that follow it."""
    return np.asarray(value_MU[:, ::-1].cumsum(axis=1)[:, ::-1] - value_MU)
