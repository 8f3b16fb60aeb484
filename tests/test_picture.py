"""The picture of a policy: a column a block, which fits a terminal of 80 columns and 24 lines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune.level import Level, left, what_is_kept
from autoprune.picture import bars_of, picture
from autoprune.policy import Policy
from tests.conftest import Answer


@pytest.mark.parametrize("blocks", [1, 2, 8, 30, 70, 200, 1000])
@pytest.mark.parametrize("kinds", [1, 2, 3, 8])
def test_it_fits(blocks: int, kinds: int) -> None:
    bars = {f"a kind of units {n}": [i / blocks for i in range(blocks)] for n in range(kinds)}
    lines = picture(bars, 80)
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert lines[-1].startswith("block") or lines[-2].startswith("block")


def test_columns_are_as_high_as_what_is_kept() -> None:
    lines = picture({"mlp": [0.0, 0.25, 1.0]}, 40)
    assert lines[0] == " " * 19 + "█████"
    assert lines[7] == "mlp    ····· █████ █████"
    assert lines[8] == "       0%    25%   100%"
    assert lines[9] == "block  0           2"
    assert sum("█" in line[13:18] for line in lines) == 2, "a quarter of eight rows"


def test_a_block_without_a_unit_has_no_column() -> None:
    lines = picture({"mlp": [1.0, None]}, 40)
    assert all(line.rstrip() == line for line in lines)
    assert "100%" in lines[-2]
    assert lines[-2].count("%") == 1


def test_bars_say_what_they_are_shares_of() -> None:
    groups = Level(3, 0.5)
    bits, some = (Level(kept, 0.25, "bits", (("bits", 4),)) for kept in (6, 3))
    assert what_is_kept([groups], ["conv"]) == "Channels kept"
    assert what_is_kept([groups, bits], ["mlp"]) == "Share of the weights stored"
    assert [left(one, 6) for one in (groups, bits, some)] == ["3/6", "4 bits", "3/6, 4 bits"]


def test_a_search_ends_with_it(cli: Callable[..., Answer], quick_arguments: list[str]) -> None:
    answer = cli("search", *quick_arguments, "--agent", "uniform", "--out", "run")
    policy = Policy.load(Path("run/policy.json"))
    shares = bars_of(policy)
    assert {kind: len(row) for kind, row in shares.items()} == {"attention": 4, "mlp": 4}
    lines = answer.out.splitlines()
    start = lines.index("Groups kept in every block")
    assert lines[start + 1 : start + 1 + len(picture(shares, 80))] == picture(shares, 80)
    for unit in policy.units:
        assert f"{unit.density:.0%}" in answer.out
