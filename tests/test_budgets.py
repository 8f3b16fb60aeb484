"""Every budget keeps the contract of metrics, one's own metrics are checked, tables are read as they are written."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune import registry
from autoprune.budgets import latency as measuring
from autoprune.budgets.metric import Network, cost_rows, fixed_cost, metric_of, of_network
from autoprune.budgets.table import Table, read
from autoprune.errors import UserError
from autoprune.level import Key, group_levels
from autoprune.space import Unit, kept_groups
from autoprune.testing.toys import at, counts
from autoprune.workload import Workload
from tests.conftest import Answer
from tests.toy_network import additive, counting_clock, toy_network

WORKLOAD = Workload(context=32)
UNITS = [
    Unit("0.attention", "attention", 0, 2, group_levels(2, (2, 1, 0)), 4),
    Unit("0.mlp", "mlp", 0, 96, group_levels(96, (96, 48, 0)), 3),
]

OF_IMAGES = {"activation"}
"""What runs a network that reads images: test_image_budgets.py has its contract."""

Metric = Callable[[Unit, int, Workload], Any]
Costs = Callable[[Metric], list[list[float]]]


@st.composite
def units(draw: st.DrawFn) -> Unit:
    """Any unit that a family could declare."""
    groups = draw(st.integers(1, 20_000))
    kept = sorted(draw(st.sets(st.integers(0, groups - 1), max_size=8)) | {groups}, reverse=True)
    count = st.integers(0, 10**9)
    kind = draw(st.sampled_from(["attention", "mlp"]))
    return Unit(
        f"7.{kind}", kind, 7, groups, group_levels(groups, kept), draw(count) + 1, draw(count), draw(count) + 1,
        draw(count), draw(count) + 1,
    )  # fmt: skip


# -- the contract ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where metrics keep what they measure."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def _counted() -> Iterator[None]:
    """No test measures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "clock", counting_clock(additive()))
        yield


@pytest.mark.parametrize("name", [name for name in registry.names("budgets") if name not in OF_IMAGES])
@given(unit=units(), context=st.integers(1, 10**6), phase=st.sampled_from(["prefill", "decode"]))
def test_no_level_costs_less_than_nothing_or_more_than_a_denser_one(
    cache: Path, name: str, unit: Unit, context: int, phase: Any
) -> None:
    workload = Workload(context, 1, phase, hardware="h100")
    metric = metric_of(name, toy_network([unit], workload, cache))
    row = [metric(unit, level, workload) for level in unit.levels]
    assert all(math.isfinite(cost) and cost >= 0 for cost in row)
    assert row == sorted(row, reverse=True)
    assert cost_rows(name, [unit], workload, metric) == [[float(cost) for cost in row]]
    assert 0 <= fixed_cost(name, metric) < math.inf


@pytest.mark.parametrize("fixed", [-1.0, math.nan, math.inf, True, "3"])
def test_what_is_fixed_is_a_number_too(fixed: Any) -> None:
    metric: Any = SimpleNamespace(fixed=fixed)
    with pytest.raises(UserError, match=r"'mine' has the fixed cost .*: it is a finite number of at least 0"):
        fixed_cost("mine", metric)


def test_a_metric_of_ones_own_may_see_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @of_network
    def watts(network: Network) -> Metric:
        head = network.view.model.get_output_embeddings().weight.numel()  # type: ignore[operator]
        return lambda unit, kept, workload: kept * head

    network = toy_network(UNITS, WORKLOAD, tmp_path)
    monkeypatch.setattr(registry, "load", lambda kind, name: watts)
    metric = metric_of("watts", network)
    assert cost_rows("watts", UNITS, WORKLOAD, metric)[0] == [80, 40, 0]
    assert fixed_cost("watts", metric) == 0


# -- metrics of one's own --------------------------------------------------------------------------------------------


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Costs:
    """What a function costs as the metric of two units."""

    def of(metric: Metric) -> list[list[float]]:
        monkeypatch.setattr(registry, "load", lambda kind, name: metric)
        return cost_rows("mine", UNITS, WORKLOAD)

    return of


