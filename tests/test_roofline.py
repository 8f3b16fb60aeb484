"""The roofline: devices from YAML, checked; costs that add up to those of the network as it stands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autoprune.budgets.metric import Network, cost_rows
from autoprune.budgets.roofline import DEVICES, Device, Roofline, device_of, read_devices, roofline
from autoprune.errors import UserError
from autoprune.level import Level, group_levels
from autoprune.networks.family import Family
from autoprune.networks.loading import family_of
from autoprune.networks.text import TextView
from autoprune.space import Unit
from autoprune.task_choice import load_task
from autoprune.workload import Workload
from tests import families
from tests.conftest import Answer

FAST = Device(flops={"float32": 1e12, "float16": 4e12}, bandwidth=1e11, launch=1e-6)
positive = st.floats(1e3, 1e16)


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """Any device."""
    return Device(flops={"float32": draw(positive)}, bandwidth=draw(positive), launch=draw(st.floats(0, 1e-3)))


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Any workload."""
    return Workload(draw(st.integers(1, 10**5)), draw(st.integers(1, 64)), draw(st.sampled_from(["prefill", "decode"])))


# -- what it says ----------------------------------------------------------------------------------------------------


@given(devices(), workloads(), st.integers(1, 1000), st.integers(0, 10**7), st.integers(0, 10**4))
def test_less_kept_is_never_dearer_and_a_faster_device_never_slower(
    device: Device, workload: Workload, groups: int, macs: int, context_macs: int
) -> None:
    unit = Unit(
        "0.mlp", "mlp", 0, groups, group_levels(groups, (groups, groups // 2, 0)), macs, 0, macs,
        context_macs, context_macs // 2, 3,
    )  # fmt: skip
    metric = Roofline(device, "float32", (1000, 64), workload)
    row = [metric(unit, level, workload) for level in unit.levels]
    assert row == sorted(row, reverse=True)
    assert row[-1] == 0
    faster = Device(
        flops={"float32": 2 * device.flops["float32"]}, bandwidth=2 * device.bandwidth, launch=device.launch
    )
    twice = Roofline(faster, "float32", (1000, 64), workload)
    assert row[0] / 2 * (1 - 1e-9) <= twice(unit, unit.levels[0], workload) <= row[0]
    assert twice.fixed <= metric.fixed


def test_prefill_is_bound_by_flops_and_decode_by_bytes() -> None:
    unit = Unit("0.mlp", "mlp", 0, 10, group_levels(10, (10, 0)), 1000, 0, 1000, matrices=3)
    prefill, decode = Workload(512), Workload(512, phase="decode")
    metric = Roofline(FAST, "float32", (0, 0), prefill)
    assert metric.fixed == 0
    assert metric(unit, unit.levels[0], prefill) == pytest.approx(1e3 * (2 * 512 * 10_000 / 1e12 + 3e-6))
    assert metric(unit, unit.levels[0], decode) == pytest.approx(1e3 * (4 * 10_000 / 1e11 + 3e-6))
    half = Roofline(FAST, "float16", (0, 0), prefill)
    assert half(unit, Level.of_groups(5, 10), decode) == pytest.approx(1e3 * (2 * 5_000 / 1e11 + 3e-6))


def test_decode_reads_the_cache_of_what_is_kept() -> None:
    unit = Unit("0.attention", "attention", 0, 2, group_levels(2, (2, 1, 0)), 100, 0, 100, 64, 32, 4)
    decode = Workload(1000, 4, "decode")
    launches = 1e3 * 5 * FAST.launch
    weights, cache = (1e3 * 4 * kept / 1e11 for kept in (100, 4 * 1000 * 32))
    assert Roofline(FAST, "float32", (0, 0), decode)(unit, unit.levels[1], decode) == pytest.approx(
        weights + cache + launches
    )


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "qwen3"])
def test_costs_are_those_of_the_matrices_that_are_left(name: str) -> None:
    """A recount on the network as it was cut: bytes of its weights, since decode of one token reads each once."""
    model = families.tiny_model(name)
    family: Family = family_of(model.config.model_type)
    view = TextView(model, family)
    units = [
        w.unit(b, group_levels(w.width.groups, (w.width.groups, 1, 0)))
        for b, row in enumerate(view.widths)
        for w in row
    ]
    workload = Workload(1, phase="decode", hardware="h100", dtype="float32")
    metric = roofline(Network(view, units, workload, Path("nowhere"), task=load_task("text")))
    rows = cost_rows("roofline", units, workload, metric)
    for width in (w for row in view.widths for w in row):
        width.keep(1)
    device = device_of("h100")
    matrices = [p for block in view.blocks for p in block.parameters() if p.dim() == 2]
    head = model.get_output_embeddings().weight
    outside = 4 * (head.numel() + head.shape[0] + head.shape[1]) / device.bandwidth
    launches = (len(matrices) + len(view.blocks) + 2) * device.launch
    kept = sum(4 * p.numel() for p in matrices) / device.bandwidth
    attention = sum(unit.group_cache for unit in units) * 4 / device.bandwidth
    total = metric.fixed + sum(row[1] for row in rows)
    assert total == pytest.approx(1e3 * (outside + kept + attention + launches), rel=1e-6)
    assert metric.measure == "ms"


