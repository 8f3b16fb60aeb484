"""Latency tables: made of counted times (no test measures), kept, read, checked, and searched within."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune import exporting, registry
from autoprune.assembly import assemble
from autoprune.budgets import latency as measuring
from autoprune.budgets.additive import MIXED, classes_of, design, fit, isotonic
from autoprune.budgets.latency import STAGE, build, latency
from autoprune.budgets.latency_table import FILE, Check, ClassTimes, LatencyTable, load_table
from autoprune.budgets.metric import Network
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.level import group_levels
from autoprune.networks.loading import family_of
from autoprune.networks.slots import can_cache, layer_types
from autoprune.networks.text import TextView
from autoprune.reports.page import write_report
from autoprune.space import SLACK, Unit, kept_groups
from autoprune.space_file import load_space
from autoprune.task_choice import load_task
from autoprune.tasks.text_passes import pass_of
from autoprune.testing.toys import at
from autoprune.workload import Workload
from tests import families
from tests.conftest import Answer
from tests.toy_network import additive, counting_clock, noisy, toy_network

WORKLOAD = Workload(context=32)
UNITS = [
    Unit(f"{b}.{kind}", kind, b, groups, group_levels(groups, kept), 3, 0, 3, 2 if kind == "attention" else 0)
    for b in range(3)
    for kind, groups, kept in (("attention", 4, (4, 3, 2, 1, 0)), ("mlp", 96, (96, 72, 48, 24, 0)))
]
times = st.floats(0, 1e3)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes take what `additive` says."""
    monkeypatch.setattr(measuring, "clock", counting_clock(additive()))


# -- from times to a table -------------------------------------------------------------------------------------------


@given(st.lists(times, min_size=1, max_size=12))
def test_isotonic_is_the_nearest_sequence_that_never_falls(values: list[float]) -> None:
    found = isotonic(values)
    assert all(b >= a for a, b in pairwise(found))
    n = range(len(values))
    for i in n:  # the closed form: of all means that end at or behind i, the least; of all starts, the greatest
        oracle = max(min(float(np.mean(values[a : b + 1])) for b in n if b >= i) for a in n if a <= i)
        assert found[i] == pytest.approx(oracle, abs=1e-9)


@given(st.lists(times, max_size=8))
def test_isotonic_leaves_what_never_falls(values: list[float]) -> None:
    assert isotonic(sorted(values)) == sorted(values)


@st.composite
def priced(draw: st.DrawFn) -> tuple[list[Unit], dict[str, list[float]], float]:
    """Units of two kinds, what each of their levels takes, and what is fixed."""
    units, prices = [], {}
    for kind in ("attention", "mlp"):
        groups = draw(st.integers(1, 30))
        kept = tuple(sorted(draw(st.sets(st.integers(0, groups), max_size=4)) | {groups}, reverse=True))
        units += [
            Unit(f"{b}.{kind}", kind, b, groups, group_levels(groups, kept), 1) for b in range(draw(st.integers(1, 3)))
        ]
        steps = draw(st.lists(st.floats(0, 5), min_size=len({0, *kept}) - 1, max_size=len({0, *kept}) - 1))
        prices[kind] = [0.0, *np.cumsum(steps).tolist()]
    return units, prices, draw(st.floats(0.5, 10))


@given(priced())
def test_times_that_add_are_found_exactly(case: tuple[list[Unit], dict[str, list[float]], float]) -> None:
    units, prices, fixed = case
    classes = classes_of(units, ["full_attention"] * 3)
    networks = design(classes)
    price_C = [dict(zip(one.levels, prices[units[one.members[0]].kind], strict=True)) for one in classes]
    price_U = [
        price for u in range(len(units)) for one, price in zip(classes, price_C, strict=True) if u in one.members
    ]
    time_N = np.array([fixed + sum(p[one] for p, one in zip(price_U, levels, strict=True)) for levels in networks])
    found, rows = fit(classes, networks, time_N)
    assert found == pytest.approx(fixed, abs=1e-6)
    for one, price, row in zip(classes, price_C, rows, strict=True):
        assert row == pytest.approx([price[level] for level in one.levels], abs=1e-6)
    assert len(networks) <= 3 * sum(len(one.levels) for one in classes) + MIXED