def test_a_metric_is_asked_for_every_level_of_every_unit(costs: Costs) -> None:
    asked = []

    def energy(unit: Unit, kept: int, workload: Workload) -> float:
        asked.append((unit, kept, workload))
        return kept * workload.context

    assert costs(energy) == [[64, 32, 0], [3072, 1536, 0]]
    assert asked == [(unit, kept, WORKLOAD) for unit in UNITS for kept in counts(unit)]


@pytest.mark.parametrize("number", [int, float, Fraction, np.int64, np.uint8, np.float16, np.float32, np.float64])
def test_numbers_of_python_and_numpy_are_costs(costs: Costs, number: Callable[[int], Any]) -> None:
    rows = costs(lambda unit, kept, workload: number(kept))
    assert rows == [[2, 1, 0], [96, 48, 0]]
    assert {type(cost) for row in rows for cost in row} == {float}


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, "None (a NoneType)"),
        (True, "True (a bool)"),
        ("12", "'12' (a str)"),
        (1j, "1j (a complex)"),
        (np.True_, "(a numpy.bool)"),
        (np.array(1.0), "array(1.) (a numpy.ndarray)"),
        (np.ones((3, 3)), "(a numpy.ndarray)"),
        (torch.ones(()), "tensor(1.) (a torch.Tensor)"),
        (torch.ones(2), "tensor([1., 1.]) (a torch.Tensor)"),
    ],
)
def test_what_is_no_number_is_refused_by_its_type(costs: Costs, value: object, seen: str) -> None:
    with pytest.raises(UserError) as raised:
        costs(lambda unit, kept, workload: value)
    message = str(raised.value)
    assert f"{seen} for unit 0.attention at 2 of 2 groups kept: a cost is one plain number." in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "seen"),
    [(math.nan, "nan"), (math.inf, "inf"), (-0.5, "-0.5"), (np.float32("nan"), "nan"), (-(10**400), "")],
)
def test_a_number_that_is_no_cost_is_refused(costs: Costs, value: float, seen: str) -> None:
    with pytest.raises(UserError, match=f"gives .*{seen}.* for unit 0.mlp at 48 of 96 groups kept: .* finite number"):
        costs(lambda unit, kept, workload: value if kept == 48 else kept)


def test_a_level_that_costs_more_than_a_denser_one_is_refused(costs: Costs) -> None:
    seen = r"gives 48 for unit 0\.mlp at 48 of 96 groups kept, and 96 at 0: a level may not cost more than a denser one"
    with pytest.raises(UserError, match=seen):
        costs(lambda unit, kept, workload: kept or (96 if unit.kind == "mlp" else 0))
    assert costs(lambda unit, kept, workload: 1) == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("value", [0, 1.7e308])
def test_everything_together_costs_a_finite_number_above_0(costs: Costs, value: float) -> None:
    with pytest.raises(UserError, match=r"gives (0|inf) for the dense network, all groups of 2 units kept"):
        costs(lambda unit, kept, workload: value)
    assert costs(lambda unit, kept, workload: float(unit.kind == "mlp"))[0] == [0, 0, 0]


@pytest.mark.parametrize(
    ("metric", "seen"),
    [
        (lambda unit, kept: kept, r"takes \(unit, kept\): a metric is a function \(unit, level, workload\) -> cost"),
        (lambda unit, *, kept, workload: kept, r"takes \(unit, \*, kept, workload\)"),
        ({"mlp": 3}, r"'mine' is a dict and cannot be called"),
        (max, r"'max' raised TypeError: "),
        (Unit, r"'Unit' takes \(name: str, "),
    ],
)
def test_what_is_no_metric_is_refused(costs: Costs, metric: Any, seen: str) -> None:
    with pytest.raises(UserError, match=seen):
        costs(metric)


