"""Layer statistics: numbers that are known for known weights and moments, and stored with the levels."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.cutting.live import LiveWidth
from autoprune.cutting.widths import Slice, Width
from autoprune.errors import UserError
from autoprune.level import group_levels
from autoprune.levels.criterion import reconstruct
from autoprune.levels.measure_unit import measure
from autoprune.levels.store import LevelStore
from autoprune.space import Unit
from autoprune.unit_statistics import UnitStatistics

GROUPS, SIZE = 6, 2
INPUTS, OUTPUTS = GROUPS * SIZE, 5


class Block(nn.Module):
    """A producer and a consumer of twelve neurons in groups of two; `transposed` keeps weights as GPT-2 does."""

    def __init__(self, producer: Tensor, consumer: Tensor, transposed: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(1, 1), nn.Linear(1, 1)
        self.up.weight = nn.Parameter(producer.T.contiguous() if transposed else producer)
        self.down.weight = nn.Parameter(consumer.T.contiguous() if transposed else consumer)


def statistics_of(
    consumer: Tensor,
    h_DD: Tensor | None = None,
    producer: Tensor | None = None,
    kept: tuple[int, ...] = (GROUPS, 4, 1, 0),
    order: list[int] | None = None,
    rebuilt: bool = False,
    transposed: bool = False,
) -> UnitStatistics:
    """Statistics of a block with these weights; moments are the identity's unless given."""
    h_DD = torch.eye(INPUTS) if h_DD is None else h_DD
    producer = torch.zeros(INPUTS, 3) if producer is None else producer
    producers, dim = (Slice("up", SIZE, 1 if transposed else 0),), 0 if transposed else 1
    width = Width("mlp", GROUPS, producers, Slice("down", SIZE, dim), {})
    live = LiveWidth(Block(producer, consumer, transposed), width)
    assert torch.equal(live.consumer_weight, consumer)
    levels = {"order": torch.tensor(order or range(GROUPS))}
    if rebuilt:
        for level, count in enumerate(kept):
            if 0 < count < GROUPS:
                new_OK = reconstruct(consumer, h_DD, inputs_of(levels["order"], count))
                levels[f"level.{level}"] = new_OK.T.contiguous() if transposed else new_OK
    return measure(Unit("0.mlp", "mlp", 0, GROUPS, group_levels(GROUPS, kept), 1), live, h_DD, levels)


def inputs_of(order_G: Tensor, count: int) -> Tensor:
    return torch.cat([torch.arange(SIZE) + SIZE * int(group) for group in order_G[:count]])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- weights and inputs ----------------------------------------------------------------------------------------------


def test_the_kurtosis_of_normal_weights_is_3_and_of_two_values_1() -> None:
    producer = noise(INPUTS, 20_000)
    assert statistics_of(noise(OUTPUTS, INPUTS), producer=producer).weight_kurtosis == pytest.approx(3, abs=0.05)
    signs = torch.tensor([1.0, -1.0]).repeat(OUTPUTS, GROUPS)
    assert statistics_of(signs, producer=torch.ones(INPUTS, 2) * torch.tensor([1, -1])).weight_kurtosis == 1


def test_the_norm_is_that_of_producers_and_consumer_together() -> None:
    seen = statistics_of(2 * torch.ones(OUTPUTS, INPUTS), producer=torch.ones(INPUTS, 5))
    assert seen.weight_rms == pytest.approx(np.sqrt((4 + 1) / 2))


def test_compressibility_is_0_for_equal_groups_and_highest_for_a_single_one() -> None:
    equal, single, middle = torch.ones(OUTPUTS, INPUTS), torch.zeros(OUTPUTS, INPUTS), torch.ones(OUTPUTS, INPUTS)
    single[:, 4:6] = 3
    middle[:, :6] = 0.1
    indices = [statistics_of(weights).pq_index for weights in (equal, middle, single)]
    assert indices[0] == pytest.approx(0, abs=1e-12)
    assert indices[2] == pytest.approx(1 - 1 / GROUPS)
    assert indices[0] < indices[1] < indices[2]


