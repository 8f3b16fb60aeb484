"""Budgets of networks that read images: latency (of counted times, no test measures), and peak activation memory."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import autoprune
from autoprune import registry
from autoprune.assembly import assemble, units_of
from autoprune.budgets import latency as measuring
from autoprune.budgets.activation import Peaks, activation, levels
from autoprune.budgets.alive import Alive, peak_bytes
from autoprune.budgets.latency import build, checks, classes_in, latency, place
from autoprune.budgets.metric import Network, cost_rows, fixed_cost
from autoprune.budgets.passes import example_pass_of
from autoprune.config import load_config
from autoprune.drawing.tables import amount
from autoprune.errors import LimitReached, UserError
from autoprune.journal import Journal
from autoprune.level import Level, group_levels
from autoprune.networks.images import ImageView
from autoprune.objective import Limits, Objective
from autoprune.reports.page import write_report
from autoprune.space import SLACK, SearchSpace, Unit
from autoprune.space_file import load_space, save_space
from autoprune.task_choice import load_task
from autoprune.testing.toys import ToyScorer, at, counts, toy_space
from autoprune.workload import Workload
from tests import image_families
from tests.conftest import Answer
from tests.contracts.test_agents import OPTIONS
from tests.toy_network import Kept, counting_clock, toy_network

NAMES = image_families.names()
HELD = {"vit": 1.03, "deit": 1.03}
"""Eager attention's scores are held while the MLP runs: what a whole network may need of what its units say."""


def live(name: str, batch: int = 1) -> tuple[Network, ImageView]:
    """A tiny network that reads images."""
    view = image_families.view_of(name)
    units = units_of(view, load_config(None, {"levels": 5}))
    return Network(view, units, Workload(8, batch), Path("nowhere"), task=load_task("images")), view


def cuts(units: Sequence[Unit], count: int = 4) -> list[tuple[Level, ...]]:
    """The dense network, the sparsest, and others at random levels."""
    rng = np.random.default_rng(0)
    ends = [tuple(unit.levels[end] for unit in units) for end in (0, -1)]
    return [*ends, *(tuple(unit.levels[rng.integers(len(unit.levels))] for unit in units) for _ in range(count))]


@torch.no_grad()
def logits_of(view: ImageView, pixels: Tensor) -> Tensor:
    """Of the network as it stands."""
    out: Any = view.model(pixels)
    return out if isinstance(out, Tensor) else torch.as_tensor(out.logits)


def counted(kept: Kept) -> float:
    """4 ms, and of each unit 1 for all of it, half of which for keeping anything."""
    return 4 + sum(0.5 * (k > 0) + 0.5 * k / groups for k, groups in kept.values())


# -- latency ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_units_of_a_class_are_alike_in_shape_and_place(name: str) -> None:
    network, view = live(name)
    widths = [width.width for row in view.widths for width in row]
    for one in classes_in(network):
        of_class = [network.units[u] for u in one.members]
        assert len({replace(unit, name="", block=0) for unit in of_class}) == 1
        assert len({view.places[unit.block] for unit in of_class}) == 1
        assert {widths[u].droppable for u in one.members} == {one.levels[0].kept == 0}