# -- tables ----------------------------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda text: text == text.strip() != ""
)
keys: st.SearchStrategy[Key] = st.integers(0, 10**6)
tables = st.dictionaries(
    names,
    st.dictionaries(keys, st.floats(0, allow_infinity=False), min_size=1, max_size=4),
    max_size=6,
)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, dict[str, dict[Key, float]]]:
    """A table, and its text as some program may have written it: other columns, orders, quotes and line ends."""
    table = draw(tables)
    rows = [{"unit": u, "kept": k, "cost": repr(c)} for u, costs in table.items() for k, c in costs.items()]
    columns = draw(st.permutations(["unit", "kept", "cost", *draw(st.sampled_from([[], ["runs", "µs"]]))]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, columns, restval=draw(st.sampled_from(["", "x,y"])), lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )  # fmt: skip
    writer.writeheader()
    writer.writerows(draw(st.permutations(rows)))
    return text.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig"]))), table


@pytest.fixture(scope="module")
def csv_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where hypothesis writes its tables."""
    return tmp_path_factory.mktemp("tables") / "table.csv"


@settings(deadline=None)  # the disk takes its time
@given(written=files())
def test_a_table_is_read_as_it_was_written(csv_path: Path, written: tuple[bytes, dict[str, dict[Key, float]]]) -> None:
    csv_path.write_bytes(written[0])
    assert read(csv_path) == Table(csv_path, written[1])


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"unit,kept,cost\n{text}".encode()))
def test_any_file_is_a_table_or_gets_a_sentence(csv_path: Path, data: bytes) -> None:
    csv_path.write_bytes(data)
    table, message = Table(csv_path, {}), None
    try:
        table = read(csv_path)
    except UserError as error:
        message = str(error)
    assert message is None or (message.startswith(f"the table '{csv_path}'") and len(message.splitlines()) == 1)
    rows = [row for costs in table.costs.values() for row in costs.items()]
    assert all(isinstance(kept, int) and kept >= 0 and 0 <= cost < math.inf for kept, cost in rows)


@given(tables, units())
def test_a_table_answers_or_names_what_it_lacks(costs: dict[str, dict[Key, float]], unit: Unit) -> None:
    table = Table(Path("t.csv"), costs | {"mlp": dict.fromkeys(counts(unit), 1.0)})
    if unit.kind == "mlp":
        table.check_units([unit])
        assert [table(unit, level, WORKLOAD) for level in unit.levels] == [1.0] * len(unit.levels)
        return
    lacking = ", ".join(str(kept) for kept in counts(unit) if kept > 0)
    for ask in (lambda: table.check_units([unit]), lambda: table(unit, unit.levels[0], WORKLOAD)):
        with pytest.raises(
            UserError, match=f"'t.csv' lacks unit 7.attention at {lacking} of {unit.groups} groups kept"
        ):
            ask()


def test_a_units_own_rows_win_and_nothing_kept_costs_nothing() -> None:
    table = Table(Path("t.csv"), {"mlp": {96: 5.0, 48: 3.0}, "0.mlp": {48: 2.0}})
    assert [table(UNITS[1], level, WORKLOAD) for level in UNITS[1].levels] == [5.0, 2.0, 0.0]
    assert Table(Path("t.csv"), {"mlp": {0: 0.5}})(UNITS[1], UNITS[1].levels[-1], WORKLOAD) == 0.5
    with pytest.raises(UserError, match=r"lacks unit 0\.mlp at 7 of 96 groups kept: add rows"):
        table(UNITS[1], at(UNITS[1], 7), WORKLOAD)


@given(st.integers(1, 12), st.integers(2, 12), st.lists(st.floats(0, 1)))
def test_a_table_in_kv_groups_is_not_read_as_one_in_query_heads(bundles: int, size: int, levels: list[float]) -> None:
    """As tables for earlier versions are: they have a row for each KV group at most."""
    kept = kept_groups(bundles * size, levels, bundle=size)
    unit = Unit("0.attention", "attention", 0, bundles * size, kept, 64, bundle=size)
    table = Table(Path("t.csv"), {"attention": {k: float(k) for k in range(bundles + 1)}})
    with pytest.raises(UserError, match=rf"query heads: .* for N KV groups is for {size} x N"):
        table.check_units([unit])


def test_a_table_is_checked_for_all_units_at_once() -> None:
    with pytest.raises(
        UserError, match=r"lacks unit 0\.attention at 2, 1 of 2 groups kept \(and levels of 1 other unit\):"
    ):
        Table(Path("t.csv"), {"mlp": {96: 5.0}}).check_units(UNITS)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "line 1: the header '' must name the column 'unit' once"),
        ("unit;kept;cost\nmlp;1;2", "line 1: the header 'unit;kept;cost' must name the column 'unit' once"),
        ("unit,kept,ms\nmlp,1,2", "line 1: the header 'unit,kept,ms' must name the column 'cost' once"),
        ("unit,kept,cost,cost\nmlp,1,2,3", "line 1: the header 'unit,kept,cost,cost' must name the column 'cost' once"),
        ("unit,kept,cost\nmlp,1,2\nmlp,2", "line 3: 2 fields, where the header has 3"),
        ("unit,kept,cost\nmlp,1,0,5", "line 2: 4 fields, where the header has 3"),
        ("unit,kept,cost\n,1,2", "line 2: the unit is empty"),
        ("unit,kept,cost\nmlp,half,2", "line 2: kept is 'half'"),
        ("unit,kept,cost\nmlp,1.5,2", "line 2: kept is '1.5'"),
        ("unit,kept,cost\nmlp,-1,2", "line 2: kept is '-1'"),
        ("unit,kept,cost\n\n\nmlp,1,fast", "line 4: cost is 'fast'"),
        ("unit,kept,cost\nmlp,1,", "line 2: cost is ''"),
        ("unit,kept,cost\nmlp,1,nan", "line 2: cost is 'nan'"),
        ("unit,kept,cost\nmlp,1,inf", "line 2: cost is 'inf'"),
        ("unit,kept,cost\nmlp,1,-2", "line 2: cost is '-2'"),
        ("unit,kept,cost\nmlp,1,2\nmlp,01,3", "line 3: 'mlp' at 1 groups kept was given before"),
        ('unit,kept,cost\n"mlp,1,2\n', "no CSV (unexpected end of data)"),
    ],
)
def test_a_malformed_table_is_refused_with_its_line(csv_path: Path, text: str, seen: str) -> None:
    csv_path.write_text(text)
    with pytest.raises(UserError) as raised:
        read(csv_path)
    assert str(raised.value).startswith(f"the table '{csv_path}', line ")
    assert seen in str(raised.value)


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"unit,kept,cost\nm\xe4p,1,2")
    for path, seen in (
        (tmp_path / "t.csv", "no UTF-8"),
        (tmp_path, "directory"),
        (tmp_path / "no.csv", "No such file"),
    ):
        with pytest.raises(UserError, match=seen):
            read(path)


# -- whole searches --------------------------------------------------------------------------------------------------


def test_a_search_within_a_metric_of_ones_own(
    cli: Callable[..., Answer], quick_arguments: list[str], tmp_path: Path
) -> None:
    code = "def energy(unit, kept, workload):\n    return kept * (3 if unit.kind == 'mlp' else workload.context)\n"
    (tmp_path / "my_budget.py").write_text(code)
    arguments = ["--budget", "my_budget.py:energy=0.6", "--budget", "params=0.8", "--out", "run", "--json"]
    found = json.loads(cli("search", *quick_arguments, *arguments).out)
    energy = found["costs"]["my_budget.py:energy"]
    assert energy["dense"] == 4 * (96 * 3 + 4 * 32)
    assert energy["policy"] <= energy["budget"] == 0.6 * energy["dense"]
    assert json.loads(cli("resume", "run", "--json").out)["losses"] == found["losses"]


def test_a_search_within_a_table(cli: Callable[..., Answer], quick_arguments: list[str], tmp_path: Path) -> None:
    rows = [
        "mlp,96,8",
        "mlp,72,6",
        "mlp,48,5",
        "mlp,24,5",
        "attention,4,4",
        "attention,2,3",
        "attention,1,2",
        "3.mlp,96,9",
    ]
    (tmp_path / "latency.csv").write_text("\n".join(["unit,kept,cost", *rows]))
    found = json.loads(cli("search", *quick_arguments, "--budget", "latency.csv=0.6", "--json").out)
    latency = found["costs"]["latency.csv"]
    assert latency["dense"] == 4 * (8 + 4) + 1
    assert latency["policy"] <= latency["budget"] == pytest.approx(0.6 * latency["dense"])
