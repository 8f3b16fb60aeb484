"""The budget arithmetic: exact, maximal and seeded, on random spaces."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.envs import sensitivity
from autoprune.envs.walk import Walk
from autoprune.errors import UserError
from autoprune.level import group_levels
from autoprune.space import SearchSpace, Unit, kept_groups
from autoprune.testing.toys import counts, toy_space


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Random units with one or two random non-increasing metrics and reachable budgets."""
    n_levels = draw(st.lists(st.integers(2, 6), min_size=2, max_size=8))
    metrics = draw(st.sampled_from([["params"], ["params", "latency"]]))
    units = [
        Unit(f"{u}.mlp", "mlp", u, n - 1, group_levels(n - 1, tuple(range(n - 1, -1, -1))), 1)
        for u, n in enumerate(n_levels)
    ]
    costs, budgets = {}, {}
    for metric in metrics:
        whole = metric == "params"
        number = st.integers(0, 1000) if whole else st.floats(0, 10, allow_subnormal=False)
        rows = [sorted(draw(st.lists(number, min_size=n, max_size=n)), reverse=True) for n in n_levels]
        costs[metric] = rows
        low, high = sum(row[-1] for row in rows), sum(row[0] for row in rows)
        budgets[metric] = low + draw(st.floats(0, 1)) * (high - low)
    return SearchSpace(units, costs, budgets)


@given(spaces(), st.integers(0, 2**32 - 1), st.booleans())
def test_repair_is_feasible_maximal_and_leaves_maximal_proposals_alone(
    space: SearchSpace, seed: int, ordered: bool
) -> None:
    rng = np.random.default_rng(seed)
    proposal = tuple(int(level) for level in rng.integers(space.n_levels_U))
    repaired = space.repair(proposal, None if ordered else rng)
    assert space.feasible(repaired)
    for u, level in enumerate(repaired):
        if level > 0:
            denser = (*repaired[:u], level - 1, *repaired[u + 1 :])
            assert not space.feasible(denser), "the budget is not filled up"
    assert space.repair(repaired, rng) == repaired


