"""Names that become files: whatever a metric, an agent, a unit or a run is called, its files stay where they belong."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.comparing.results import run_name
from autoprune.files.names import LONGEST, slug
from autoprune.level import group_levels
from autoprune.levels.store import file_of
from autoprune.rundir import new_run_path
from autoprune.space import SearchSpace, Unit
from autoprune.validation import front_names

NASTY = [
    "../../etc/passwd",
    "/absolute/lat.csv",
    "tab/lat.csv",
    ".hidden",
    "-option",
    "",
    "a\nb",
    "x" * 300,
    "ä",
    "a\0b",
]


@given(st.text())
def test_a_slug_is_the_name_of_a_file_beside_the_others(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", slug(name))
    assert len(slug(name)) <= LONGEST
    assert slug(slug(name)) == slug(name)


def test_names_that_fit_stay_and_others_do_not_meet() -> None:
    assert [slug(name) for name in ("params", "3.mlp", "policy-gradient")] == ["params", "3.mlp", "policy-gradient"]
    assert slug("tab/lat.csv") != slug("tab_lat.csv") != slug("tab:lat.csv")
    assert len({slug(name) for name in NASTY}) == len(NASTY)


@pytest.mark.parametrize("name", NASTY)
def test_every_name_that_becomes_a_file_is_one_part_of_a_path(name: str) -> None:
    unit = Unit(name, "mlp", 0, 4, group_levels(4, (4, 2, 0)), 10)
    space = SearchSpace([unit], {name: [[4.0, 2.0, 0.0]]}, {name: 2.0}, {})
    made = [run_name(name, 0), new_run_path(name, 0).name, file_of(unit), *front_names(space, [(0,), (1,)])]
    assert all(Path(one).name == one and len(one) < 200 for one in made)


def test_policies_of_a_front_with_equal_shares_are_all_kept() -> None:
    unit = Unit("0.mlp", "mlp", 0, 4, group_levels(4, (4, 2, 1)), 10)
    space = SearchSpace([unit], {"params": [[1.0, 1.0, 1.0]]}, {"params": 1.0}, {})
    assert list(front_names(space, [(0,), (1,), (2,)])) == ["params-1.000", "params-1.000-2", "params-1.000-3"]


@pytest.mark.parametrize("where", ["tab/lat.csv", "absolute", "own/metric.py:cost"])
def test_a_front_is_saved_whatever_the_metric_is_called(
    where: str, quick_arguments: list[str], cli: Callable[..., Any], tmp_path: Path
) -> None:
    """The path of a table or of a module is the name of the metric."""
    for folder in ("tab", "own"):
        Path(folder).mkdir()
    groups = [("attention", range(9)), ("mlp", range(97))]
    table = "\n".join(f"{kind},{kept},{kept}" for kind, numbers in groups for kept in numbers)
    Path("tab/lat.csv").write_text(f"unit,kept,cost\n{table}\n")
    Path("own/metric.py").write_text("def cost(unit, kept, workload):\n    return float(kept)\n")
    metric = str(tmp_path / "tab" / "lat.csv") if where == "absolute" else where
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    answer = cli("search", *quick_arguments, "--agent", "nsga2", "--budget", f"{metric}=0.6", "--out", "run", "--json")
    assert answer.status == 0, answer.err
    front = json.loads(answer.out)["front"]
    assert front
    assert {path.stem for path in Path("run/front").iterdir()} == {row["name"] for row in front}
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(tmp_path / "run") for path in made if "__pycache__" not in path.parts)