def test_the_same_unit_at_another_place_is_of_another_class() -> None:
    network, view = live("plain-basic")
    alike = [replace(network.units[0], name=unit.name, block=unit.block) for unit in network.units]
    assert view.places == ["16x16x16 -> 16x16x16", "16x16x16 -> 16x16x16", "16x16x16 -> 24x8x8"]
    assert [one.members for one in classes_in(replace(network, units=alike))] == [(0, 1), (2,)]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_times_that_add_is_exact(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, view = live(name)
    pixels = view.pixels(torch.arange(2))
    before = logits_of(view, pixels)
    seen: list[Kept] = []

    def watched(kept: Kept) -> float:
        seen.append(kept)
        return counted(kept)

    monkeypatch.setattr(measuring, "clock", counting_clock(watched))
    monkeypatch.setattr(measuring, "MOST", measuring.FEWEST)
    table = build(network, {})
    assert torch.equal(logits_of(view, pixels), before), "the network is as it was"
    droppable = {(b, w.width.kind): w.width.droppable for b, row in enumerate(view.widths) for w in row}
    assert all(k > 0 or droppable[unit] for kept in seen for unit, (k, _) in kept.items())
    for levels_U in cuts(network.units):
        whole = {(u.block, u.kind): (one.kept, u.groups) for u, one in zip(network.units, levels_U, strict=True)}
        assert table.total(network.units, levels_U, network.workload) == pytest.approx(counted(whole), abs=1e-6)
    assert table.largest_error < 1e-6
    cost_rows("latency", network.units, network.workload, table)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_timed_is_a_batch_through_what_an_export_holds(name: str) -> None:
    network, view = live(name, batch=3)
    shapes: list[tuple[int, ...]] = []
    view.model.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    forward = example_pass_of(view, network.workload)
    for kept_U in cuts(network.units):
        place(view, kept_U)
        assert all(p.is_contiguous() for row in view.widths for w in row for p in w.dense.parameters())
        with torch.no_grad():
            forward()
    assert set(shapes) == {(3, 3, image_families.SIDE, image_families.SIDE)}


def test_a_table_is_of_a_batch_and_a_size_of_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network, view = live("plain-basic")
    network = replace(network, cache=tmp_path)
    monkeypatch.setattr(measuring, "clock", counting_clock(counted))
    table = latency(network)
    assert "context" not in table.measured_on["workload"]

    def never(network: Network) -> float:
        raise AssertionError("again")

    monkeypatch.setattr(measuring, "clock", never)
    assert latency(replace(network, workload=Workload(99))) == table, "images have no context"
    with pytest.raises(AssertionError, match="again"):
        latency(replace(network, workload=Workload(8, 2)))
    view.places[0] = "another size"
    with pytest.raises(AssertionError, match="again"):
        latency(network)


# -- bytes that are alive --------------------------------------------------------------------------------------------


def test_what_is_alive_is_counted() -> None:
    x, linear, kilo = torch.randn(10, 100), nn.Linear(100, 100), 4000

    def freed() -> Tensor:
        y: Tensor = linear(x)  # kilo
        view = y.view(-1)[::2]  # the same memory
        del y
        z = view + 1  # half of it
        del view
        return z * 2  # half, with half alive

    def in_turn() -> None:
        for _ in range(5):
            linear(x)

    assert peak_bytes(lambda: linear(x)) == kilo
    assert peak_bytes(lambda: torch.relu(linear(x))) == 2 * kilo
    assert peak_bytes(lambda: torch.relu_(linear(x))) == kilo
    assert peak_bytes(lambda: linear(x).T @ x) == kilo + 40_000
    assert peak_bytes(lambda: x.T[::2].unsqueeze(0)) == 0, "views of what was there before"
    assert peak_bytes(freed) == kilo + kilo // 2
    assert peak_bytes(in_turn) == kilo
    with Alive() as alive:
        y = linear(x)
        assert alive.now == kilo
        del y
        assert alive.now == 0
    assert alive.peak == kilo


# -- activations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_peak_of_units_is_that_of_the_whole_network(name: str) -> None:
    network, view = live(name)
    units, pixels = network.units, view.pixels(torch.arange(1))
    before = logits_of(view, pixels)
    peaks = activation(network)
    assert torch.equal(logits_of(view, pixels), before), "the network is as it was"
    space = space_of(network, peaks)
    for levels_U in cuts(units, 8):
        place(view, levels_U)
        measured = peak_bytes(lambda: view.model(pixels))
        predicted = space.cost(tuple(u.levels.index(one) for u, one in zip(units, levels_U, strict=True)), "activation")
        assert predicted <= measured <= HELD.get(name, 1.0) * predicted


def space_of(network: Network, peaks: Peaks, bound: float = 1e12) -> SearchSpace:
    rows = cost_rows("activation", network.units, network.workload, peaks)
    fixed = {"activation": fixed_cost("activation", peaks)}
    return SearchSpace(network.units, {"activation": rows}, {"activation": bound}, fixed=fixed, peaks=["activation"])


@pytest.mark.parametrize("name", NAMES)
def test_levels_cost_no_more_than_denser_ones_and_a_batch_as_often(name: str) -> None:
    network, _ = live(name, batch=3)
    thrice, once = activation(network), activation(replace(network, workload=Workload(8)))
    assert thrice.fixed == 3 * once.fixed > 0
    for unit in network.units:
        row = [thrice(unit, level, network.workload) for level in unit.levels]
        assert row == sorted(row, reverse=True)
        assert row == [3 * once(unit, level, network.workload) for level in unit.levels]
        assert min(row) >= thrice.fixed
        with pytest.raises(UserError, match="was not measured"):
            thrice(unit, at(unit, unit.groups + 1), network.workload)


def test_activations_are_in_place_where_the_network_has_them_so() -> None:
    network, view = live("traced-mlp")
    swapped = nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(inplace=True), nn.Linear(64, 5))
    given = [module for module in swapped if getattr(module, "inplace", False)]
    view = type(view)(swapped.eval(), view.family, image_families.images())
    peaks = activation(replace(network, view=view, units=units_of(view, load_config(None, {"levels": 3}))))
    assert peaks.of_unit["0.mlp"][64] == 4 * (64 + 5), "not 4 * (64 + 64)"
    assert not any(vars(module)["inplace"] for module in given), "the search's own passes must not"


