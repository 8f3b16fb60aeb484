"""Increments: slopes around several policies become one table, whatever of it is unknown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.agents.increments import OVERSHOT, Increments
from autoprune.level import group_levels
from autoprune.space import SearchSpace, Unit
from autoprune.testing.toys import counts, toy_space

NAN = np.nan


def ragged_space() -> SearchSpace:
    """Units of five, three and one levels."""
    kept = [(8, 6, 4, 2, 0), (8, 4, 0), (8,)]
    units = [
        Unit(f"{i}.mlp", "mlp", i, 8, group_levels(8, levels), group_params=10, group_macs=10)
        for i, levels in enumerate(kept)
    ]
    return SearchSpace(units, {"params": [[10.0 * k for k in counts(unit)] for unit in units]}, {"params": 200.0})


@given(st.integers(0, 2**32 - 1))
def test_exact_changes_around_some_policies_tell_those_around_others(seed: int) -> None:
    space, rng = toy_space(units=5, levels=6), np.random.default_rng(seed)
    added_UL = np.cumsum(rng.random((5, 6)), axis=1)
    increments = Increments(space)
    policies = [tuple(int(level) for level in rng.integers(0, 6, 5)) for _ in range(3)]
    for policy in policies:
        increments.add(added_UL - added_UL[np.arange(5), list(policy)][:, None], 2)
    for policy in (policies[0], (0,) * 5, (5,) * 5):
        expected_UL = added_UL - added_UL[np.arange(5), list(policy)][:, None]
        assert increments.around(policy) == pytest.approx(expected_UL)
    assert increments.table() == pytest.approx(OVERSHOT * (added_UL - added_UL[:, :1]))


def test_more_sequences_weigh_more() -> None:
    space = toy_space(units=2, levels=3)
    increments = Increments(space)
    increments.add(np.array([[0.0, 1.0, 2.0]] * 2), 1)
    increments.add(np.array([[0.0, 4.0, 8.0]] * 2), 2)
    assert increments.around((0, 1)) == pytest.approx(np.array([[0.0, 3.0, 6.0], [-3.0, 0.0, 3.0]]))


def test_what_is_unknown_stays_so_for_steps_and_is_as_its_neighbours_for_the_model() -> None:
    """Beyond the reach, behind a network that overflowed, beyond a unit's last level, and in a unit of one level."""
    increments = Increments(ragged_space())
    increments.add(np.array([[NAN, -2.0, 0.0, NAN, 9.0], [-1.0, 0.0, 3.0, NAN, NAN], [0.0, NAN, NAN, NAN, NAN]]), 1)
    assert increments.around((2, 1, 0)) == pytest.approx(
        np.array([[NAN, -2.0, 0.0, NAN, NAN], [-1.0, 0.0, 3.0, NAN, NAN], [0.0, NAN, NAN, NAN, NAN]]), nan_ok=True
    )
    table_UL = increments.table() / OVERSHOT
    assert table_UL == pytest.approx(np.array([[0, 2, 4, 6, 8], [0, 1, 4, 4, 4], [0.0] * 5]))


def test_slopes_that_fall_with_what_is_removed_add_nothing() -> None:
    increments = Increments(toy_space(units=2, levels=3))
    increments.add(np.array([[0.0, -1.0, -3.0], [0.0, 1.0, 0.5]]), 1)
    assert increments.table() / OVERSHOT == pytest.approx(np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
