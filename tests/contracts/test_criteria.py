"""What holds for every registered criterion, and what optimal brain surgeon promises beyond."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoprune import registry
from autoprune.levels.criterion import damped, order_of, reconstruct
from autoprune.testing import check_criterion
from autoprune.testing.levels import consumer

CRITERIA = registry.names("criteria")


def error(weight_OD: Tensor, new_OK: Tensor, kept: Tensor, moments_DD: Tensor) -> float:
    """E |W x - W_K x_K|^2."""
    difference_OD = weight_OD.double().clone()
    difference_OD[:, kept] -= new_OK.double()
    return float((difference_OD @ moments_DD * difference_OD).sum())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_contract_of_criteria(criterion: str) -> None:
    check_criterion(criterion)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 3), st.data())
def test_reconstruction_is_never_worse_than_plain_removal(
    seed: int, groups: int, size: int, data: st.DataObject
) -> None:
    weight_OD, moments_DD = consumer(seed, groups, size)
    kept = torch.tensor(sorted(data.draw(st.sets(st.integers(0, groups * size - 1), min_size=1))))
    rebuilt = error(weight_OD, reconstruct(weight_OD, moments_DD, kept), kept, moments_DD)
    plain = error(weight_OD, weight_OD[:, kept], kept, moments_DD)
    assert rebuilt <= plain * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("size", [1, 3])
def test_obs_eliminates_the_group_whose_exact_removal_costs_least_at_every_step(size: int) -> None:
    groups = 6
    weight_OD, moments_DD = consumer(2, groups, size)
    order = registry.load("criteria", "obs")().order(weight_OD, moments_DD, groups).tolist()
    h_DD = damped(moments_DD)
    alive = list(range(groups))
    for leaving in reversed(order[1:]):
        costs = {g: _least_squares_error(weight_OD, h_DD, [a for a in alive if a != g], size) for g in alive}
        assert costs[leaving] == pytest.approx(min(costs.values()), rel=1e-6)
        alive.remove(leaving)


def _least_squares_error(weight_OD: Tensor, h_DD: Tensor, groups: list[int], size: int) -> float:
    kept = torch.tensor([g * size + i for g, i in itertools.product(groups, range(size))])
    w_OD = weight_OD.double()
    best_OK = torch.linalg.solve(h_DD[kept][:, kept], w_OD @ h_DD[:, kept], left=False)
    return error(weight_OD, best_OK, kept, h_DD)


def test_obs_finds_the_copy_that_magnitude_cannot_see() -> None:
    """Two inputs are equal and heavy: one of them is free to remove once the other takes over its weight."""
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    x_ND[:, 1] = x_ND[:, 0]
    weight_OD = torch.tensor([[5.0, 5.0, 1.0, 1.0], [4.0, 6.0, 1.0, -1.0]])
    moments_DD = x_ND.T @ x_ND / 500
    assert registry.load("criteria", "obs")().order(weight_OD, moments_DD, 4)[-1] in (0, 1)
    assert registry.load("criteria", "magnitude")().order(weight_OD, moments_DD, 4)[-1] in (2, 3)
    kept = torch.tensor([0, 2, 3])
    rebuilt_OK = reconstruct(weight_OD, moments_DD, kept)
    assert torch.allclose(rebuilt_OK[:, 0], torch.tensor([10.0, 10.0]), atol=0.3)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_bundles_leave_whole_until_one_is_left(criterion: str) -> None:
    """12 groups in 4 bundles: the bundles as they are ordered by themselves, and groups inside the first as alone."""
    part = registry.load("criteria", criterion)()
    if "scales_C" in getattr(part, "needs", ()):
        pytest.skip("channels share nothing")
    weight_OD, moments_DD = consumer(4, groups=12, size=2)
    generator = torch.Generator().manual_seed(3)
    gradients_NG = torch.randn(50, 12, generator=generator, dtype=torch.float64)
    evidence = {"gradients_NG": gradients_NG} if getattr(part, "needs", ()) else {}
    of_bundles = {name: tensor.view(50, 4, 3).sum(2) for name, tensor in evidence.items()}
    bundles = part.order(weight_OD, moments_DD, 4, **of_bundles).tolist()
    order = order_of(part, weight_OD, moments_DD, 12, 3, evidence).tolist()
    assert [group // 3 for group in order[::3]] == bundles
    assert sorted(order) == list(range(12))
    assert all(
        {g // 3 for g in order[i : i + 3]} == {bundle} for i, bundle in zip(range(0, 12, 3), bundles, strict=True)
    )
    inputs = torch.arange(6) + 6 * bundles[0]
    alone = reconstruct(weight_OD, moments_DD, inputs) if part.reconstructs else weight_OD[:, inputs]
    of_first = {name: tensor[:, 3 * bundles[0] :][:, :3] for name, tensor in evidence.items()}
    within = part.order(alone, moments_DD[inputs][:, inputs], 3, **of_first)
    assert order[:3] == (3 * bundles[0] + within).tolist()