def test_a_batch_takes_as_many_times_the_memory() -> None:
    network, view = live("convnext", batch=5)
    peaks, whole = activation(network), example_pass_of(view, network.workload)
    assert peak_bytes(whole) == max(peaks(unit, unit.levels[0], network.workload) for unit in network.units)


@pytest.mark.parametrize("name", NAMES)
def test_a_dropped_block_takes_no_more_than_the_least_of_it(name: str) -> None:
    """What stands inside of it is one channel, not all of them."""
    network, view = live(name)
    pixels = view.pixels(torch.arange(1))
    least = tuple([level for level in unit.levels if level.kept][-1] for unit in network.units)
    place(view, least)
    thin = peak_bytes(lambda: view.model(pixels))
    place(view, tuple(unit.levels[-1] for unit in network.units))
    assert peak_bytes(lambda: view.model(pixels)) <= thin


def test_units_that_are_alive_at_once_are_told() -> None:
    eager, convnext = live("vit")[0], live("convnext", batch=2)[0]
    assert activation(convnext).notice == (
        "activation: of the dense network 147,456 bytes are alive at once with batches of 2, 55,296 at the least."
    )
    peaks = activation(eager)
    assert replace(peaks, above=0.2).notice == (
        "warning: activation: units of this network are alive at the same time, so it needs up to 20.0 % more than the "
        "budget's cost says."
    )
    assert set(checks(eager.units, classes_in(eager))) == {"dense", "half", "random 1", "random 2", "random 3"}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9))
def test_between_levels_that_cost_the_same_nothing_is_measured(steps: list[int]) -> None:
    kept = list(range(len(steps)))
    true = np.cumsum(steps).tolist()
    asked: list[int] = []

    def peak(k: int) -> int:
        asked.append(k)
        return int(true[k])

    assert levels(kept, peak) == dict(zip(kept, true, strict=True))
    assert len(asked) == len(set(asked))
    assert true[0] != true[-1] or len(asked) <= 2


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9))
def test_a_denser_level_never_costs_less(costs: list[int]) -> None:
    found = levels(list(range(len(costs))), lambda k: costs[k])
    assert all(b >= a for a, b in pairwise([found[k] for k in sorted(found)]))
    assert found[0] == costs[0]
    assert found[len(costs) - 1] >= costs[-1]


def test_what_has_no_peak_is_refused(tmp_path: Path) -> None:
    unit = Unit("0.mlp", "mlp", 0, 4, group_levels(4, (4, 2, 0)), 3)
    with pytest.raises(UserError, match="activation is of networks that read images"):
        activation(toy_network([unit], Workload(8), tmp_path))
    network, _ = live("plain-basic")
    with pytest.raises(UserError, match=r"in the search's dtype, float32: set dtype=float16"):
        activation(replace(network, workload=Workload(8, dtype="float16")))


# -- a peak in the search space --------------------------------------------------------------------------------------


