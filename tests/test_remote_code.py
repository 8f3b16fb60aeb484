"""A directory's own code is never run unasked: by no command, by no function, by no "yes" on standard input."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoprune import api
from autoprune.errors import UserError
from tests.test_architecture import MODULES

LOADER = "autoprune.networks.pretrained"
TRAP = "from pathlib import Path\nPath({marker!r}).touch()\nraise RuntimeError('this code was run')\n"
AUTO = {
    "config.json": {
        "AutoConfig": "trap.C",
        "AutoModel": "trap.M",
        "AutoModelForCausalLM": "trap.M",
        "AutoModelForImageClassification": "trap.M",
    },
    "tokenizer_config.json": {"AutoTokenizer": [None, "trap.T"]},
    "preprocessor_config.json": {"AutoImageProcessor": "trap.P", "AutoProcessor": "trap.P"},
}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Is there once the trap's code has run."""
    return tmp_path / "marker"


@pytest.fixture(params=["of its own type", "of a known type"])
def trapped(tiny_model: str, tmp_path: Path, marker: Path, request: pytest.FixtureRequest) -> Path:
    """A model whose every part names code that lies beside it."""
    path = tmp_path / "trapped"
    shutil.copytree(tiny_model, path)
    for name in ("trap.py", "custom_generate/generate.py"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(TRAP.format(marker=str(marker)))
    for name, auto_map in AUTO.items():
        file = path / name
        told = json.loads(file.read_text()) if file.is_file() else {}
        if request.param == "of its own type" and name == "config.json":
            told["model_type"] = "trap"
        file.write_text(json.dumps(told | {"auto_map": auto_map}))
    return path


def run_with_yes(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own that is told yes, whatever it asks."""
    return subprocess.run(
        [sys.executable, "-m", "autoprune", *map(str, arguments)],
        input="yes\n" * 50, capture_output=True, text=True, cwd=cwd, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("trapped", ["of its own type"], indirect=True)
def test_a_piped_yes_runs_no_code(trapped: Path, marker: Path, text_file: str, tmp_path: Path) -> None:
    done = run_with_yes("evaluate", trapped, "--data", text_file, "--sequence-length", 32, cwd=tmp_path)
    assert not marker.exists()
    assert done.returncode == 2, done.stderr
    assert "--trust-remote-code" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "search": lambda model, run: ["--model", model, "--max-evals", 2, "--out", run.with_name("new")],
    "compare": lambda model, run: ["--model", model, "--agents", "random", "--seeds", 1, "--out", run.with_name("new")],
    "evaluate": lambda model, run: [model, "--sequence-length", 32],
    "resume": lambda model, run: [run],
    "export": lambda model, run: [run, run.with_name("exported")],
    "finetune": lambda model, run: [run, "--epochs", 0],
    "show": lambda model, run: [run],
    "report": lambda model, run: [run],
}
"""Of every command that may come across a model, its arguments."""


def test_every_command_is_tried() -> None:
    from autoprune.cli import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names - set(COMMANDS) == {"dashboard", "init", "list", "push", "watch"}  # which come across none


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_a_directorys_code(
    command: str, trapped: Path, marker: Path, finished_run: Path, tmp_path: Path, cli: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    config = run / "config.yaml"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(f"model: {trapped}" if line.startswith("model:") else line for line in lines))
    monkeypatch.setattr("builtins.input", lambda *_: "yes")
    answer = cli(command, *COMMANDS[command](trapped, run))
    assert not marker.exists()
    assert "Traceback" not in answer.err
    assert answer.status in (0, 2)


FUNCTIONS: dict[str, Callable[[Path, Path], object]] = {
    "search": lambda model, out: api.search(model=str(model), max_evals=2, out=out),
    "compare": lambda model, out: api.compare(["random"], 1, model=str(model), max_evals=2, out=out),
    "evaluate": lambda model, out: api.evaluate(model, sequence_length=32),
}


@pytest.mark.parametrize("trapped", ["of its own type"], indirect=True)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_runs_a_directorys_code(
    function: str, trapped: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "yes")
    with pytest.raises(UserError):
        FUNCTIONS[function](trapped, tmp_path / "new")
    assert not marker.exists()


def calls(source: str) -> set[str]:
    """Names of the attributes and functions that some source calls."""
    functions = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {getattr(function, "attr", getattr(function, "id", "")) for function in functions}


OTHERS = {
    "autoprune.cards.metadata",  # fetches a README
    "autoprune.data.hub",  # data sets, whose library runs no code since its version 4
    "autoprune.exporters.huggingface",  # fills a model that is in memory
}


def test_there_is_one_loader() -> None:
    banned = {"from_pretrained", "load_dataset", "hf_hub_download", "snapshot_download", "pipeline"}
    found = {name for name, path in MODULES.items() if calls(path.read_text(encoding="utf-8")) & banned}
    assert found == {LOADER} | OTHERS
    assert "trust_remote_code=trust_remote_code" in MODULES[LOADER].read_text(encoding="utf-8")
