"""Single-unit sensitivities and the policy that is best under their sum, against toys that are sums."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.agents import knapsack
from autoprune.envs import sensitivity
from autoprune.envs.sensitivity import additive_solution, measure, measured_levels, probes
from autoprune.errors import LimitReached
from autoprune.objective import Limits, Objective
from autoprune.space import Levels, SearchSpace
from autoprune.testing.toys import ToyScorer, toy_space, toy_statistics
from tests.test_space import spaces

Table = np.ndarray


def true_losses(scorer: ToyScorer) -> Table:
    """What every level of every unit alone adds, `[U, L]`."""
    depth_L = np.arange(scorer.space.n_levels_U.max()) / (scorer.space.n_levels_U[0] - 1)
    added_UL: Table = scorer.importance_U[:, None] * depth_L**2
    return added_UL


def additive(levels: int = 7, noise: float = 0.0, units: int = 6) -> ToyScorer:
    return ToyScorer(toy_space(units, levels), noise=noise, pairs=0)


# -- measured --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [1, 2, 3])
def test_measured_levels_are_right_and_the_dense_one_is_nothing(points: int) -> None:
    scorer = additive()
    added_UL = measure(Objective(scorer.space, scorer, Limits()), range(2), points)
    assert np.array_equal(added_UL[:, 0], np.zeros(6))
    measured = [0, *measured_levels(scorer.space, 0, points)]
    assert len(measured) == points + 1
    assert measured[-1] == 6
    assert added_UL[:, measured] == pytest.approx(true_losses(scorer)[:, measured])


@pytest.mark.parametrize("points", [2, 4])
def test_around_another_policy_sums_are_the_same(points: int) -> None:
    scorer = additive()
    base = scorer.space.uniform()
    objective = Objective(scorer.space, scorer, Limits(), statistics=toy_statistics(scorer.space))
    added_UL = measure(objective, range(2), points, base)
    assert added_UL == pytest.approx(true_losses(scorer), abs=0.001 * added_UL.max())
    assert objective.spent.evals == len(probes(scorer.space, points, base)) + 1
    assert {level for _, level in probes(scorer.space, 2, base)} == {0, 6}


def test_levels_between_follow_the_output_errors() -> None:
    """The toy's losses grow as its output errors do, so that the interpolation is all but exact."""
    scorer = additive(levels=13)
    known = measure(Objective(scorer.space, scorer, Limits(), statistics=toy_statistics(scorer.space)), range(1))
    unknown = measure(Objective(scorer.space, scorer, Limits()), range(1))
    right = true_losses(scorer)
    assert known == pytest.approx(right, abs=0.001 * right.max())
    assert np.abs(unknown - right).max() > 0.01 * right.max(), "the plain ratio is a poorer guide"


@settings(max_examples=50)
@given(space=spaces(), seed=st.integers(0, 2**32 - 1), known=st.booleans())
def test_sensitivities_never_fall_and_are_finite_whatever_the_losses(
    space: SearchSpace, seed: int, known: bool
) -> None:
    class Wild(ToyScorer):
        """Losses that rise and fall, and overflow now and then."""

        def score(self, policies, sequences):  # type: ignore[no-untyped-def]
            rng = np.random.default_rng(abs(hash((seed, tuple(policies)))))
            return rng.choice([-1.0, 0.5, 3.0, np.nan, np.inf], (len(policies), len(sequences)))

    statistics = toy_statistics(space) if known else ()
    added_UL = measure(Objective(space, Wild(space), Limits(), statistics=statistics), range(2))
    assert added_UL.shape == (len(space.units), space.n_levels_U.max())
    assert np.isfinite(added_UL).all()
    assert np.all(np.diff(added_UL, axis=1) >= 0)
    assert np.array_equal(added_UL[:, 0], np.zeros(len(space.units)))


def test_a_text_that_is_hard_for_the_dense_network_too_does_not_count() -> None:
    scorer = additive()
    scorer.common_S = scorer.common_S + 5.0
    added_UL = measure(Objective(scorer.space, scorer, Limits()), range(4))
    assert added_UL[:, 6] == pytest.approx(true_losses(scorer)[:, 6])


def test_they_cost_three_scores_a_unit_which_are_no_candidates() -> None:
    scorer = additive()
    objective = Objective(scorer.space, scorer, Limits())
    measure(objective, range(2))
    assert objective.spent.evals == len(probes(scorer.space, 3)) == 18
    assert objective.spent.tokens == 18 * 2 * scorer.tokens_per_sequence
    assert objective.archive() == []


def test_units_with_few_levels_are_asked_for_what_they_have() -> None:
    space = toy_space(units=2, levels=2)
    assert probes(space, 3) == [(0, 1), (1, 1)]


