"""`import autoprune` tells transformers and Gymnasium of us, whenever they come, and imports nothing heavy."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from autoprune.on_import import when_imported


def test_importing_autoprune_is_light() -> None:
    code = "import autoprune, sys; print(*{'torch', 'transformers', 'numpy', 'gymnasium'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("order", ["import autoprune, gymnasium", "import gymnasium, autoprune"])
def test_gymnasium_knows_the_environment_whichever_comes_first(order: str) -> None:
    code = f"{order}; print(gymnasium.spec('autoprune/Pruning-v0').entry_point)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "autoprune.envs.make:make_env"


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ModuleType]:
    """A module `late` that can be imported; what was called back is listed."""
    (tmp_path / "late.py").write_text("import os\nif 'BREAK' in os.environ: raise ImportError('broken')\nvalue = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "late", raising=False)
    return []


def test_calls_back_once_when_the_module_comes(late: list[ModuleType]) -> None:
    before = list(sys.meta_path)
    when_imported("late", late.append)
    when_imported("late", late.append)
    assert len(sys.meta_path) == len(before) + 1
    assert late == []
    module = importlib.import_module("late")
    assert late == [module]
    assert module.value == 1
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"  # type: ignore[union-attr]
    assert sys.meta_path == before
    del sys.modules["late"]


def test_waits_on_when_the_import_fails(late: list[ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    when_imported("late", late.append)
    monkeypatch.setenv("BREAK", "1")
    with pytest.raises(ImportError, match="broken"):
        importlib.import_module("late")
    assert late == []
    monkeypatch.delenv("BREAK")
    assert late == [importlib.import_module("late")]
    del sys.modules["late"]


def test_calls_back_at_once_when_the_module_is_there(late: list[ModuleType]) -> None:
    module = importlib.import_module("late")
    when_imported("late", late.append)
    assert late == [module]
    del sys.modules["late"]
