"""Names and messages do not steer the terminal, whoever has written them."""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoprune.terminal import STEERING, clean
from tests.test_architecture import MODULES

ESCAPE = "\x1b]0;owned\x07\x1b[31m\x1b[2J\r\x9b2J\u202e[bold red]x[/]"


def test_what_steers_is_written_out() -> None:
    assert clean(ESCAPE) == (
        r"\u001b]0;owned\u0007\u001b[31m\u001b[2J\u000d\u009b2J\u202e[bold red]x[/]"
    )  # fmt: skip
    assert clean("a\tb\nö █ 👩‍🔬") == "a\tb\nö █ 👩‍🔬"
    assert json.loads(clean(json.dumps("\x7f"))) == "\x7f"


@pytest.fixture
def planted(finished_run: Path, tmp_path: Path) -> Path:
    """A run whose names steer."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    policy = json.loads((run / "policy.json").read_text())
    policy["units"][0] |= {"name": ESCAPE, "kind": f"mlp{ESCAPE}"}
    policy["costs"] = {ESCAPE: {"dense": 2.0, "policy": 1.0, "budget": None}}
    policy["losses"]["validation"] = {ESCAPE: {"loss": 1.0, ESCAPE: 2.0}}
    policy["provenance"] |= {"model": ESCAPE, ESCAPE: {ESCAPE: ESCAPE}}
    (run / "policy.json").write_text(json.dumps(policy))
    return run


@pytest.mark.parametrize("columns", ["40", "400"])
def test_a_planted_policy_is_shown_as_it_is(
    planted: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = cli("show", planted)
    assert shown.status == 0
    assert r"\u001b" in shown.out
    assert not STEERING.search(shown.out)
    assert "[bold red]" in shown.out
    as_json = cli("show", planted, "--json")
    assert not STEERING.search(as_json.out)
    assert json.loads(as_json.out)["units"][0]["name"] == ESCAPE


def test_messages_do_not_steer(cli: Callable[..., Any], planted: Path) -> None:
    Path("c.yaml").write_text('"a\\x1b[31m": 1\n')
    Path("t.csv").write_text(f"unit,{ESCAPE},cost\n")
    (planted / "config.yaml").write_text('"a\\x1b[2J": {\n')
    commands = (
        ["search", "--config", "c.yaml"], ["search", "--agent", ESCAPE], ["search", f"{ESCAPE}=1"],
        ["search", "--budget", "t.csv=0.5"], ["report", planted], ["show", f"none{ESCAPE}"], ["resume", planted],
        ["search", "--model", f"./{ESCAPE}"], ["search", "--data", ESCAPE],
    )  # fmt: skip
    for command in commands:
        answer = cli(*command)
        assert answer.status == 2, command
        assert not STEERING.search(answer.err + answer.out), command


def test_only_the_terminal_prints() -> None:
    """Whatever is printed goes through `terminal.echo` or through rich's console of `display`."""
    found = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                owner = getattr(getattr(node.func, "value", None), "id", "")
                if (
                    (name == "print" and isinstance(node.func, ast.Name))
                    or (owner, name) == ("typer", "echo")
                    or name == "Console"
                ):
                    found.add(module)
    assert found == {"autoprune.terminal"}