@given(spaces(), st.integers(0, 2**32 - 1), st.data())
def test_mutants_leave_the_first_units_alone(space: SearchSpace, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    parent, first = space.sample(rng), data.draw(st.integers(0, len(space.units) - 2))
    mutant = space.mutate(parent, rng, 2, first)
    assert space.feasible(mutant)
    # what a thinned unit leaves of the budgets may let one before it be denser, and nothing makes it sparser
    assert all(m <= p for m, p in zip(mutant[:first], parent[:first], strict=True))


@given(spaces(), st.integers(0, 2**32 - 1))
def test_repair_keeps_a_feasible_proposal_or_makes_it_denser(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    proposal = tuple(int(level) for level in rng.integers(space.n_levels_U))
    if space.feasible(proposal):
        assert all(r <= p for r, p in zip(space.repair(proposal, rng), proposal, strict=True))


@given(spaces(), st.integers(0, 2**32 - 1))
def test_every_operator_stays_within_the_budgets(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mother, father = space.sample(rng), space.sample(rng)
    for policy in (mother, father, space.uniform(), space.mutate(mother, rng, 3), space.crossover(mother, father, rng)):
        space.check(policy)
        assert space.feasible(policy)


def test_operators_are_seeded() -> None:
    space = toy_space()

    def draw(seed: int) -> list[tuple[int, ...]]:
        rng = np.random.default_rng(seed)
        start = space.sample(rng)
        return [start, space.mutate(start, rng, 2), space.crossover(start, space.uniform(), rng)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_an_impossible_budget_names_the_smallest_reachable_value() -> None:
    units = [Unit("0.mlp", "mlp", 0, 4, group_levels(4, (4, 1)), 25)]
    with pytest.raises(UserError, match=r"params=10 .* smallest reachable value is 25 \(25% of dense, 100\)"):
        SearchSpace(units, {"params": [[100, 25]]}, {"params": 10})


@pytest.mark.parametrize(
    ("row", "word"), [([1.0, 2.0], "may not cost more"), ([1.0, -1.0], ">= 0"), ([1.0, np.nan], ">= 0")]
)
def test_a_metric_that_makes_no_sense_is_refused(row: list[float], word: str) -> None:
    with pytest.raises(UserError, match=word):
        SearchSpace([Unit("0.mlp", "mlp", 0, 1, group_levels(1, (1, 0)), 1)], {"mine": [row]}, {"mine": 1.0})


def test_uniform_is_half_of_everything_where_half_exists() -> None:
    space = toy_space(levels=5, budget=0.5)
    assert space.uniform() == (2,) * len(space.units)


@given(st.integers(1, 5000), st.integers(2, 17), st.integers(1, 64))
def test_kept_groups_start_dense_and_fall(groups: int, levels: int, round_to: int) -> None:
    kept = [level.kept for level in kept_groups(groups, [1 - i / (levels - 1) for i in range(levels)], round_to)]
    assert kept[0] == groups
    assert kept[-1] == 0
    assert all(a > b for a, b in itertools.pairwise(kept))
    assert all(k % round_to == 0 or k == groups for k in kept)


@pytest.mark.parametrize(
    ("groups", "bundle", "kept"),
    [(9, 3, (9, 6, 3, 2, 1, 0)), (8, 8, (8, 7, 6, 5, 4, 3, 2, 1, 0)), (32, 4, (32, 28, 24, 20, 16, 12, 8, 4, 0))],
)
def test_levels_keep_whole_bundles_or_some_groups_of_one(groups: int, bundle: int, kept: tuple[int, ...]) -> None:
    """SmolLM2-135M; a network with one KV group; one whose KV groups alone give every level."""
    assert kept_groups(groups, [i / 8 for i in range(9)], bundle=bundle) == group_levels(groups, kept)


@given(st.integers(1, 12), st.integers(1, 12), st.lists(st.floats(0, 1)))
def test_levels_leave_bundles_of_one_size(bundles: int, bundle: int, fractions: list[float]) -> None:
    kept = [level.kept for level in kept_groups(bundles * bundle, fractions, bundle=bundle)]
    assert kept[0] == bundles * bundle
    assert all(k < bundle or k % bundle == 0 for k in kept)
    nearest = [min(abs(k - fraction * bundles * bundle) for k in kept) for fraction in fractions]
    assert all(off <= bundle / 2 + 1e-9 for off in nearest)


@st.composite
def networks(draw: st.DrawFn) -> tuple[SearchSpace, float]:
    """Kinds of units that are alike in every block, and one budget of parameters: the space and the budgeted share."""
    blocks, share = draw(st.integers(1, 12)), draw(st.floats(0, 1))
    last = draw(st.integers(1, 8))
    fractions = [1 - i / last for i in range(last + 1)]
    shapes = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 900)), min_size=1, max_size=3))
    units = [
        Unit(f"{b}.kind{k}", f"kind{k}", b, groups, kept_groups(groups, fractions), params)
        for b in range(blocks)
        for k, (groups, params) in enumerate(shapes)
    ]
    rows = [[unit.params(kept) for kept in counts(unit)] for unit in units]
    return SearchSpace(units, {"params": rows}, {"params": share * sum(row[0] for row in rows)}), share


@given(networks())
def test_uniform_keeps_the_budgets_share_of_every_kind(network: tuple[SearchSpace, float]) -> None:
    space, share = network
    kinds = {unit.kind: [u for u, one in enumerate(space.units) if one.kind == unit.kind] for unit in space.units}
    uniform = space.uniform()
    kept, mean, cost, rounding = space.kept(uniform), {}, {}, {}
    for kind, members in kinds.items():
        one = space.units[members[0]]
        mean[kind] = sum(kept[u] for u in members) / one.groups / len(members)
        cost[kind] = one.params(one.groups) * len(members)
        # one unit of the kind may round the other way: the share that moves
        rounding[kind] = max(a - b for a, b in itertools.pairwise(counts(one))) / one.groups / len(members)
    for kind in kinds:
        allowed = (rounding[kind] + max(rounding.values())) / 2 + 1e-6
        assert mean[kind] >= share - allowed
        excess = max(0.0, mean[kind] - share - allowed)
        step = max(rounding[other] * cost[other] for other in kinds)
        assert excess * cost[kind] <= step, "more than what the last step that did not fit has left"


@given(spaces())
def test_uniform_is_feasible_maximal_and_the_same_for_equal_spaces(space: SearchSpace) -> None:
    uniform = space.uniform()
    assert space.feasible(uniform)
    assert space.repair(uniform) == uniform, "the budget is not filled up"
    assert space.rebudgeted(space.budgets).uniform() == uniform


