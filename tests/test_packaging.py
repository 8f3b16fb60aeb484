"""The wheel holds the package `autoprune`, its wings and its assets, and nothing else."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "benchmarks", "runs")
WINGS = ("agents", "envs", "search_spaces", "tasks")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("setuptools") is None, reason="builds without isolation, which needs setuptools"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the sources, with the links as links."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=NOT_SOURCE)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*build, "-w", folder, folder / "source"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_only_package_is_autoprune(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"autoprune"}


def test_every_source_and_asset_is_in_it(wheel: zipfile.ZipFile) -> None:
    sources = [path for wing in WINGS for path in (ROOT / wing).rglob("*.py")]
    expected = {f"autoprune/{path.relative_to(ROOT).as_posix()}" for path in sources}
    package = ROOT / "autoprune"
    files = [
        *package.rglob("*.py"),
        *package.rglob("*.yaml"),
        *(path for path in (package / "assets").rglob("*") if path.is_file()),
    ]
    expected |= {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert "autoprune/agents/evolution.py" in expected
    assert expected | {"autoprune/py.typed"} <= set(wheel.namelist())


def test_license_and_console_script_come_along(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert "autoprune = autoprune.cli:main" in wheel.read(entry_points).decode()


def test_it_runs_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        "import autoprune.agents.evolution as e; print(e.__file__)\n"
        "from autoprune.cli import main; main(['list', 'agents'])"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.splitlines()[0] == str(tmp_path / "autoprune" / "agents" / "evolution.py")
    assert "  evolution " in done.stdout
