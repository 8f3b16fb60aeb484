"""The agent of the guide "Extend it in one file" searches."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Answer

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs/guides/extending.md").read_text(encoding="utf-8")


def test_the_agent_in_the_guide_searches(
    cli: Callable[..., Answer], quick_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = (
        block for block in re.findall(r"```python[^\n]*\n(.*?)```", GUIDE, re.DOTALL) if "class HillClimb" in block
    )
    (tmp_path / "hill_climb.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ("--agent", "hill_climb:HillClimb", "agent_options.neighbours=4", "--out", "run", "--json")
    found = json.loads(cli("search", *quick_arguments, *arguments).out)
    assert found["spent"]["evals"] == 40
    assert json.loads(cli("resume", "run", "--json").out)["losses"] == found["losses"]