def peak_space(bound: float = 0.6, params: float = 0.6, seed: int = 0) -> SearchSpace:
    """A toy with a budget of parameters, and one of memory of which a unit's channels cost what is drawn."""
    toy = toy_space(seed=seed)
    rng = np.random.default_rng(seed)
    prices = rng.integers(2, 9, len(toy.units)).tolist()
    rows = [[3 + price * k for k in counts(unit)] for price, unit in zip(prices, toy.units, strict=True)]
    costs = {"params": toy.rows("params"), "memory": rows}
    budgets = {
        "params": params * toy.cost(toy.dense, "params"),
        "memory": bound * max(row[0] for row in rows),
    }
    return SearchSpace(toy.units, costs, budgets, fixed={"memory": 5.0}, peaks=["memory"])


@given(st.integers(0, 50), st.floats(0.2, 1.2), st.floats(0.3, 1.0))
def test_a_peak_is_kept_by_construction(seed: int, bound: float, params: float) -> None:
    space, rng = peak_space(bound, params, seed % 5), np.random.default_rng(seed)
    uniform, rows = space.uniform(), space.rows("memory")
    bounds = {metric: bound + SLACK * space.cost(space.dense, metric) for metric, bound in space.budgets.items()}
    for policy in (uniform, space.sample(rng), space.mutate(uniform, rng), space.repair(space.dense)):
        peak = max(5.0, *(row[level] for row, level in zip(rows, policy, strict=True)))
        assert space.cost(policy, "memory") == peak <= bounds["memory"]
        assert space.feasible(policy)
    for _ in range(20):
        policy = tuple(int(level) for level in rng.integers(space.n_levels_U))
        within = [space.cost(policy, metric) <= bound for metric, bound in bounds.items()]
        assert space.feasible(policy) == all(within)


def test_a_unit_below_the_peak_pays_nothing() -> None:
    space = peak_space(params=1.0)
    bound = space.budgets["memory"]
    for filled in (space.repair(space.sparsest), space.uniform()):
        for u, row in enumerate(space.rows("memory")):
            assert row[filled[u]] <= bound
            assert filled[u] == 0 or row[filled[u] - 1] > bound, "each unit is as dense as its own peak allows"


def test_a_peak_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(UserError, match=r"memory=\S+ .*cannot be met: the smallest reachable value is 5 \("):
        peak_space(bound=0.1)


def test_rebudgeted_and_read_back_it_is_still_a_peak(tmp_path: Path) -> None:
    space = peak_space()
    tighter = space.rebudgeted({metric: 0.8 * bound for metric, bound in space.budgets.items()})
    assert tighter.cost(tighter.uniform(), "memory") <= 0.8 * space.budgets["memory"]
    save_space(tmp_path / "space.json", space)
    again, _ = load_space(tmp_path / "space.json")
    assert again.peaks == {"memory"}
    assert again.cost(again.dense, "memory") == space.cost(space.dense, "memory")
    assert again.uniform() == space.uniform()


@pytest.mark.parametrize("params", [0.6, 1.0])
@pytest.mark.parametrize("agent", [n for n in registry.names("agents") if n not in ("policy-gradient-masks", "gp")])
def test_every_agent_keeps_a_peak(agent: str, params: float) -> None:
    """Even where it alone binds, so that a single policy is as dense as it may be."""
    if agent == "maskable-ppo":
        pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    space = peak_space(params=params)
    objective = Objective(space, ToyScorer(space), Limits(tokens=32 * 120), Journal(None))
    with suppress(LimitReached):
        registry.load("agents", agent)(**OPTIONS.get(agent, {})).search(objective, np.random.default_rng(0))
    assert objective.archive()
    assert all(space.cost(policy, "memory") <= space.budgets["memory"] for policy, _, _ in objective.archive())
    assert space.feasible(objective.best)


# -- whole searches --------------------------------------------------------------------------------------------------

