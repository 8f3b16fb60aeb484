"""Exact policies with the least sum of added losses within any number of budgets, by a mixed-integer programme.

There is one binary variable for each level of each unit, exactly one variable of each unit is 1, and each budget is a
row. This is the multiple-choice knapsack problem that Puzzle (Bercovich et al. 2024) solves to choose architectures.
HiGHS (Huangfu and Hall 2018), as part of SciPy, is the solver.

Shapes: U units, L levels, M budgets, V variables: the levels of all units, one after another.
"""

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import UserError
from autoprune.space import SLACK, Levels, SearchSpace

Floats = NDArray[np.float64]

SCALE = 1e4  # of the greatest added loss: HiGHS compares objectives to an absolute 1e-6
NODES = 1000  # of the solver's tree, should a proof take more; not seconds, since a search must replay exactly
GAP = 1e-3  # of all but the best: proofs take time, and whether a policy is the 8th or the 9th is nothing


def check_scipy(agent: str) -> None:
    """Raise a UserError where the solver is missing."""
    if find_spec("scipy") is None:
        raise UserError(f"the agent '{agent}' needs the package scipy: pip install 'autoprune[additive]'.")


def solutions(space: SearchSpace, added_UL: Floats, apart: int = 1) -> Iterator[Levels]:
    """Yield the best policy within the budgets, and then further ones that differ from all before, best first.

    If NODES nodes of the solver's tree do not prove that a policy is the best, the best one found is taken. The order
    holds up to a thousandth.

    Args:
        added_UL: what each level of each unit adds to the loss; entries of levels that a unit lacks are not read.
        apart: the least number of units in which any two of them differ.

    Returns:
        An iterator that ends when no further policy is that far from the others.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    unit_V = np.repeat(np.arange(len(space.units)), space.n_levels_U)
    level_V = np.concatenate([np.arange(n) for n in space.n_levels_U])
    loss_V = added_UL[unit_V, level_V] * SCALE / max(float(np.abs(added_UL).max()), 1e-300)
    one_UV = unit_V == np.arange(len(space.units))[:, None]
    cost_MV, bound_M = _costs(space, unit_V, level_V)
    rows = [LinearConstraint(one_UV, 1, 1), LinearConstraint(cost_MV, ub=bound_M)]
    binary, gap = {"integrality": np.ones(len(loss_V)), "bounds": Bounds(0, 1)}, 0.0
    while True:
        found = milp(loss_V, constraints=rows, options={"mip_rel_gap": gap, "node_limit": NODES}, **binary)
        if found.x is None:
            return
        levels = tuple(int(level) for level in np.where(one_UV, found.x, -1).argmax(axis=1) - _starts(space))
        chosen_V = level_V == np.array(levels)[unit_V]
        fits = space.feasible(levels)  # HiGHS takes what is a little over a budget, too
        rows.append(LinearConstraint(chosen_V, ub=len(space.units) - (apart if fits else 1)))
        if fits:
            gap = GAP
            yield levels


def _costs(space: SearchSpace, unit_V: NDArray[np.int64], level_V: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Costs, `[M, V]`, and bounds, `[M]`: thousandths of dense, so that HiGHS' tolerance of 1e-6 is our slack."""
    dense_M = np.array([space.cost(space.dense, metric) for metric in space.budgets])
    cost_MV = np.array([space.costs[metric][unit_V, level_V] for metric in space.budgets])
    bound_M = np.array(list(space.bounds.values())) + SLACK * dense_M
    scale_M = np.maximum(dense_M, 1e-300) / 1000
    return cost_MV / scale_M[:, None], bound_M / scale_M


def _starts(space: SearchSpace) -> NDArray[np.int64]:
    """The first variable of each unit."""
    return np.asarray(np.cumsum(space.n_levels_U) - space.n_levels_U)
