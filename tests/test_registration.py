"""`import autoprune` teaches transformers pruned models, whenever transformers comes, and imports nothing heavy."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from autoprune.models import registration


def test_importing_autoprune_is_light() -> None:
    code = "import autoprune, sys; print(*{'torch', 'transformers', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == ""


@pytest.fixture
def awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ModuleType]:
    """Another module is waited for, `late`; what was registered is listed."""
    registered: list[ModuleType] = []
    (tmp_path / "late.py").write_text("import os\nif 'BREAK' in os.environ: raise ImportError('broken')\nvalue = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registration, "AWAITED", "late")
    monkeypatch.setattr(registration, "_register", registered.append)
    finders = [finder for finder in sys.meta_path if not isinstance(finder, registration._Awaiter)]
    monkeypatch.setattr(sys, "meta_path", finders)
    monkeypatch.delitem(sys.modules, "late", raising=False)
    return registered


def test_registers_once_when_the_module_comes(awaited: list[ModuleType]) -> None:
    before = list(sys.meta_path)
    registration.install()
    registration.install()
    assert len(sys.meta_path) == len(before) + 1
    assert awaited == []
    late = importlib.import_module("late")
    assert awaited == [late]
    assert late.value == 1
    assert type(late.__spec__.loader).__name__ == "SourceFileLoader"  # type: ignore[union-attr]
    assert sys.meta_path == before
    del sys.modules["late"]


def test_waits_on_when_the_import_fails(awaited: list[ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    registration.install()
    monkeypatch.setenv("BREAK", "1")
    with pytest.raises(ImportError, match="broken"):
        importlib.import_module("late")
    assert awaited == []
    monkeypatch.delenv("BREAK")
    assert awaited == [importlib.import_module("late")]
    del sys.modules["late"]


def test_registers_at_once_when_the_module_is_there(awaited: list[ModuleType]) -> None:
    late = ModuleType("late")
    late.CONFIG_MAPPING = {}  # type: ignore[attr-defined]
    sys.modules["late"] = late
    registration.install()
    assert awaited == [late]
    del sys.modules["late"]
