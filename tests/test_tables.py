"""Tables fit the terminal: heads wrap, columns go below, names shorten last, and no number is ever cut."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from autoprune import display
from autoprune.cost_lines import amount, number
from autoprune.policy import Cost, Policy, Totals, UnitPolicy
from autoprune.table_fitting import needed, parts_of, shortened
from autoprune.task_choice import built_in
from tests.test_cli import Cli

WIDTHS = (80, 60)
LONG = "policy-gradient-masks-of-somebody-who-likes-names/with_a_folder.py:AndAClassOfHisOwn"
BIG = 123_456_789_012.0
COST = Cost(dense=BIG, policy=BIG / 3, budget=BIG / 2, network=Totals(dense=2 * BIG, policy=BIG), of="prunable")


def digits(text: str) -> set[str]:
    """The numbers that stand in a text, with their letters."""
    return set(re.findall(r"\d[\d.,]*[kMGT%]?", text))


def fits(capsys: pytest.CaptureFixture[str], width: int) -> str:
    """What was printed, when no line is wider and nothing was cut by rich."""
    shown = capsys.readouterr().out
    wide = [line for line in shown.splitlines() if cell_len(line.rstrip()) > width]
    assert not [line for line in wide if not line.startswith(("budget: ", "budgets: "))], shown
    return shown


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@given(
    rows=st.lists(st.lists(st.text("ab c9", min_size=1, max_size=30), min_size=4, max_size=4), min_size=1, max_size=4),
    left=st.integers(1, 2),
    width=st.integers(35, 100),
)
def test_no_number_is_ever_cut(rows: list[list[str]], left: int, width: int) -> None:
    columns = ["a name of a column", "b", "another", "MACs/token"]
    parts = parts_of(columns, rows, left, width)
    shown = [
        (head, [row[i] for row in part.rows]) for part in parts for i, head in enumerate(part.columns) if i >= left
    ]
    expected = list(zip(columns, zip(*rows, strict=True), strict=True))[left:]
    assert ["".join(head.split()) for head, _ in shown] == ["".join(head.split()) for head, _ in expected]
    assert [cells for _, cells in shown] == [list(cells) for _, cells in expected]
    for part in parts:
        assert len(part.columns) == left + 1 or needed(part) <= width


def test_names_shorten_last() -> None:
    columns = ["", "loss (kl)", "parameters"]
    rows = [[LONG, "0.1234", "5.41M"], ["b", "1,234,567", "3M"]]
    (whole,) = parts_of(columns, rows, 1, 120)
    assert whole.rows == rows
    (folded,) = parts_of(columns, rows, 1, 60)
    assert folded.rows[0][0].replace("\n", "") == LONG
    assert folded.rows[0][0].startswith("policy-gradient-\n")
    rows = [["x" * 70 + "y", "0.1234", "5.41M"], ["b", "1,234,567", "3M"]]
    below = parts_of(columns, rows, 1, 85)
    assert [(part.rows[0][0], needed(part) <= 85) for part in below] == [(rows[0][0], True)] * 2
    narrow = parts_of(columns, rows, 1, 60)
    for part in narrow:
        assert re.fullmatch("x+…x+y", part.rows[0][0])
        assert needed(part) <= 60
    assert [cell for part in narrow for cell in part.rows[1][1:]] == ["1,234,567", "3M"]
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("abcde", 5) == "abcde"


def test_results_fit(capsys: pytest.CaptureFixture[str], width: int) -> None:
    rows: list[dict[str, Any]] = [
        {
            "name": name, "validation_loss": 1234.56789, "perplexity": 98765.4321, "params": BIG, "macs": 7 * BIG,
            "tokens_per_second": 1_234_567.0, "speed_spread": 0.123,
            "costs": {"latency": 1234.5, "activation": 987_654_321.0, f"{LONG}": 0.123456},
        }
        for name in ("dense", "uniform", LONG)
    ]  # fmt: skip
    costs = {
        "params": COST,
        "latency": Cost(dense=2000, policy=1234.5, budget=1300, of="model", measure="ms"),
        "activation": Cost(dense=1e9, policy=987_654_321, budget=1e9, of="model", measure="bytes"),
        LONG: Cost(dense=1, policy=0.123456, budget=0.5),
    }
    display.print_results("Validation split", rows, "kl", built_in()["text"], costs)
    shown = fits(capsys, width)
    numbers = ["1234.5679", "9.877e+04", "123G", "864G", "1,234", "0.123", "185G", "1,300"]
    for one in (*numbers, "988 MB", "1,234,567 ± 12%"):
        assert one in shown, one
    assert {"latency", "(ms)", "activation", "AndAClassOfHisOwn"} <= set(shown.split())


def test_costs_and_policies_fit(capsys: pytest.CaptureFixture[str], width: int) -> None:
    kinds = ("attention", "mlp", "a_kind_with_a_name_as_long_as_this_one_has", "conv")
    units = [
        UnitPolicy(
            name=f"{b}.{kind}.{i}", kind=kind, block=b, groups=1_234_567, level=0, kept=1, density=1 / 1_234_567,
            kept_groups="0",
        )
        for b in (0, 11) for kind in kinds for i in range(3)
    ]  # fmt: skip
    losses = {"validation": {name: {"loss": 12.3456, "ce": 123.4567, "perplexity": 1e9} for name in ("dense", LONG)}}
    policy = Policy(
        schema="autoprune.policy/2", units=units, costs={"params": COST, "macs": COST, LONG: COST}, losses=losses,
        provenance={"loss": "kl"},
    )  # fmt: skip
    display.print_policy(policy, built_in()["text"])
    shown = fits(capsys, width)
    assert shown.count("1/1,234,567") == len(units)
    assert {"247G", "123G", "41.2G", "50.0%", "33.3%", "61.7G", "185G", "12.3456", "123.4567", "1e+09"} <= digits(
        shown
    ) | {word for word in shown.split() if "e+" in word}


def test_comparisons_fit(capsys: pytest.CaptureFixture[str], width: int) -> None:
    row = {
        "rank": 12, "agent": LONG, "seeds": 10, "failed": 2, "loss": 12.3456, "sd": 1.2345,
        "best": {"seed": 3, "loss": 11.1}, "worst": {"seed": 4, "loss": 13.3}, "search_loss": 12.0,
        "tokens": 123_456_789.0, "evals": 98_765.0,
        "seconds": 1234.5, "behind": 0.1234, "behind_error": 0.0123,
    }  # fmt: skip
    words = built_in()["images"]
    results = {
        "table": [row, row | {"agent": "random"}], "references": {"dense": {"loss": 0.0}}, "searches": [],
        "config": {"loss": "kl", "budgets": {"params": 0.5}}, "task": words.task,
    }  # fmt: skip
    display.print_comparison(results)
    shown = fits(capsys, width)
    for one in ("12.3456 ± 1.2345", "3: 11.1000", "4: 13.3000", "+0.1234 ± 0.0123", "10/12", "123,456,789", "1234.5"):
        assert one in shown, one
    assert "budgets: params at most 50% of what can be pruned" in shown


def test_a_search_fits(cli: Cli, quick_arguments: list[str], width: int) -> None:
    shown = cli("search", *quick_arguments, "--budget", "roofline=70%", "workload.hardware=h100", "--out", "r").out
    lines = [line for line in shown.splitlines() if not line.startswith(("budget:", "note:", "policy:", "export:"))]
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    assert "…" not in shown
    table = json.loads(Path("r/result.json").read_text())["table"]
    assert f"{table[2]['tokens_per_second']:,.0f} ± {table[2]['speed_spread']:.0%}" in shown
    assert number(table[2]["params"]) in shown
    assert "…" not in cli("show", "r").out


def test_numbers_keep_three_digits() -> None:
    values = {999_499: "999k", 999_500: "1M", 1e18: "1E", 0.0: "0", 999.7: "1k", -2e6: "-2M", 1234: "1.23k"}
    assert {value: number(value) for value in values} == values
    assert [amount(x, m) for x, m in ((12.34, "ms"), (1.2e6, "bytes"), (12, "bytes"), (3e9, None))] == [
        "12.3 ms", "1.2 MB", "12 B", "3G",
    ]  # fmt: skip