def test_the_spread_of_groups_is_their_deviation_over_their_mean() -> None:
    weights = torch.ones(OUTPUTS, INPUTS)
    assert statistics_of(weights).weight_spread == pytest.approx(0, abs=1e-12)
    weights[:, : INPUTS // 2] = 3
    assert statistics_of(weights).weight_spread == pytest.approx(0.5)


def test_the_rank_of_inputs_is_1_where_all_vary_alike_and_least_where_one_does() -> None:
    weights = noise(OUTPUTS, INPUTS)
    seen = statistics_of(weights, 4 * torch.eye(INPUTS))
    assert (seen.activation_rank, seen.activation_rms) == (1, 2)
    one = torch.ones(INPUTS, INPUTS)
    assert statistics_of(weights, one).activation_rank == pytest.approx(1 / INPUTS)
    half = torch.diag(torch.tensor([1.0, 0.0]).repeat(GROUPS))
    assert statistics_of(weights, half).activation_rank == pytest.approx(0.5)


@pytest.mark.parametrize("dead", ["weights", "inputs", "both"])
def test_a_unit_that_is_dead_has_finite_statistics(dead: str) -> None:
    weights = torch.zeros(OUTPUTS, INPUTS) if dead != "inputs" else noise(OUTPUTS, INPUTS)
    h_DD = torch.zeros(INPUTS, INPUTS) if dead != "weights" else torch.eye(INPUTS)
    seen = statistics_of(weights, h_DD)
    numbers = [seen.weight_rms, seen.weight_spread, seen.weight_kurtosis, seen.pq_index, seen.activation_rms,
               seen.activation_rank, *seen.output_errors]  # fmt: skip
    assert np.isfinite(numbers).all()
    assert seen.output_errors == (0, 0, 0, 0), "nothing can be lost"


# -- output errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rebuilt", [False, True])
def test_output_errors_are_those_of_the_outputs(rebuilt: bool, transposed: bool) -> None:
    weights, x_ND = noise(OUTPUTS, INPUTS), noise(500, INPUTS, seed=1) @ noise(INPUTS, INPUTS, seed=2)
    order, kept = [3, 0, 5, 1, 4, 2], (GROUPS, 5, 3, 1, 0)
    h_DD = x_ND.T @ x_ND / len(x_ND)
    seen = statistics_of(weights, h_DD, kept=kept, order=order, rebuilt=rebuilt, transposed=transposed).output_errors
    assert (seen[0], seen[-1]) == (0, 1)
    whole_NO = x_ND @ weights.T
    for level, count in list(enumerate(kept))[1:-1]:
        inputs = inputs_of(torch.tensor(order), count)
        new_OK = reconstruct(weights, h_DD, inputs) if rebuilt else weights[:, inputs]
        error = (whole_NO - x_ND[:, inputs] @ new_OK.T).square().sum() / whole_NO.square().sum()
        assert seen[level] == pytest.approx(float(error), rel=1e-4)


def test_output_errors_never_fall_and_stay_within_1() -> None:
    weights = noise(OUTPUTS, INPUTS)
    opposed = noise(INPUTS, 1)
    h_DD = opposed @ opposed.T + 0.01 * torch.eye(INPUTS)  # removing some of it may cost more than removing all
    for kept in ((6, 5, 4, 3, 2, 1, 0), (6, 4, 2)):
        errors = statistics_of(weights, h_DD, kept=kept).output_errors
        assert list(errors) == sorted(errors)
        assert len(errors) == len(kept)
        assert errors[0] == 0
        assert all(0 <= error <= 1 for error in errors)
    assert statistics_of(weights, kept=(6, 4, 2)).output_errors[-1] < 1


# -- in the level store ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assembly(quick: dict[str, Any]) -> Assembly:
    return assemble(load_config(None, quick))


def test_a_store_that_is_reopened_has_the_same_statistics(assembly: Assembly) -> None:
    again = LevelStore(assembly.store.directory, assembly.space.units)
    assert again.statistics == assembly.store.statistics
    assert len(again.statistics) == len(assembly.space.units)


def test_statistics_of_a_real_network_are_sound(assembly: Assembly) -> None:
    for unit, one in zip(assembly.space.units, assembly.store.statistics, strict=True):
        assert len(one.output_errors) == len(unit.levels)
        assert (one.output_errors[0], one.output_errors[-1]) == (0, 1)
        assert list(one.output_errors) == sorted(one.output_errors)
        assert one.weight_rms == pytest.approx(0.1, rel=0.05), "as it was initialised"
        assert one.weight_kurtosis == pytest.approx(3, abs=0.3)
        assert 0 < one.activation_rank < 1
        assert one.activation_rms > 0
    assert len({one.activation_rms for one in assembly.store.statistics}) == len(assembly.space.units)


def without(manifest: dict[str, Any]) -> None:
    del manifest["statistics"]


def other_names(manifest: dict[str, Any]) -> None:
    manifest["statistics"] = [{"norm": 1.0}] * len(manifest["statistics"])


def no_list(manifest: dict[str, Any]) -> None:
    manifest["statistics"] = 3


def too_few(manifest: dict[str, Any]) -> None:
    manifest["statistics"].pop()


@pytest.mark.parametrize("damage", [without, other_names, no_list, too_few])
def test_a_store_whose_manifest_lacks_statistics_is_refused(assembly: Assembly, tmp_path: Path, damage: Any) -> None:
    copy = tmp_path / "store"
    shutil.copytree(assembly.store.directory, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    damage(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"store.* is damaged .*delete"):
        LevelStore(copy, assembly.space.units)
