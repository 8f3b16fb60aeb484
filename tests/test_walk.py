"""The walk over the units: budgets hold however it goes, and the pace of a reference is kept, on random spaces."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autoprune.envs.walk import Walk
from autoprune.level import group_levels
from autoprune.space import Levels, SearchSpace, Unit
from autoprune.testing.toys import toy_space
from tests.test_space import spaces

seeds = st.integers(0, 2**32 - 1)


def kept_share(space: SearchSpace, levels: Levels) -> float:
    return float(np.mean([unit.levels[level].density for unit, level in zip(space.units, levels, strict=True)]))


def walked(space: SearchSpace, reference: Levels | None, actions_UN: np.ndarray, discrete: bool) -> Walk:
    """A walk to its end by actions for each unit and episode."""
    walk = Walk(space, actions_UN.shape[1], reference)
    for action_N in actions_UN:
        walk.set(walk.nearest_allowed(action_N) if discrete else walk.levels_at(walk.ratios(action_N)))
    return walk


# -- budgets ---------------------------------------------------------------------------------------------------------


@given(space=spaces(), seed=seeds, follow=st.booleans())
def test_any_sequence_of_allowed_levels_ends_within_the_budgets(space: SearchSpace, seed: int, follow: bool) -> None:
    rng = np.random.default_rng(seed)
    walk = Walk(space, 3, space.uniform() if follow else None)
    while not walk.done:
        allowed_NL = walk.allowed()
        assert allowed_NL.any(axis=1).all()
        assert not allowed_NL[:, space.n_levels_U[walk.unit] :].any(), "levels that the unit lacks"
        walk.set(np.array([rng.choice(np.nonzero(row)[0]) for row in allowed_NL]))
    for policy, levels_U in zip(walk.policies(), walk.levels_NU, strict=True):
        assert space.feasible(tuple(levels_U))
        assert space.feasible(policy)
        assert all(filled <= level for filled, level in zip(policy, levels_U, strict=True)), "only filled up"


@given(space=spaces(), seed=seeds, follow=st.booleans(), discrete=st.booleans())
def test_any_sequence_of_actions_ends_within_the_budgets(
    space: SearchSpace, seed: int, follow: bool, discrete: bool
) -> None:
    rng, shape = np.random.default_rng(seed), (len(space.units), 4)
    levels = int(space.n_levels_U.max())
    actions_UN = rng.integers(levels, size=shape) if discrete else rng.choice([-1, -0.3, 0, 0.7, 1], size=shape)
    walk = walked(space, space.sample(rng) if follow else None, actions_UN, discrete)
    assert all(space.feasible(tuple(levels_U)) for levels_U in walk.levels_NU)


@given(space=spaces(), seed=seeds)
def test_every_feasible_policy_can_be_walked(space: SearchSpace, seed: int) -> None:
    policy = space.sample(np.random.default_rng(seed))
    walk = Walk(space)
    for level in policy:
        assert walk.allowed()[0, level]
        assert walk.nearest_allowed(np.array([level])) == level
        walk.set(np.array([level]))
    assert walk.policies() == [policy], "a sample has nothing left to be filled up"


@given(space=spaces(), seed=seeds)
def test_every_level_can_be_chosen_by_a_ratio(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy, reference = space.sample(rng), space.sample(rng)
    for followed in (None, reference):
        walk = Walk(space, 401, followed)
        for level in policy:
            reached = set(walk.levels_at(walk.ratios(np.linspace(-1, 1, 401))))
            assert reached == set(np.nonzero(walk.allowed()[0])[0])
            walk.set(np.full(401, level))


@given(space=spaces(), seed=seeds)
def test_every_allowed_level_near_the_pace_has_an_action(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    walk = Walk(space, 2, space.sample(rng))
    while not walk.done:
        masks_NL, allowed_NL = walk.action_masks(), walk.allowed()
        assert masks_NL[:, walk.n_levels // 2].all(), "the middle one keeps the pace"
        pace_N = walk.levels_at(walk.ratios(np.zeros(2)))
        for i in range(2):
            reach = range(pace_N[i] - walk.n_levels // 2, pace_N[i] + (walk.n_levels + 1) // 2)
            expected = [level in range(walk.n_levels) and bool(allowed_NL[i, level]) for level in reach]
            assert masks_NL[i].tolist() == expected
        walk.set(np.array([rng.choice(np.nonzero(row)[0]) for row in allowed_NL]))


# -- ratios ----------------------------------------------------------------------------------------------------------


@given(space=spaces(), seed=seeds, follow=st.booleans())
def test_ratios_and_levels_never_fall_as_the_action_rises(space: SearchSpace, seed: int, follow: bool) -> None:
    rng = np.random.default_rng(seed)
    walk = Walk(space, 41, space.sample(rng) if follow else None)
    action_N = np.linspace(-1, 1, 41)
    for _ in space.units:
        ratio_N = walk.ratios(action_N)
        assert np.all(np.diff(ratio_N) >= -1e-12)
        assert ratio_N[[0, -1]] == pytest.approx([0, 1])
        assert np.all(np.diff(walk.levels_at(ratio_N)) <= 0), "a higher ratio keeps no less"
        walk.set(np.full(41, rng.choice(np.nonzero(walk.allowed()[0])[0])))


@given(action=st.floats(-1, 1))
def test_without_a_reference_an_action_is_a_ratio_plainly(action: float) -> None:
    walk = Walk(toy_space())
    for _ in range(10):
        assert walk.ratios(np.array([action])) == pytest.approx((action + 1) / 2)
        walk.set(np.array([2]))


def test_the_nearest_level_is_taken_and_then_the_nearest_allowed() -> None:
    space = toy_space(units=2, budget=0.5)  # kept 1, 3/4, 1/2, 1/4, 0
    walk = Walk(space, 5)
    assert walk.levels_at(np.array([1.0, 0.7, 0.45, 0.1, 0.0])).tolist() == [0, 1, 2, 4, 4]
    walk.set(np.zeros(5, dtype=np.int64))
    densest = int(np.nonzero(walk.allowed()[0])[0][0])
    assert densest > 0
    assert walk.levels_at(np.full(5, 1.0)).tolist() == [densest] * 5


# -- the pace of a reference -----------------------------------------------------------------------------------------


@given(space=spaces(), seed=seeds)
def test_the_neutral_action_follows_a_reference_that_spends_its_budget_exactly(space: SearchSpace, seed: int) -> None:
    reference = space.sample(np.random.default_rng(seed))
    budgets = {metric: space.cost(reference, metric) for metric in space.budgets}
    costs = {
        metric: [row[: len(unit.levels)].tolist() for row, unit in zip(space.costs[metric], space.units, strict=True)]
        for metric in budgets
    }
    exact = SearchSpace(space.units, costs, budgets)
    assume(exact.feasible(reference))
    for discrete in (False, True):
        action = int(space.n_levels_U.max()) // 2 if discrete else 0
        walk = walked(exact, reference, np.full((len(space.units), 1), action), discrete)
        for metric in budgets:
            assert exact.cost(walk.policies()[0], metric) == pytest.approx(budgets[metric], rel=1e-6, abs=1e-6)


@settings(max_examples=50)
@given(
    units=st.integers(8, 30), levels=st.integers(5, 9), budget=st.floats(0.1, 0.9), seed=seeds, latency=st.booleans()
)
def test_the_neutral_action_stays_close_to_the_references_cost(
    units: int, levels: int, budget: float, seed: int, latency: bool
) -> None:
    space = toy_space(units, levels, budget, seed % 1000, budget if latency else None)
    reference = space.sample(np.random.default_rng(seed))
    assert space.feasible(reference)
    for discrete in (False, True):
        action = space.n_levels_U.max() // 2 if discrete else 0.0
        (policy,) = walked(space, reference, np.full((units, 1), action), discrete).policies()
        assert space.feasible(policy)
        for metric in space.budgets:
            dense = space.cost(space.dense, metric)
            assert abs(space.cost(policy, metric) - space.cost(reference, metric)) < 0.1 * dense


@pytest.mark.parametrize(("first", "more"), [(0, False), (4, True)])
def test_what_one_unit_takes_or_leaves_is_shared_by_all_that_follow(first: int, more: bool) -> None:
    space = toy_space(units=12, levels=41, budget=0.5)
    walk = Walk(space, 1, space.uniform())
    walk.set(np.array([first * 10]))
    kept = []
    while not walk.done:
        ratio_N = walk.ratios(np.zeros(1))
        kept.append(float(ratio_N[0]))
        walk.set(walk.levels_at(ratio_N))
    assert all((share > 0.5) == more for share in kept)
    assert max(kept) - min(kept) < 0.05, "none takes much more of it than another"


@pytest.mark.parametrize("first", [0, 1, 4])
def test_the_pace_scales_what_the_reference_keeps_or_drops_of_all_units_to_come(first: int) -> None:
    """At that scale they would end on the budget exactly: a unit that is kept whole cannot take any more."""
    space = toy_space(units=6, budget=0.5)
    reference = (1, 0, 3, 2, 4, 2)
    cost_UL = space.costs["params"]
    walk = Walk(space, 1, reference)
    walk.set(np.array([first]))
    share_U = 1 - np.array(reference)[1:] / 4
    left, planned = space.budgets["params"] - cost_UL[0, first], cost_UL[1:, 0] @ share_U
    if left < planned:
        pace_U = share_U * left / planned
    else:
        pace_U = share_U + (1 - share_U) * (left - planned) / (cost_UL[1:, 0].sum() - planned)
    assert cost_UL[1:, 0] @ pace_U == pytest.approx(left)
    for u in range(1, 6):
        alone = SearchSpace([space.units[0], *space.units[u:], *space.units[1:u]], {"params": [
            cost_UL[v].tolist() for v in (0, *range(u, 6), *range(1, u))]}, space.budgets)  # fmt: skip
        turned = Walk(alone, 1, (reference[0], *reference[u:], *reference[1:u]))
        turned.set(np.array([first]))
        assert turned.ratios(np.zeros(1)) == pytest.approx(pace_U[u - 1], abs=1e-6)


def test_a_metric_of_other_units_does_not_slow_the_pace() -> None:
    """The last unit costs nothing in a budget that is spent to its last bit: rounding must not drop the unit."""
    units = [Unit(f"{u}.mlp", "mlp", u, 3, group_levels(3, (3, 2, 1, 0)), 1) for u in range(4)]
    energy = [[0.3, 0.2, 0.1, 0.0]] * 3 + [[0.0] * 4]
    params = [[3.0, 2.0, 1.0, 0.0]] * 4
    space = SearchSpace(units, {"energy": energy, "params": params}, {"energy": 0.3, "params": 9.0})
    reference = (2, 2, 2, 0)
    assert space.feasible(reference)
    walk = walked(space, reference, np.zeros((4, 1)), discrete=False)
    assert walk.levels_NU.tolist() == [list(reference)]


# -- many at once, and what is seen ----------------------------------------------------------------------------------


@given(space=spaces(), seed=seeds, follow=st.booleans())
def test_episodes_do_not_see_each_other(space: SearchSpace, seed: int, follow: bool) -> None:
    rng = np.random.default_rng(seed)
    reference = space.sample(rng) if follow else None
    actions_UN = rng.uniform(-1, 1, (len(space.units), 3))
    together = walked(space, reference, actions_UN, discrete=False)
    for i in range(3):
        alone = walked(space, reference, actions_UN[:, [i]], discrete=False)
        assert np.array_equal(alone.levels_NU[0], together.levels_NU[i])


def test_room_is_what_the_present_unit_may_use() -> None:
    space = toy_space(units=6, budget=0.4, latency=0.5)
    walk = Walk(space)
    rng = np.random.default_rng(0)
    while not walk.done:
        room_M, u = walk.room()[0], walk.unit
        for level in range(5):
            uses_M = walk.cost_MUL[:, u, level] / walk.bound_M
            assert walk.allowed()[0, level] == bool(np.all(uses_M <= room_M + 1e-9)), (u, level)
        walk.set(np.array([rng.choice(np.nonzero(walk.allowed()[0])[0])]))


def test_a_walk_can_be_begun_anew() -> None:
    space = toy_space(units=3)
    walk = Walk(space, 2, space.uniform())
    before = walk.allowed(), walk.ratios(np.zeros(2))
    while not walk.done:
        walk.set(np.array([0, 4]) if walk.step == 0 else np.array([4, 4]))
    assert walk.unit == 2
    walk.reset()
    assert (walk.step, walk.done, walk.policies()) == (0, False, [(0, 0, 0)] * 2)
    assert np.array_equal(walk.allowed(), before[0])
    assert np.array_equal(walk.ratios(np.zeros(2)), before[1])