def test_units_of_other_shapes_or_attention_are_other_classes() -> None:
    assert [one.members for one in classes_of(UNITS, ["full_attention"] * 3)] == [(0, 2, 4), (1, 3, 5)]
    mixed = classes_of(UNITS, ["full_attention", "sliding_attention", "full_attention"])
    assert [one.members for one in mixed] == [(0, 4), (1, 3, 5), (2,)]
    wider = [*UNITS[:5], replace(UNITS[5], group_macs=9)]
    assert [one.members for one in classes_of(wider, ["full_attention"] * 3)] == [(0, 2, 4), (1, 3), (5,)]


def test_noise_makes_no_sparser_level_dearer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seeds = iter(lambda: float(rng.normal()), None)
    monkeypatch.setattr(measuring, "clock", counting_clock(noisy(additive(), 0.05, seeds)))
    table = build(toy_network(UNITS, WORKLOAD, tmp_path), {})
    exact = additive()
    for unit in UNITS:
        row = [table(unit, level, WORKLOAD) for level in unit.levels]
        assert row == sorted(row, reverse=True)
        assert row[-1] == 0
    for name, levels in measuring.checks(UNITS, classes_of(UNITS, [""] * 3)).items():
        whole = {(u.block, u.kind): (level.kept, u.groups) for u, level in zip(UNITS, levels, strict=True)}
        assert table.total(UNITS, levels, WORKLOAD) == pytest.approx(exact(whole), rel=0.1), name
    assert 0 < table.largest_error < 0.1


def test_what_does_not_add_is_told_by_the_checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exact = additive()
    monkeypatch.setattr(measuring, "clock", counting_clock(lambda kept: exact(kept) ** 3))
    table = build(toy_network(UNITS, WORKLOAD, tmp_path), {"device": "odd"})
    assert table.largest_error > 0.1
    assert table.notice.startswith("warning: latency on odd: the table is off by up to ")
    assert [check.network for check in table.checks] == ["dense", "half", "random 1", "random 2", "random 3"]


# -- the file --------------------------------------------------------------------------------------------------------

finite = st.floats(0, 1e6)