def test_the_cache_of_a_group_is_its_keys_and_values() -> None:
    for name, entries in (("llama", 2 * 16), ("gpt2", 2 * 8), ("opt", 2 * 8)):
        model = families.tiny_model(name)
        (attention, mlp), *_ = TextView(model, family_of(model.config.model_type)).widths
        assert (attention.unit(0, ()).group_cache, mlp.unit(0, ()).group_cache) == (entries, 0)


# -- devices ---------------------------------------------------------------------------------------------------------


def test_known_devices_are_there() -> None:
    known = read_devices(DEVICES)
    assert {"a100", "h100", "h200", "l4", "rtx-4090", "jetson-agx-orin"} <= set(known)
    for name, device in known.items():
        assert device_of(name) == device
        assert 1e12 < device.flops["float32"] < 1e15
        assert 1e11 < device.bandwidth < 1e13


@pytest.fixture(scope="module")
def yaml_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where hypothesis writes its files."""
    return tmp_path_factory.mktemp("devices") / "mine.yaml"


@given(st.dictionaries(st.text(st.characters(categories=["Ll"]), min_size=1), devices(), min_size=1, max_size=3))
def test_a_file_of_ones_own_is_read_as_it_was_written(yaml_path: Path, own: dict[str, Device]) -> None:
    yaml_path.write_text(yaml.safe_dump({name: device.model_dump() for name, device in own.items()}), encoding="utf-8")
    assert read_devices(yaml_path) == own
    for name, device in own.items():
        assert device_of(f"{yaml_path}:{name}") == device


trees = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "flops", "bandwidth", "launch", "float32"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=60) | trees.map(lambda tree: yaml.safe_dump(tree).encode()))
def test_any_file_is_one_of_devices_or_gets_a_sentence(yaml_path: Path, data: bytes) -> None:
    yaml_path.write_bytes(data)
    found, message = {"none": FAST}, None
    try:
        found = read_devices(yaml_path)
    except UserError as error:
        message = str(error)
    begun = f"the file of devices '{yaml_path}'"
    assert message is None or (message.startswith(begun) and len(message.splitlines()) == 1)
    assert found
    assert all(device.bandwidth > 0 and min(device.flops.values()) > 0 for device in found.values())


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("mine: {flops: {float32: 1e12}}", "mine.bandwidth: Field required"),
        ("mine: {flops: {float32: fast}, bandwidth: 1e11}", "mine.flops.float32: Input should be a valid number"),
        ("mine: {flops: {float32: -1.0}, bandwidth: 1e11}", "mine.flops.float32: Input should be greater than 0"),
        ("mine: {flops: {}, bandwidth: 1e11}", "mine.flops: Dictionary should have at least 1 item"),
        ("mine: {flops: {fp8: 1e12}, bandwidth: 1e11}", "mine.flops.fp8: torch has no such dtype"),
        ("mine: {flops: {float32: 1e12}, bandwidth: 1e11, watts: 3}", "mine.watts: Extra inputs are not permitted"),
        ("mine: [1, 2]", "mine: Input should be"),
        ("{}", "the file names none"),
        ("", "Input should be a valid dictionary"),
        ("mine: {", "no YAML"),
    ],
)
def test_malformed_devices_are_refused_with_the_key(yaml_path: Path, text: str, seen: str) -> None:
    yaml_path.write_text(text)
    with pytest.raises(UserError) as raised:
        read_devices(yaml_path)
    assert seen in str(raised.value)


def test_devices_that_are_not_there(yaml_path: Path) -> None:
    with pytest.raises(UserError, match=r"no device is called 'h10'\. Did you mean 'h100'\? Known: a100, h100, "):
        device_of("h10")
    with pytest.raises(UserError, match=r"roofline needs a device: workload\.hardware=a100"):
        device_of(None)
    with pytest.raises(UserError, match=r"no\.yaml' cannot be read"):
        device_of("no.yaml")
    one = {"flops": {"float32": 1e12}, "bandwidth": 1e11}
    yaml_path.write_text(yaml.safe_dump({"mine": one, "yours": one}))
    with pytest.raises(UserError, match=r"has several devices: name one, as .*mine\.yaml:NAME"):
        device_of(str(yaml_path))
    with pytest.raises(UserError, match=r"no device is called 'your'\. Did you mean 'yours'"):
        device_of(f"{yaml_path}:your")
    yaml_path.write_text(yaml.safe_dump({"mine": one}))
    assert device_of(str(yaml_path)).bandwidth == 1e11


def test_unknown_hardware(cli: Callable[..., Answer], quick_arguments: list[str]) -> None:
    answer = cli("search", *quick_arguments, "--budget", "roofline=0.5", "workload.hardware=h20")
    assert answer.status == 2
    assert "no device is called 'h20'. Did you mean 'h200'?" in answer.err
    answer = cli("search", *quick_arguments, "--budget", "roofline=0.5", "workload.hardware=jetson-agx-orin",
                 "workload.dtype=bfloat16")  # fmt: skip
    assert "'jetson-agx-orin' has no FLOP/s for bfloat16: set workload.dtype to float32, float16" in answer.err


def test_a_search_for_a_device_that_is_not_at_hand(quick: dict[str, Any], tmp_path: Path) -> None:
    from autoprune import search

    own = {"budgets": {"roofline": 0.7, "params": 0.8}, "workload": {"hardware": "l4", "dtype": "bfloat16"}}
    cost = search(**quick | own | {"agent": "random"}, out=tmp_path / "run").policy.costs["roofline"]
    assert cost.budget is not None
    assert 0 < cost.policy <= cost.budget == pytest.approx(0.7 * cost.dense)