NETWORK = """
import torch
from tests.traced_networks import Mobile

def net():
    torch.manual_seed(0)
    return Mobile().eval()
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (120, 32, 32, 3), dtype=np.uint8), rng.integers(0, 5, 120)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return folder


def settings(files: Path, **others: Any) -> dict[str, Any]:
    splits = {"reconstruction_sequences": 4, "search_sequences": 4, "validation_sequences": 4, "sequence_length": 8}
    return {"model": f"{files}/net.py:net", "data": str(files / "images.npz"), "levels": 5, **splits, **others}


def flags(files: Path, *others: str) -> list[str]:
    given = settings(files)
    named = ["--model", given.pop("model"), "--data", given.pop("data")]
    return ["search", *named, *(f"{key}={value}" for key, value in given.items()), *others]


def test_a_search_within_a_latency(files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measuring, "clock", counting_clock(counted))
    own = settings(files, budgets={"latency": 0.75}, workload={"batch": 4}, max_evals=30)
    found = autoprune.search(**own, out=tmp_path / "run")
    cost = found.policy.costs["latency"]
    assert cost.dense == pytest.approx(7.0)
    assert 0.7 * 7 < cost.policy <= 0.75 * 7 + 1e-6
    monkeypatch.setattr(measuring, "clock", counting_clock(lambda kept: 99.0))
    space = assemble(load_config(tmp_path / "run" / "config.yaml", {}), run=tmp_path / "run").space
    assert space.cost(space.dense, "latency") == pytest.approx(7.0), "a run keeps its costs"


def test_a_search_within_a_peak(files: Path, tmp_path: Path) -> None:
    own = settings(files, budgets={"activation": 0.6, "params": 0.9}, workload={"batch": 2}, max_evals=30)
    found = autoprune.search(**own, out=tmp_path / "run")
    cost = found.policy.costs["activation"]
    assert cost.dense == 2 * 57_344
    assert cost.budget == pytest.approx(0.6 * cost.dense)
    assert cost.policy <= 0.6 * cost.dense
    absolute = assemble(load_config(None, own | {"budgets": {"activation": "60k"}})).space
    assert absolute.cost(absolute.uniform(), "activation") <= 60_000
    page = write_report(tmp_path / "run").read_text()
    assert f"activation: {amount(cost.policy)} of {amount(cost.dense)} kept" in page
    found.export(tmp_path / "export", to="module")
    exported = load_exported(tmp_path / "export")
    pixels = torch.rand(2, 3, 32, 32)
    assert peak_bytes(lambda: exported(pixels)) == cost.policy


def load_exported(directory: Path) -> nn.Module:
    from tests.traced_networks import Mobile

    spec = importlib.util.spec_from_file_location("load_module_of_a_test", directory / "load_module.py")
    assert spec is not None
    assert spec.loader is not None
    loader: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    loaded: nn.Module = loader.load(Mobile(), directory)
    return loaded


def test_a_peak_below_what_stem_and_head_need(cli: Callable[..., Answer], files: Path) -> None:
    answer = cli(*flags(files, "--budget", "activation=20k"))
    assert answer.status == 2
    assert (
        "activation=20,000 bytes (34.9% of dense) cannot be met: the smallest reachable value is 24,576 bytes "
        "(42.9% of dense, 57,344 bytes)" in answer.err
    )


def test_what_there_is_for_language_models_alone(
    cli: Callable[..., Answer], files: Path, quick_arguments: list[str]
) -> None:
    assert "phase=decode is of language models" in cli(*flags(files, "workload.phase=decode")).err
    answer = cli(*flags(files, "--budget", "roofline=0.5"))
    assert answer.status == 2
    assert "roofline is of language models alone so far: latency, activation or macs here." in answer.err
    answer = cli("search", *quick_arguments, "--budget", "activation=0.5")
    assert answer.status == 2
    assert "the budget activation is of networks that read images so far: params or macs here." in answer.err


def test_the_terminal_says_bytes(cli: Callable[..., Answer], files: Path, tmp_path: Path) -> None:
    limits = ["--budget", "activation=0.7", "--max-evals", "20", "--out", str(tmp_path / "run")]
    answer = cli(*flags(files, *limits, "--json"))
    assert (
        "activation: of the dense network 57,344 bytes are alive at once with batches of 1, 24,576 at the least."
        in answer.err
    )
    found = json.loads(answer.out)["costs"]["activation"]
    assert found["dense"] == 57_344
    assert 24_576 <= found["policy"] <= 0.7 * 57_344
    (row,) = [line.split("  ") for line in cli("show", str(tmp_path / "run")).out.splitlines() if "activation" in line]
    cells = [cell.strip() for cell in row if cell.strip()]
    kept = [f"{found['policy'] / 1e3:.3g} kB", f"{found['policy'] / 57_344:.1%}"]
    assert cells == ["activation, whole network", "57.3 kB", *kept, "40.1 kB"]
