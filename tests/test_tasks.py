"""A task is one file: what the port asks, what refuses, and a third task that no part of the engine knows."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoprune
from autoprune import exporting, registry
from autoprune.api import evaluate
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.exporters import load_module
from autoprune.ports.task import FEATURES, Task
from autoprune.provenance import proposal_of
from autoprune.refits import refit
from autoprune.task_choice import DEFAULT, built_in, load_task, task_of, words_of
from autoprune.wording import Measure, Words
from tests import vectors
from tests.conftest import Answer

ROOT = Path(__file__).parent.parent
TASK = f"{ROOT / 'tests' / 'vectors.py'}:Regression"
MODEL = f"{ROOT / 'tests' / 'vectors.py'}:network"
OTHERS = re.compile(r"(?i)\b(tokens?|sequences?|perplexity|accuracy|images?|pixels|text)\b")
"""Words of our own tasks, which must not be said of vectors."""
FREE = ("tasks", "models", "networks", "search_spaces")
"""Where a task may be named: its own wing, networks, and families, which say whose networks they are."""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    vectors.save_data(tmp_path / "data.npz")
    return {"task": TASK, "model": MODEL, "data": str(tmp_path / "data.npz"), "levels": 5, "max_evals": 30}


# -- a third task --------------------------------------------------------------------------------------------------


def test_a_third_task_is_searched_tuned_reported_and_exported(
    settings: dict[str, Any], cli: Callable[..., Answer], tmp_path: Path
) -> None:
    """Everything that a user does with a run, from the command line, without an edit to the engine."""
    arguments = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    searched = cli("search", *arguments, "--out", "run")
    assert searched.status == 0, searched.err
    assert {"vectors/s", "MACs/vector", "R2"} <= set(re.split(r"\s{2,}|\n", searched.out))
    answers = [searched]
    for command in (["show", "run"], ["finetune", "run", "--epochs", "3"], ["report", "run"], ["evaluate", "run"]):
        answers.append(cli(*command))
        assert answers[-1].status == 0, answers[-1].err
    answers.append(cli("export", "run", "out"))
    assert answers[-1].status == 0, answers[-1].err
    for answer in answers:
        said = (answer.out + answer.err).replace(str(tmp_path), "")
        assert not OTHERS.search(said), OTHERS.search(said)
    assert re.search(r"found +R2 0\.\d+, squared error 0\.\d+", answers[2].out)
    page = Path("run/report.html").read_text().partition("Configuration")[0]
    page = re.sub(r"(?s)<(style|script).*?</\1>|<[^>]+>", " ", page)
    assert {"R2", "MACs/vector"} <= set(page.split())
    assert not OTHERS.search(page), OTHERS.search(page)
    assert "squared error per vector" in page
    assert re.search(r"\d+ samples", page)


def test_the_numbers_of_a_third_task_are_its_own(settings: dict[str, Any], tmp_path: Path) -> None:
    result = autoprune.search(**settings, out=tmp_path / "run")
    dense, uniform, best = result.table
    x, y = (torch.from_numpy(np.load(settings["data"])[name]) for name in ("x", "y"))
    numbers = result.assembly.splits.validation
    with torch.no_grad():
        expected = float((vectors.network()(x[numbers]) - y[numbers]).square().mean())
    assert dense.mse == pytest.approx(expected, rel=1e-4)
    assert dense.r2 == pytest.approx(1 - expected / float(y[numbers].var(1, correction=0).mean()), rel=1e-4)
    assert dense.mse < best.mse <= uniform.mse
    rows = json.loads((tmp_path / "run/result.json").read_text())["table"]
    assert rows[0]["mse"] == dense.mse
    assert result.policy.losses["validation"]["best"] == {"loss": best.mse, "mse": best.mse, "r2": best.r2}
    recovered = autoprune.finetune(tmp_path / "run", epochs=3)
    assert recovered.after.loss < best.mse
    assert evaluate(tmp_path / "run")["R2"] == pytest.approx(best.r2)


def test_a_third_task_s_export_gives_what_was_scored(settings: dict[str, Any], tmp_path: Path) -> None:
    result = autoprune.search(**settings, out=tmp_path / "run")
    result.export(tmp_path / "out", to="module")
    network = load_module.load(vectors.network(), tmp_path / "out")
    assembly = result.assembly
    if result.policy.refit is None:
        assembly.placer.place(proposal_of(assembly, result.policy))
    else:
        refit(assembly, proposal_of(assembly, result.policy), result.policy.refit.digest).place(assembly.placer)
    x = torch.from_numpy(np.load(settings["data"])["x"][:5])
    with torch.no_grad():
        assert torch.allclose(network(x), assembly.view(torch.arange(5).view(1, 5))[0], atol=1e-5)
    assert "| best |" in (tmp_path / "out/README.md").read_text()
    assert "squared error | R2" in (tmp_path / "out/README.md").read_text()


def test_a_third_task_has_graphs_derivatives_and_comparisons(settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    own = settings | {"criterion": "taylor", "max_evals": 15}
    compared = autoprune.compare(["evolution", "random"], seeds=1, out=tmp_path / "cmp", **own)
    results = json.loads((tmp_path / "cmp/league.json").read_text())
    assert (results["task"], results["words"]["item"]) == ("vectors", "vector")
    assert compared.table[0]["r2"] > compared.league["references"]["uniform"]["r2"] - 0.5
    run = tmp_path / "cmp" / "evolution-s0"
    assembly, policy = exporting.reopen(run)
    exporting.export_policy(assembly, policy, tmp_path / "graph", "onnx")
    (entry,) = json.loads((tmp_path / "graph/config.json").read_text())["inputs"]
    assert entry == {"name": "x", "dtype": "float32", "shape": ["batch", vectors.SIDE]}


def test_files_of_a_third_task_are_read_without_its_code(
    settings: dict[str, Any], cli: Callable[..., Answer], tmp_path: Path
) -> None:
    """A report runs no code that a file names: words are in the file."""
    autoprune.search(**settings, out=tmp_path / "run")
    code = (
        "import sys\nfrom pathlib import Path\nfrom autoprune.space_file import words_of_run\n"
        f"words = words_of_run(Path({str(tmp_path / 'run')!r}))\n"
        "print(words.items, words.quality.name, any('vectors' in name for name in sys.modules), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["vectors", "R2", "False", "False"]


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ({"workload.phase": "decode"}, "workload.phase=decode is not supported by the task 'vectors'"),
        ({"workers": 2}, "scoring on Ray (workers, ray_address) is not supported"),
        ({"device_memory": 10**9}, "device_memory is not supported"),
        ({"budgets": {"roofline": 0.5}}, "the budget roofline is not supported"),
        ({"agent": "policy-gradient-masks"}, "(masks) is not supported"),
    ],
)
def test_what_a_task_cannot_do_is_refused(settings: dict[str, Any], more: dict[str, Any], seen: str) -> None:
    with pytest.raises(UserError, match=re.escape(seen)):
        autoprune.search(**settings | more)


# -- the port ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("tasks"))
def test_every_task_holds_what_the_port_asks(name: str) -> None:
    task = load_task(name)
    assert task.name == task.words.task == name
    assert set(task.supports) <= set(FEATURES)
    assert set(task.instead) <= set(FEATURES) - set(task.supports), "what is supported needs no way out"
    assert task.words.quality.key in task.quality({task.label_loss: 0.5, **dict.fromkeys(task.measured, 0.25)})
    assert len({*task.words.known}) == len(task.words.known)
    for feature in FEATURES:
        if feature in task.supports:
            task.require(feature)
        else:
            with pytest.raises(UserError):
                task.require(feature)
    task.require("params", "a/table.csv")  # which is no feature: whatever else a user names is not the task's


def test_every_member_of_the_port_is_documented() -> None:
    tree = ast.parse(Path(ROOT, "autoprune/ports/task.py").read_text())
    (port,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Task")
    for node, behind in zip(port.body, [*port.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef):
            assert ast.get_docstring(node), node.name
        if isinstance(node, ast.AnnAssign):
            assert isinstance(behind, ast.Expr), ast.unparse(node)
    declared = {name for name in vars(Task) if not name.startswith("_")}
    declared |= set(Task.__annotations__)
    for name in registry.names("tasks"):
        kinds = [kind for kind in type(load_task(name)).__mro__ if issubclass(kind, Task) and kind is not Task]
        own = {key for kind in kinds for key in vars(kind) if not key.startswith("_")}
        assert own <= declared, f"{name} has members that the port does not declare"


def test_a_task_is_found_from_the_model_or_configured(tmp_path: Path) -> None:
    first, second = registry.PARTS["tasks"]
    assert first == DEFAULT
    assert task_of(None, None).name == task_of(None, "nowhere").name == first
    assert task_of(None, "tiny-cnn").name == task_of(None, "net.py:net").name == second
    assert task_of(first, "tiny-cnn").name == first
    assert load_config(None, {"task": TASK}).loss == "mse"
    assert load_config(None, {"task": TASK, "loss": "kl"}).loss == "kl"
    for wrong, seen in [("pictures", "no task is called 'pictures'"), (MODEL, "no subclass of autoprune.ports.task")]:
        with pytest.raises(UserError, match=re.escape(seen)):
            load_config(None, {"task": wrong})
    (tmp_path / "own.py").write_text("from autoprune.ports.task import Task\nclass Own(Task):\n    name = 'own'\n")
    with pytest.raises(UserError, match="lacks forward_pass, macs, prepare, words"):
        load_task(f"{tmp_path / 'own.py'}:Own")
    with pytest.raises(UserError, match="task"):
        load_config(None, {"task": 5})


def test_words_come_from_a_file_or_from_our_own_tasks() -> None:
    own = {"task": "sounds", "item": "clip", "quality": {"key": "wer", "name": "word error rate", "form": "percent"}}
    assert words_of({}) == words_of({"task": DEFAULT}) == built_in()[DEFAULT]
    assert words_of({"task": "sounds", "words": own}).items == "clips"
    assert words_of({"words": own}).quality == Measure("wer", "word error rate", "percent")
    for damaged in ({"task": "sounds"}, {"task": DEFAULT, "words": own}, {"words": {"item": 5}}, {"task": None}):
        with pytest.raises(ValueError, match=r"words|task"):
            words_of(damaged)
    assert Words().measures == (Measure("ce", "cross-entropy"),)


# -- nobody else asks ------------------------------------------------------------------------------------------------


def named_tasks(source: str) -> Iterator[str]:
    """Where some source asks what is read: names of tasks as texts, and what only networks of one task are."""
    names = set(registry.PARTS["tasks"])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in names:
            yield f"line {node.lineno}: {node.value!r}"
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            kinds = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            if kinds & {"ImageView", "TracedView"}:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("family.task"):
            yield f"line {node.lineno}: {ast.unparse(node)}"


ALLOWED = {
    "autoprune/registry.py",  # the names themselves
    "autoprune/data",  # keys of .npz files, and usual names of columns
    "autoprune/drawing",  # the element of SVG
}


def test_nobody_but_tasks_and_networks_asks_what_is_read() -> None:
    """The 38 places in 19 files that asked "text or images" are gone; a new one fails here."""
    asked = {}
    for path in sorted((ROOT / "autoprune").rglob("*.py")):
        inside = path.relative_to(ROOT).as_posix()
        if not set(path.relative_to(ROOT).parts) & set(FREE) and not inside.startswith(tuple(ALLOWED)):
            asked[inside] = list(named_tasks(path.read_text(encoding="utf-8")))
    for wing in ("agents", "envs"):
        for path in sorted((ROOT / wing).rglob("*.py")):
            asked[path.relative_to(ROOT).as_posix()] = list(named_tasks(path.read_text(encoding="utf-8")))
    assert {path: places for path, places in asked.items() if places} == {}


def test_asking_is_noticed() -> None:
    bad = 'if view.family.task == "images" or isinstance(view, ImageView): pass'
    assert len(list(named_tasks(bad))) == 3