@st.composite
def tables(draw: st.DrawFn) -> LatencyTable:
    """Any table that can be measured."""
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True))
    classes = []
    for name in names:
        kept = [0, *sorted(draw(st.sets(st.integers(1, 10**6), min_size=1, max_size=5)))]
        ms = [0.0, *sorted(draw(st.lists(finite, min_size=len(kept) - 1, max_size=len(kept) - 1)))]
        classes.append(ClassTimes(units=[name], kept=kept, ms=ms))
    check = st.builds(Check, network=st.text(), predicted=finite, measured=st.floats(1e-6, 1e6))
    return LatencyTable(
        schema="autoprune.latency/1", measured_on={"device": draw(st.text())}, fixed=draw(finite), classes=classes,
        checks=draw(st.lists(check, max_size=3)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where hypothesis writes its tables."""
    return tmp_path_factory.mktemp("latency") / "table.json"


@given(tables())
def test_a_table_is_read_as_it_was_written(table_path: Path, table: LatencyTable) -> None:
    table.save_as(table_path)
    assert load_table(table_path) == table


@given(st.binary(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps({"schema": "autoprune.latency/1", "classes": value}).encode()
))  # fmt: skip
def test_what_is_no_table_is_told_in_one_line(table_path: Path, data: bytes) -> None:
    table_path.write_bytes(data)
    with pytest.raises(ValueError, match=r".") as raised:
        load_table(table_path)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"ms": [0, 2, 1]}, {"ms": [0, 1]}, {"ms": [1, 2, 3]}, {"ms": [0, 1, math.nan]}, {"kept": [0, 2, 2]},
        {"kept": [-1, 2, 3]}, {"units": []}, {"more": 1},
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_is_refused(table_path: Path, changed: dict[str, Any]) -> None:
    row = {"units": ["0.mlp"], "kept": [0, 1, 2], "ms": [0, 1, 2]} | changed
    record = {"schema": "autoprune.latency/1", "measured_on": {}, "fixed": 1, "classes": [row], "checks": []}
    table_path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"classes\.0|NaN is no number"):
        load_table(table_path)


def test_between_measured_numbers_of_groups_it_is_interpolated() -> None:
    row = ClassTimes(units=["0.mlp"], kept=[0, 48, 96], ms=[0, 2, 3])
    table = LatencyTable(schema="autoprune.latency/1", measured_on={}, fixed=1, classes=[row], checks=[])
    unit = Unit("0.mlp", "mlp", 0, 96, group_levels(96, (96, 0)), 1)
    assert [table(unit, at(unit, kept), WORKLOAD) for kept in (0, 24, 48, 72, 96)] == [0, 1, 2, 2.5, 3]
    assert table.total([unit], [at(unit, 72)], WORKLOAD) == 3.5
    for other in (replace(unit, name="1.mlp"), replace(unit, groups=97, levels=group_levels(97, (97, 0)))):
        with pytest.raises(UserError, match=f"lacks unit {other.name} at {other.groups} groups"):
            table(other, other.levels[0], WORKLOAD)


# -- where tables are found ------------------------------------------------------------------------------------------


def never(network: Network) -> float:
    raise AssertionError("measured again")


def test_it_is_measured_once_and_again_when_the_file_is_damaged(
    counted: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = toy_network(UNITS, WORKLOAD, tmp_path)
    table = latency(network)
    (file,) = (tmp_path / "latency").glob("*.json")
    assert table.measured_on["file"] == str(file)
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "clock", never)
        assert latency(network) == table
        for other in (
            replace(network, workload=replace(WORKLOAD, batch=2)),
            toy_network(UNITS[:4], WORKLOAD, tmp_path),
        ):
            with pytest.raises(AssertionError, match="again"):
                latency(other)
    file.write_text(file.read_text()[:-40])
    assert latency(network).classes == table.classes
    assert load_table(file).classes == table.classes


def test_a_runs_own_table_comes_first(counted: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = toy_network(UNITS, WORKLOAD, tmp_path / "cache", run=tmp_path)
    table = latency(network)
    table.save(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(measuring, "clock", never)
    assert latency(network) == table
    table.model_copy(update={"fixed": 99.0}).save(tmp_path)
    assert load_table(tmp_path / FILE) == table, "a run's costs do not change"
    with pytest.raises(UserError, match="of other units"):
        latency(replace(network, units=[replace(UNITS[0], name="9.attention")]))
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match=r"latency\.json' is damaged \(.*\): delete it to have it measured anew"):
        latency(network)


def test_progress_is_told(counted: None, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    network = toy_network(UNITS, WORKLOAD, tmp_path)
    latency(replace(network, progress=lambda stage, share: told.append((stage, share))))
    assert {stage for stage, _ in told} == {STAGE}
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert told[0][1] == 0 < told[-1][1] < 1


# -- on live networks ------------------------------------------------------------------------------------------------


def live(name: str, context: int, phase: Any = "decode", batch: int = 2) -> tuple[Network, list[Unit]]:
    """A tiny network of some type."""
    model = families.tiny_model(name)
    view = TextView(model, family_of(model.config.model_type))
    units = [
        width.unit(b, kept_groups(width.width.groups, (0.5, 0.0))) for b, row in enumerate(view.widths) for width in row
    ]
    return Network(view, units, Workload(context, batch, phase), Path("nowhere"), task=load_task("text")), units


@pytest.mark.parametrize("name", families.names())
def test_every_family_decodes_behind_a_cache_of_what_is_kept(name: str) -> None:
    network, units = live(name, context=9)
    view, rng = network.view, np.random.default_rng(0)
    cuts = [
        [u.groups for u in units],
        [0] * len(units),
        *(
            [int(rng.choice([k for k in range(u.groups + 1) if k < u.bundle or k % u.bundle == 0])) for u in units]
            for _ in "ab"
        ),
    ]
    cuts.append([0 if u.name == "0.attention" else u.groups for u in units])  # the slot that lengths are read from
    for kept in cuts:
        measuring.place(view, [at(u, k) for u, k in zip(units, kept, strict=True)])
        if any(k for u, k in zip(units, kept, strict=True) if u.kind == "attention"):
            attends = [any(w.kept for w in row if w.width.kind == "attention") for row in view.widths]
            if not can_cache(attends, layer_types(view.model.config)):
                continue
        forward = pass_of(view.model, network.workload)
        with torch.no_grad():
            forward()
            forward()


def test_a_decoded_token_sees_the_whole_cache_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network, units = live("llama", context=9)
    less = [0 if u.name == "0.attention" else max(1, u.groups - u.bundle) for u in units]
    measuring.place(network.view, [at(u, k) for u, k in zip(units, less, strict=True)])
    seen: list[tuple[int, ...]] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append((query.shape[-2], *key.shape))
        return attention(query, key, *args, **kwargs)

    forward = pass_of(network.view.model, network.workload)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    with torch.no_grad():
        forward()
        forward()
    assert len(seen) == 2 * (families.LAYERS - 1)
    assert {(queries, batch, length) for queries, batch, _, length, _ in seen} == {(1, 2, 10)}


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "opt"])
def test_measuring_leaves_the_network_as_it_was(
    name: str, monkeypatch: pytest.MonkeyPatch, counted: None, tmp_path: Path
) -> None:
    network, units = live(name, context=9, phase="prefill")
    model: Any = network.view.model
    tokens = families.random_tokens(2, 9)
    before, shapes = model(tokens).logits, {n: p.stride() for n, p in model.named_parameters()}
    slots = [m.layer_idx for m in model.modules() if hasattr(m, "layer_idx")]
    table = build(network, {})
    assert torch.equal(model(tokens).logits, before)
    assert {n: p.stride() for n, p in model.named_parameters()} == shapes
    assert [m.layer_idx for m in model.modules() if hasattr(m, "layer_idx")] == slots
    assert table.fixed == pytest.approx(3.0)
    assert table(units[0], units[0].levels[0], network.workload) == pytest.approx(1.5)

    def broken(network: Network) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "clock", broken)
    with pytest.raises(KeyboardInterrupt):
        build(network, {})
    assert torch.equal(model(tokens).logits, before)


def test_what_is_timed_is_what_an_export_holds() -> None:
    """No view of a wider matrix: how far apart the rows lie changes what a product takes."""
    network, units = live("gpt2", context=9)
    measuring.place(network.view, [at(u, max(1, u.groups // 2)) for u in units])
    assert all(parameter.is_contiguous() for parameter in network.view.model.parameters())


def test_of_a_few_passes_the_best_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    for times, passes, best in (([0.01, 0.05, 0.03, 0.04, 0.02, 0.06], 6, 0.02), ([0.1, 0.2, 0.4], 3, 0.2)):
        taken = iter(times)
        monkeypatch.setattr(measuring, "seconds_of", lambda forward, device, taken=taken: next(taken))
        assert measuring.best_seconds(lambda: None, device) == best
        assert len(times) == passes
        assert next(taken, None) is None, "all that fit in were run"


# -- what is refused -------------------------------------------------------------------------------------------------


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    network = toy_network(UNITS, WORKLOAD, tmp_path)
    with pytest.raises(UserError, match=r"latency is measured in the search's dtype, float32: set dtype=bfloat16"):
        latency(replace(network, workload=replace(WORKLOAD, dtype="bfloat16")))
    tiny, _ = live("llama", context=64)
    with pytest.raises(UserError, match=r"workload\.context=64 in decode needs 65 positions, and the model has 64"):
        latency(replace(tiny, cache=tmp_path))


def test_latency_of_streamed_blocks(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, quick_arguments: list[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))  # a table that is there already would serve
    answer = cli("search", *quick_arguments, "--budget", "latency=0.5", "--device-memory", "8GiB", "--out", "run")
    assert answer.status == 2
    assert "latency cannot be measured with device_memory" in answer.err
    assert "roofline" in answer.err
    assert not Path("run").exists()


def test_impossible_latency(cli: Callable[..., Answer], counted: None, quick_arguments: list[str]) -> None:
    answer = cli("search", *quick_arguments, "--budget", "latency=2.5")
    assert answer.status == 2
    assert (
        "latency=2.5 ms (14.7% of dense) cannot be met: the smallest reachable value is 3 ms (17.6% of dense, 17 ms)"
        in answer.err
    )


def test_unknown_setting_of_the_workload(cli: Callable[..., Answer]) -> None:
    answer = cli("search", "workload.phse=decode")
    assert answer.status == 2
    assert "no setting is called 'workload.phse'. Did you mean 'workload.phase'?" in answer.err
    assert "workload.phase: Input should be 'prefill' or 'decode'" in cli("search", "workload.phase=both").err


# -- whole searches --------------------------------------------------------------------------------------------------


def test_a_search_within_a_latency(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, quick_arguments: list[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring, "clock", counting_clock(additive()))
    own = ["--budget", "latency=0.6", "workload.phase=decode", "workload.batch=2", "--out", "run", "--json"]
    answer = cli("search", *quick_arguments, *own)
    found = json.loads(answer.out)
    cost = found["costs"]["latency"]
    assert cost["dense"] == pytest.approx(3 + 4 * (1.5 + 2))
    assert cost["budget"] == pytest.approx(0.6 * cost["dense"])
    assert 0.55 * cost["dense"] < cost["policy"] <= cost["budget"] + SLACK * cost["dense"]
    assert "the table is within 0.0 % of 5 whole networks" in answer.err
    assert load_config(Path("run/config.yaml")).workload_of() == Workload(32, 2, "decode")
    # the cache is gone, and this machine has become another: the run keeps its costs
    shutil.rmtree(tmp_path / "cache" / "latency")
    monkeypatch.setattr(measuring, "clock", counting_clock(additive(fixed=9.0, mlp=0.1)))
    assert json.loads(cli("resume", "run", "--json").out)["losses"] == found["losses"]
    assert exporting.reopen(Path("run"))[1].costs["latency"].policy == pytest.approx(cost["policy"])
    own_space = assemble(load_config(Path("run/config.yaml"), {}), run=Path("run")).space
    assert own_space.cost(own_space.dense, "latency") == pytest.approx(cost["dense"]), "a run keeps its costs"
    space, _ = load_space(Path("run/space.json"))
    assert space.fixed["latency"] == pytest.approx(3.0)
    page = write_report(Path("run")).read_text()
    assert re.search(r"latency: [\d.]+ of 17(\.\d+)? kept \((5[5-9]|60)(\.\d+)?\s%\)", page)


def test_masks_pay_for_every_number_of_groups(counted: None, quick: dict[str, Any]) -> None:

    space = assemble(load_config(None, quick | {"budgets": {"latency": 0.6}}), masks=True).space
    assert space.cost_of_counts([unit.groups for unit in space.units], "latency") == pytest.approx(17.0)
    for row in space.group_costs["latency"]:
        assert row[0] == 0
        assert np.all(np.diff(row) >= 0)


def test_both_are_registered() -> None:
    assert {"latency", "roofline"} <= set(registry.names("budgets"))