@pytest.mark.parametrize(("heads", "blocks"), [(3, 30), (1, 18)])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_uniform_is_uniform_where_a_kind_has_few_groups(heads: int, blocks: int, share: float) -> None:
    """The attentions of SmolLM2, and those of a network with one group of keys and values."""
    fractions = [i / 8 for i in range(9)]
    units = [
        Unit(f"{b}.{kind}", kind, b, groups, kept_groups(groups, fractions), params)
        for b in range(blocks)
        for kind, groups, params in (("attention", heads, 294_912), ("mlp", 1536, 1728))
    ]
    rows = [[unit.params(kept) for kept in counts(unit)] for unit in units]
    space = SearchSpace(units, {"params": rows}, {"params": share * sum(row[0] for row in rows)})
    kept = space.kept(space.uniform())
    assert sum(kept[::2]) == pytest.approx(share * heads * blocks, abs=1)
    assert sum(kept[1::2]) == pytest.approx(share * 1536 * blocks, abs=192)
    half = sum(kept[::2][: blocks // 2])
    assert half == pytest.approx(share * heads * blocks / 2, abs=2), "spread over the depth"


def test_uniform_spends_what_it_can_evenly() -> None:
    space = toy_space(units=8, levels=2, budget=0.5)  # keep or drop: no common fraction but 0 fits
    kept = [1 - level for level in space.uniform()]
    assert 3 <= sum(kept) <= 5
    assert 1 <= sum(kept[:4]) <= 3, "spread over the depth"


# -- what is paid whatever the policy --------------------------------------------------------------------------------


@given(st.integers(0, 50), st.floats(0.2, 0.95), st.floats(0, 500), st.booleans())
def test_what_is_fixed_is_in_totals_and_budgets_and_changes_no_choice(
    seed: int, budget: float, fixed: float, two: bool
) -> None:
    plain = toy_space(6, 4, budget, seed, latency=0.6 if two else None)
    fixed_costs = {metric: fixed * (1 + m) for m, metric in enumerate(plain.costs)}
    budgets = {metric: bound + fixed_costs[metric] for metric, bound in plain.budgets.items()}
    costs = {metric: plain.rows(metric) for metric in plain.costs}
    group_costs = {metric: [row.tolist() for row in rows] for metric, rows in plain.group_costs.items()}
    space = SearchSpace(plain.units, costs, budgets, group_costs, fixed_costs)
    rng = np.random.default_rng(seed)
    for metric in space.costs:
        assert space.cost(space.dense, metric) == pytest.approx(plain.cost(plain.dense, metric) + fixed_costs[metric])
        assert space.cost(space.dense, metric) == pytest.approx(space.cost_of_counts(space.groups, metric))
        assert space.bounds[metric] == pytest.approx(plain.budgets[metric])
    assert space.uniform() == plain.uniform()
    added_UL = rng.exponential(size=(6, 4)).cumsum(axis=1)
    assert sensitivity.additive_solution(space, added_UL) == sensitivity.additive_solution(plain, added_UL)
    walk, walked = Walk(space), Walk(plain)
    for _ in range(6):
        proposal = tuple(int(level) for level in rng.integers(space.n_levels_U))
        assert space.repair(proposal) == plain.repair(proposal)
        assert space.thinned(proposal) == plain.thinned(proposal)
        assert space.feasible(proposal) == plain.feasible(proposal)
        assert space.counts_fit(space.kept(proposal)) == plain.counts_fit(plain.kept(proposal))
        assert np.array_equal(walk.allowed(), walked.allowed())
        for one in (walk, walked):
            one.set(one.allowed().argmax(axis=1))
    again = space.rebudgeted({metric: bound * 0.9 + fixed_costs[metric] for metric, bound in plain.budgets.items()})
    assert again.fixed == space.fixed


def test_a_budget_below_what_is_fixed_cannot_be_met() -> None:
    units = [Unit("0.mlp", "mlp", 0, 4, group_levels(4, (4, 1)), 25)]
    seen = r"latency=10 ms \(7.69% of dense\) cannot .* smallest reachable value is 31 ms \(23.8% of dense, 130 ms\)"
    with pytest.raises(UserError, match=seen):
        SearchSpace(units, {"latency": [[100, 1]]}, {"latency": 10}, None, {"latency": 30}, {"latency": "ms"})
    assert SearchSpace(units, {"latency": [[100, 1]]}, {"latency": 31}, None, {"latency": 30}).uniform() == (1,)