def test_limits_end_them() -> None:
    scorer = additive()
    with pytest.raises(LimitReached):
        measure(Objective(scorer.space, scorer, Limits(evals=17)), range(1))


# -- the best under their sum ----------------------------------------------------------------------------------------


def total(added_UL: Table, levels: Levels) -> float:
    return float(added_UL[np.arange(len(levels)), levels].sum())


def least(space: SearchSpace, added_UL: Table) -> float:
    """The optimum, by trying everything: all halves of policies with all others."""
    cost_MUL = np.array([space.costs[metric] for metric in space.budgets])
    bound_M = np.array(list(space.budgets.values())) * (1 + 1e-9)
    half = len(space.units) // 2
    sums = []
    for units in (range(half), range(half, len(space.units))):
        policies = np.array(list(itertools.product(*(range(space.n_levels_U[u]) for u in units))))
        columns = np.array(units)
        sums.append((cost_MUL[:, columns, policies].sum(axis=2), added_UL[columns, policies].sum(axis=1)))
    (first_MP, loss_P), (second_MQ, loss_Q) = sums
    sums_PQ = loss_P[:, None] + loss_Q
    for first_P, second_Q, bound in zip(first_MP, second_MQ, bound_M, strict=True):
        sums_PQ[first_P[:, None] + second_Q > bound] = np.inf
    return float(sums_PQ.min())


@pytest.mark.parametrize("latency", [None, 0.5, 0.8])
def test_the_additive_solution_is_on_average_within_2_percent_of_the_optimum(latency: float | None) -> None:
    gaps = []
    for seed, budget in itertools.product(range(6), (0.2, 0.35, 0.5, 0.65, 0.8)):
        space = toy_space(6, 11, budget, seed, latency)
        added_UL = true_losses(ToyScorer(space, seed))
        found = additive_solution(space, added_UL)
        assert space.feasible(found)
        assert space.repair(found) == found, "nothing is left over"
        assert total(added_UL, found) <= total(added_UL, space.uniform())
        optimum = least(space, added_UL)
        gaps.append((total(added_UL, found) - optimum) / optimum)
    assert min(gaps) >= -1e-9
    assert np.mean(gaps) < 0.02, gaps
    assert np.median(gaps) < 0.005, gaps


def test_a_budget_that_does_not_bind_changes_nothing() -> None:
    for seed in range(6):
        alone, loose = toy_space(8, 9, 0.4, seed), toy_space(8, 9, 0.4, seed, latency=0.99)
        added_UL = true_losses(ToyScorer(alone, seed))
        assert total(added_UL, additive_solution(loose, added_UL)) <= total(
            added_UL, additive_solution(alone, added_UL)
        )


@given(space=spaces(), seed=st.integers(0, 2**32 - 1))
def test_the_additive_solution_is_feasible_on_any_space(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps_UL = rng.choice([0.0, 0.1, 5.0], (len(space.units), int(space.n_levels_U.max())))
    added_UL = np.cumsum(steps_UL, axis=1)
    found = additive_solution(space, added_UL)
    space.check(found)
    assert space.feasible(found)


def test_where_everything_fits_nothing_is_cut() -> None:
    space = toy_space(units=4, budget=1.0)
    assert additive_solution(space, true_losses(ToyScorer(space))) == space.dense


def test_what_costs_nothing_in_quality_goes_first() -> None:
    space = toy_space(units=4, budget=0.5)
    added_UL = np.zeros((4, 5))
    added_UL[[0, 1]] = np.arange(5)
    found = additive_solution(space, added_UL)
    assert sum(found[:2]) < sum(found[2:])


def test_under_many_budgets_the_additive_solution_is_near_the_optimum() -> None:
    gaps, uniform = [], []
    for seed, more in itertools.product(range(4), (4, 11)):
        space = toy_space(20, 7, 0.5, seed, more=more)
        added_UL = true_losses(ToyScorer(space, seed))
        found, optimum = additive_solution(space, added_UL), total(added_UL, next(knapsack.solutions(space, added_UL)))
        assert space.feasible(found)
        gaps.append(total(added_UL, found) / optimum - 1)
        uniform.append(total(added_UL, space.uniform()) / optimum - 1)
    assert np.mean(gaps) < 0.05, gaps
    assert np.mean(uniform) > 0.5, uniform


def test_forty_budgets_take_a_few_mixes(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[int] = []
    solution = sensitivity._Prices.solution

    def counted(*args: Any) -> Any:
        solved.append(1)
        return solution(*args)

    monkeypatch.setattr(sensitivity._Prices, "solution", counted)
    for more in (2, 11, 39):
        space = toy_space(10, more=more)
        solved.clear()
        assert space.feasible(additive_solution(space, true_losses(ToyScorer(space))))
        assert len(solved) <= 37
