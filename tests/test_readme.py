"""What the README says is so: its files exist, its bad inputs are tested, its example runs."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune import registry
from tests.conftest import Answer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_lists_every_source_file() -> None:
    (tree,) = re.findall(r"## The files\n\n```\n(.*?)```", README, re.DOTALL)
    listed, folder = set(), ""
    for line in tree.splitlines():
        name, purpose = line.split(maxsplit=1)
        assert purpose
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        path = name if not line.startswith(" ") else folder + name
        assert (ROOT / path).exists() or path in ("envs/", "docs/decisions.md"), path
        listed.add(path)
    sources = [
        *(ROOT / "autoprune").rglob("*.py"),
        *(ROOT / "agents").rglob("*.py"),
        *(ROOT / "envs").rglob("*.py"),
        *(ROOT / "search_spaces").rglob("*.py"),
    ]
    relative = {path.relative_to(ROOT).as_posix() for path in sources}
    wings = ("autoprune/agents/", "autoprune/envs/", "autoprune/search_spaces/")
    names = {path for path in relative if not path.startswith(wings)}
    packages = {path for path in names if path.endswith("__init__.py")} - {"autoprune/__init__.py"}
    assert names - packages - listed == set()


def test_every_row_of_bad_inputs_names_tests_that_exist() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py")]
    tests = {node.name for text in sources for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    table = README.split("## Bad inputs and what they get")[1]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 18
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert set(named) <= tests, row


@pytest.mark.parametrize("kind", ["agents", "budgets", "criteria", "losses", "rewards"])
def test_tables_list_every_part(kind: str) -> None:
    title = registry.singular(kind)
    table = re.search(rf"\| {title} \|.*?\n\n", README, re.DOTALL)
    assert table
    assert set(re.findall(r"^\| `([\w-]+)`", table[0], re.MULTILINE)) == set(registry.PARTS[kind])


def test_the_agent_in_the_readme_searches(
    cli: Callable[..., Answer], quick_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class HillClimb" in block)
    (tmp_path / "hill_climb.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ("--agent", "hill_climb:HillClimb", "agent_options.neighbours=4", "--out", "run", "--json")
    found = json.loads(cli("search", *quick_arguments, *arguments).out)
    assert found["spent"]["evals"] == 40
    assert json.loads(cli("resume", "run", "--json").out)["losses"] == found["losses"]
