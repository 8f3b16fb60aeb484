"""Exact solutions of additive models, against trying everything."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autoprune import registry
from autoprune.agents import knapsack
from autoprune.envs.sensitivity import additive_solution
from autoprune.errors import UserError
from autoprune.space import SLACK, Levels, SearchSpace
from autoprune.testing.toys import ToyScorer, toy_space
from tests.test_sensitivity import least, total, true_losses
from tests.test_space import spaces

Table = np.ndarray


def feasible_sums(space: SearchSpace, added_UL: Table) -> Table:
    """Added losses of every policy within the budgets, sorted."""
    policies_PU = np.array(list(itertools.product(*(range(n) for n in space.n_levels_U))))
    units = np.arange(len(space.units))
    fits_P = np.ones(len(policies_PU), dtype=bool)
    for metric, bound in space.budgets.items():
        slack = SLACK * space.cost(space.dense, metric)
        fits_P &= space.costs[metric][units, policies_PU].sum(axis=1) <= bound + slack
    return np.sort(added_UL[units, policies_PU[fits_P]].sum(axis=1))


def table(space: SearchSpace, seed: int, rough: bool) -> Table:
    rng = np.random.default_rng(seed)
    shape = len(space.units), int(space.n_levels_U.max())
    steps_UL = rng.choice([0.0, 0.1, 5.0], shape) if rough else rng.exponential(1e-3, shape)
    added_UL: Table = np.cumsum(steps_UL, axis=1) - steps_UL[:, :1]
    return added_UL


def distance(a: Levels, b: Levels) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


@settings(max_examples=100)
@given(space=spaces(), seed=st.integers(0, 2**32 - 1), rough=st.booleans())
def test_the_first_solution_is_the_optimum_under_one_and_two_budgets(
    space: SearchSpace, seed: int, rough: bool
) -> None:
    assume(np.prod(space.n_levels_U) <= 5000)
    added_UL = table(space, seed, rough)
    found = next(knapsack.solutions(space, added_UL))
    assert space.feasible(found)
    assert total(added_UL, found) == pytest.approx(feasible_sums(space, added_UL)[0], rel=1e-6, abs=1e-9)


@settings(max_examples=40)
@given(space=spaces(), seed=st.integers(0, 2**32 - 1), apart=st.integers(1, 3))
def test_further_solutions_differ_and_come_about_in_order(space: SearchSpace, seed: int, apart: int) -> None:
    assume(np.prod(space.n_levels_U) <= 300)
    added_UL = table(space, seed, rough=False)
    found = list(itertools.islice(knapsack.solutions(space, added_UL, apart), 8))
    assert all(space.feasible(levels) for levels in found)
    assert all(distance(a, b) >= apart for a, b in itertools.combinations(found, 2))
    losses = [total(added_UL, levels) for levels in found]
    assert all(later >= earlier * (1 - 2e-3) - 1e-9 for earlier, later in itertools.pairwise(losses))
    if apart == 1:
        everything = feasible_sums(space, added_UL)
        assert len(found) == min(8, len(everything))
        assert losses == pytest.approx(everything[: len(found)], rel=2e-3, abs=1e-9)


@pytest.mark.parametrize("latency", [None, 0.5, 0.8])
def test_never_above_the_priced_solution(latency: float | None) -> None:
    for seed, budget in itertools.product(range(3), (0.2, 0.5, 0.8)):
        space = toy_space(6, 11, budget, seed, latency)
        added_UL = true_losses(ToyScorer(space, seed))
        found = total(added_UL, next(knapsack.solutions(space, added_UL)))
        assert found == pytest.approx(least(space, added_UL), rel=1e-6)
        assert found <= total(added_UL, additive_solution(space, added_UL)) + 1e-9


def test_what_is_fixed_changes_no_solution() -> None:
    plain = toy_space(6, 5, 0.5, latency=0.6)
    fixed = {"params": 300.0, "latency": 40.0}
    budgets = {metric: bound + fixed[metric] for metric, bound in plain.budgets.items()}
    space = SearchSpace(plain.units, {m: plain.rows(m) for m in plain.costs}, budgets, fixed=fixed)
    added_UL = true_losses(ToyScorer(plain))
    found = [list(itertools.islice(knapsack.solutions(one, added_UL), 5)) for one in (plain, space)]
    assert found[0] == found[1]


def test_without_budgets_that_bind_nothing_is_cut() -> None:
    space = toy_space(units=4, budget=1.0)
    assert next(knapsack.solutions(space, true_losses(ToyScorer(space)))) == space.dense


def test_without_scipy_the_agent_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knapsack, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'additive' needs the package scipy: pip install 'autoprune\[additive\]'"):
        registry.load("agents", "additive")()
