"""The house stands as docs and README say: imports run one way, parts load by name, the command line starts fast."""

import ast
import importlib
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import autoprune
from autoprune import registry

ROOT = Path(__file__).parent.parent
WINGS = ("agents", "envs", "search_spaces", "tasks")
MAY_IMPORT_WING = {("agents", "envs"), ("", "envs"), ("extend", "agents"), ("extend", "envs"), ("testing", "envs")}
"""The package itself lends its front door to make_env; what is for plug-ins leads to all of their parts."""

LAYERS = (
    {"arguments", "errors", "files", "usercode", "workload", "unit_statistics", "mask", "terminal", "wording"}
    | {"amounts", "settings_record", "fingerprints", "live", "spending", "table_fitting", "written", "data_names"}
    | {"unmet"},
    {"registry", "objects", "level", "unit", "growth", "steps", "space", "incumbents", "requests",
      "policy", "cost_lines", "refit_text", "verdict", "settings_file", "config", "forms", "journal", "rundir",
      "space_file", "scorer", "ports", "task_choice", "task_guard", "stopping", "limits_of_runs", "rounds_file"},
    {"cutting", "data", "drawing"},
    {"networks", "models", "calibration", "budgets", "distillation"},
    {"levels"},
    {"training"},
    {"evaluation"},
    {"archive", "clock", "fidelity", "slope_requests", "losses_of_policies", "objective", "assembly", "coverage"}
    | {"undominated", "whole", "records"},
    {"callbacks", "fine_tuned", "run_state", "cautions", "given_models", "provenance", "refits", "cards"},
    {"logs", "console", "progress", "notebook_display", "showing"},
    {"exporters", "workers", "tracking"},
    {"validation", "refit_choice", "exporting", "publishing"},
    {"study", "result", "result_file", "result_frame", "result_html", "result_table", "result_text"},
    {"comparing", "recovery"},
    {"rounds"},
    {"api", "reports"},
    {"testing", "extend", "watching"},
    {"cli", "command_output", "evaluation_text", "faults", "display", "listing", "on_import", "options", "picture",
     "shell", "__main__"},
)  # fmt: skip
"""The engine from the ground up; a module imports from its own layer and from those before it."""

RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def modules() -> dict[str, Path]:
    """Every module of the package by dotted name, the wings among them."""
    files = [path for path in (ROOT / "autoprune").rglob("*.py") if not set(path.parts) & set(WINGS)]
    found = {f"autoprune.{_dotted(path.relative_to(ROOT / 'autoprune'))}".rstrip("."): path for path in files}
    for wing in WINGS:
        found |= {
            f"autoprune.{_dotted(path.relative_to(ROOT))}".rstrip("."): path for path in (ROOT / wing).rglob("*.py")
        }
    return found


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = modules()


def imports(source: str, types: bool = True) -> Iterator[str]:
    """Dotted names of the modules that some source imports, wherever in it; without `types`, not for types alone."""
    tree = ast.parse(source)
    if not types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            base = node.module or ""
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


def place(module: str) -> str:
    """The part of the house a module is in: `agents`, `levels`, `study`, or "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def wrong(importer: str, source: str) -> list[str]:
    """What a module imports against the direction; a port names, for types alone, what its parts are handed."""
    here, found = place(importer), []
    for target in imports(source, types=here != "ports"):
        if target.split(".")[0] != "autoprune" or place(target) == here:
            continue
        there = place(target)
        if there in WINGS:
            bad = (here, there) not in MAY_IMPORT_WING
        else:
            bad = here not in WINGS and here != "" and (there == "" or RANK[there] > RANK[here])
        if bad:
            found.append(target)
    return found


def test_every_module_has_its_place() -> None:
    assert {place(module) for module in MODULES} - {""} <= set(RANK) | set(WINGS)
    assert {"autoprune.agents.evolution", "autoprune.search_spaces.llama", "autoprune.study"} <= set(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_one_way(module: str) -> None:
    assert wrong(module, MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("importer", "source", "bad"),
    [
        ("autoprune.objective", "from autoprune.agents.evolution import Evolution", "autoprune.agents.evolution"),
        ("autoprune.study", "def f():\n    import autoprune.agents", "autoprune.agents"),
        ("autoprune.search_spaces.llama", "from autoprune.agents import random", "autoprune.agents.random"),
        ("autoprune.space", "from autoprune import study", "autoprune.study"),
        (
            "autoprune.levels.obs",
            "from autoprune.evaluation.evaluator import Evaluator",
            "autoprune.evaluation.evaluator",
        ),
        ("autoprune.networks.loading", "from autoprune import search", "autoprune"),
    ],
)
def test_wrong_imports_are_found(importer: str, source: str, bad: str) -> None:
    assert wrong(importer, source) == [bad]


def test_right_imports_are_let_through() -> None:
    assert wrong("autoprune.agents.ppo", "from autoprune.envs import x\nfrom autoprune.space import Levels") == []
    assert wrong("autoprune.study", "from autoprune import registry, rundir\nimport torch") == []
    assert wrong("autoprune.ports.task", "if TYPE_CHECKING:\n    from autoprune.networks.blocks import BlockView") == []
    assert wrong("autoprune.ports.task", "from autoprune.networks.blocks import BlockView") != []


def test_wings_are_never_imported_by_their_bare_names() -> None:
    folders = ("autoprune", "tests", "benchmarks", "scripts", *WINGS)
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        bare = {name.split(".")[0] for name in imports(path.read_text(encoding="utf-8"))} & set(WINGS)
        assert not bare, path


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, parts in registry.PARTS.items() for name in parts])
def test_registered_parts_load(kind: str, name: str) -> None:
    part = registry.load(kind, name)
    assert getattr(part, "__doc__", None)


def test_public_names_are_listed_sorted_and_there() -> None:
    assert autoprune.__all__ == sorted(autoprune.__all__)
    for name in autoprune.__all__:
        assert getattr(autoprune, name).__doc__
    typing_only = {"TYPE_CHECKING", "Any"}
    public = {name for name, value in vars(autoprune).items() if not name.startswith("_") and not _is_module(value)}
    assert public - typing_only <= set(autoprune.__all__)
    assert set(autoprune._HOME) == set(autoprune.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = autoprune.nothing


def _is_module(value: object) -> bool:
    return isinstance(value, types.ModuleType)


def test_help_is_fast_and_light() -> None:
    code = (
        "import sys, time\nfrom autoprune.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print('heavy:', *sorted({'torch', 'transformers', 'ray', 'numpy', 'optuna'} & set(sys.modules)))\n"
        "print(time.process_time())"  # of the processor: a busy machine does not count
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "search" in done.stdout
        *_, heavy, processor = done.stdout.splitlines()
        assert heavy == "heavy:"
        seconds.append(float(processor))
    assert min(seconds) < 1


def test_no_module_is_imported_twice_under_two_names() -> None:
    """The links in `autoprune/` lead to the folders at the root, and Python knows them by one name."""
    for wing in WINGS:
        link = ROOT / "autoprune" / wing
        assert link.is_symlink()
        assert link.resolve() == ROOT / wing
    assert importlib.import_module("autoprune.agents.evolution").__name__ == "autoprune.agents.evolution"
