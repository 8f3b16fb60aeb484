"""The pruning environment: one episode walks the units in order, one step sets one unit's level."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from autoprune.objective import Objective
from autoprune.space import Levels, Unit


class PruningEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Set the level of one unit after another within the budgets; the last step scores the policy.

    Observation, `Box(0, 1, (8,), float32)`:

    | index | meaning | range |
    | --- | --- | --- |
    | 0 | position: units set / units | 0 to 1 |
    | 1 | the unit is an attention | 0 or 1 |
    | 2 | block / blocks | 0 to 1 |
    | 3 | the unit's share of the dense cost, mean over budgets | 0 to 1 |
    | 4 | cost of the units set so far, share of the budget, mean over budgets | 0 to 1 |
    | 5 | cost of the units to come if dense, share of dense, mean over budgets | 0 to 1 |
    | 6 | share of groups that the previous step kept | 0 to 1 |
    | 7 | share of groups kept by the sparsest level allowed now | 0 to 1 |

    Actions, `Discrete(L)`: the level, 0 is dense. `action_masks()` marks the levels that exist and leave enough of each
    budget for the sparsest rest; any other action is taken as the nearest allowed one, so that a budget holds whatever
    the actions. What is left of the budgets at the end is filled up (`space.repair`).

    Reward: 0, and at the last step minus the loss of the policy, nats per token. `info` then has `levels` and `loss`.
    Episodes end when every unit is set. The objective's `LimitReached` passes through `step`: it ends a search.

    Args:
        objective: scores finished policies and knows the space.
        tokens: of each score; None is the whole search split.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 (Gymnasium's convention)

    def __init__(self, objective: Objective, tokens: int | None = None, render_mode: str | None = None) -> None:
        self.objective, self.tokens, self.render_mode = objective, tokens, render_mode
        space = objective.space
        self.action_space = spaces.Discrete(int(space.n_levels_U.max()))
        self.observation_space = spaces.Box(0.0, 1.0, (8,), np.float32)
        self._cost_MUL = np.array([space.costs[metric] for metric in space.budgets])
        self._bound_M = np.array(list(space.budgets.values()))
        units = np.arange(len(space.units))
        sparsest_MU = self._cost_MUL[:, units, space.sparsest]
        self._rest_MU = sparsest_MU[:, ::-1].cumsum(axis=1)[:, ::-1] - sparsest_MU  # cheapest cost of what follows
        self._levels: list[int] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Forget the levels set."""
        super().reset(seed=seed)
        self._levels = []
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Set the present unit's level to `action`, or to the nearest allowed level."""
        if not self.action_space.contains(action):
            raise ValueError(f"the action {action!r} is not in {self.action_space}")
        allowed = np.flatnonzero(self.action_masks())
        self._levels.append(int(allowed[np.argmin(np.abs(allowed - int(action)))]))
        if len(self._levels) < len(self.objective.space.units):
            return self._observation(), 0.0, False, False, {}
        policy = self.objective.space.repair(tuple(self._levels))
        loss = float(self.objective([policy], self.tokens)[0])
        return self._observation(), -loss, True, False, {"levels": policy, "loss": loss}

    def action_masks(self) -> NDArray[np.bool_]:
        """Levels allowed for the present unit, `[L]` (the name that sb3-contrib's MaskablePPO asks for)."""
        u = min(len(self._levels), len(self.objective.space.units) - 1)
        total_ML = self._used()[:, None] + self._cost_MUL[:, u] + self._rest_MU[:, u, None]
        mask = np.all(total_ML <= self._bound_M[:, None] + 1e-9 * self._dense()[:, None], axis=0)
        mask[int(self.objective.space.n_levels_U[u]) - 1] = True  # rounding of sums must not leave no way out
        return np.asarray(mask)

    def render(self) -> str:
        """A bar of the share kept for every unit set so far."""
        rows = []
        for unit, level in zip(self.objective.space.units, self._levels, strict=False):
            kept = unit.kept[level] / unit.groups
            rows.append(f"{unit.name:>14} {'#' * round(20 * kept):<20} {kept:4.0%}")
        return "\n".join(rows)

    @property
    def levels(self) -> Levels:
        """The levels set so far."""
        return tuple(self._levels)

    def _used(self) -> NDArray[np.float64]:
        return np.asarray(self._cost_MUL[:, np.arange(len(self._levels)), self._levels].sum(axis=1))

    def _dense(self) -> NDArray[np.float64]:
        return np.asarray(self._cost_MUL[:, :, 0].sum(axis=1))

    def _observation(self) -> NDArray[np.float32]:
        units: tuple[Unit, ...] = self.objective.space.units
        done = len(self._levels)
        unit, u = units[min(done, len(units) - 1)], min(done, len(units) - 1)
        dense_M, previous = self._dense(), units[done - 1] if done else None
        values = [
            done / len(units),
            float(unit.kind == "attention"),
            unit.block / (units[-1].block + 1),
            np.mean(self._cost_MUL[:, u, 0] / dense_M),
            np.mean(self._used() / self._bound_M),
            np.mean(self._cost_MUL[:, done:, 0].sum(axis=1) / dense_M),
            previous.kept[self._levels[-1]] / previous.groups if previous else 1.0,
            unit.kept[int(np.flatnonzero(self.action_masks())[-1])] / unit.groups,
        ]
        return np.clip(np.array(values, dtype=np.float32), 0.0, 1.0)
