"""Spaces whose levels are of several forms: costs that rise where density falls, and what repairs make of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.forms import ChosenForm, check_forms, chosen_forms, ordered
from autoprune.level import Level, group_levels
from autoprune.space import SearchSpace, Unit
from autoprune.steps import rises
from tests.mixed_space import mixed_space, single

# -- the setting -----------------------------------------------------------------------------------------------------


def test_forms_are_names_with_arguments() -> None:
    assert load_config().forms == "groups"
    assert load_config(overrides={"forms": ["groups", " groups:x"]}).forms == "groups,groups:x"
    assert chosen_forms("groups,a.py:B,a.b:C:4/3") == [
        ChosenForm("groups"),
        ChosenForm("a.py:B"),
        ChosenForm("a.b:C", "4/3"),
    ]
    with pytest.raises(UserError, match="the form 'groups' is named twice"):
        load_config(overrides={"forms": "groups,groups"})
    with pytest.raises(UserError, match="no form is named"):
        load_config(overrides={"forms": ","})
    with pytest.raises(UserError, match=r"no form is called 'group'\. Did you mean 'groups'"):
        check_forms("group")
    with pytest.raises(UserError, match="argument 'x', and it takes none"):
        check_forms("groups:x")


def test_levels_of_all_forms_are_ordered_by_density_behind_the_dense_one() -> None:
    levels = [single(8, 0.3), *group_levels(8, (8, 4, 0)), single(8, 0.6), single(8, 0.3), single(8, 1.0)]
    assert ordered(levels, 8) == (
        Level(8, 1.0), single(8, 1.0), single(8, 0.6), Level(4, 0.5), single(8, 0.3), Level(0, 0.0),
    )  # fmt: skip
    with pytest.raises(UserError, match="two forms give the level"):
        ordered([Level(8, 0.3, "a"), Level(8, 0.2, "a")], 8)


# -- costs -----------------------------------------------------------------------------------------------------------


def test_only_a_denser_level_of_the_same_form_may_not_cost_less() -> None:
    levels = (Level(4, 1.0), single(4, 0.6), Level(2, 0.5), single(4, 0.3), Level(0, 0.0))
    assert rises(levels, [4, 4, 2, 4, 0]) is None
    assert rises(levels, [4, 3, 2, 3.5, 0]) == (1, 3)
    assert rises(levels, [4, 3, 5, 3, 0]) == (0, 2)
    with pytest.raises(UserError, match="a level may not cost more than a denser one of its form"):
        SearchSpace([Unit("0.mlp", "mlp", 0, 4, levels, 10)], {"params": [[4, 3, 2, 3.5, 0]]}, {"params": 2})


def test_the_least_level_is_the_cheapest_and_not_always_the_last() -> None:
    levels = (Level(4, 1.0), single(4, 0.6), Level(2, 0.5), single(4, 0.3))
    space = SearchSpace([Unit("0.mlp", "mlp", 0, 4, levels, 10)], {"latency": [[4, 4, 2, 4]]}, {"latency": 3})
    assert space.sparsest == (2,)
    assert space.repair((3,)) == (2,)
    assert space.repair((1,)) == (2,)
    assert space.uniform() == (2,)
    assert (space.steps.thinner(0, 0), space.steps.thinner(0, 3), space.steps.thinner(0, 2)) == (2, 2, None)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([("params",), ("latency",), ("params", "latency")]))
def test_what_is_proposed_on_a_mixed_space_is_within_its_budgets_and_maximal(
    seed: int, metrics: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(seed)
    space = mixed_space(seed % 7, budgets=dict.fromkeys(metrics, 0.55))
    parent = space.sample(rng)
    found = [parent, space.uniform(), space.mutate(parent, rng, 2), space.crossover(parent, space.sample(rng), rng)]
    found.append(space.thinned(space.dense, rng))
    assert all(space.feasible(levels) for levels in [*found, space.sparsest])
    for u, level in enumerate(parent):
        for denser in range(level):
            assert not space.feasible((*parent[:u], denser, *parent[u + 1 :])), (u, denser)


def test_a_budget_that_no_mix_of_levels_meets_is_told() -> None:
    with pytest.raises(UserError, match="cannot be met"):
        mixed_space(0, budgets={"latency": 0.05})
