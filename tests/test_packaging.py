"""The wheel and the source archive hold the package `autoprune`, its wings and its assets, and install alone."""

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import autoprune

ROOT = Path(__file__).parent.parent
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "benchmarks", "runs")
WINGS = ("agents", "envs", "search_spaces", "tasks")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        None in (find_spec("setuptools"), find_spec("build")), reason="builds without isolation, which needs setuptools"
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both archives. The first is made of a copy of the sources, the wheel of the first."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=NOT_SOURCE)
    done = said(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source")
    assert done.returncode == 0, done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (file,) = built.glob("*.whl")
    return zipfile.ZipFile(file)


def said(*command: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False, **options)


def test_the_only_package_is_autoprune(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"autoprune"}


def test_every_source_and_asset_is_in_both(wheel: zipfile.ZipFile, built: Path) -> None:
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
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
        assert not any(member.issym() or member.islnk() for member in opened.getmembers())
    assert expected | {"LICENSE", "README.md", "pyproject.toml"} <= names


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


def test_an_index_takes_them(built: Path) -> None:
    """The description renders, and no warning is left."""
    pytest.importorskip("twine")
    done = said(sys.executable, "-m", "twine", "check", "--strict", *sorted(built.iterdir()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_version_stands_in_one_place(wheel: zipfile.ZipFile) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert version == autoprune.__version__
    assert any(name.startswith(f"autoprune-{version}.dist-info/") for name in wheel.namelist())
    sources = [path for folder in ("autoprune", *WINGS) for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in sources if f'"{version}"' in path.read_text(encoding="utf-8")] == []


def test_a_search_needs_what_users_install_and_no_more(built: Path, tmp_path: Path, quick_arguments: list[str]) -> None:
    """In a fresh environment with the wheel and what it depends on, without extras and tools of development."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(said(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    for name in required("autoprune"):
        for top in {file.parts[0] for file in metadata.files(name) or [] if file.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(metadata.distribution(name).locate_file(top)))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    assert not (site / "pytest").exists()
    (file,) = built.glob("*.whl")
    done = said(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", file)
    assert done.returncode == 0, done.stderr
    command = tmp_path / "venv" / "bin" / "autoprune"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = said(command, "search", *quick_arguments, "--out", "run", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "policy.json").is_file()
    where = said(python, "-c", "import autoprune; print(autoprune.__file__)", cwd=tmp_path, env=environment)
    assert Path(where.stdout.strip()).is_relative_to(tmp_path / "venv")


def required(name: str) -> set[str]:
    """The distributions that one needs without extras, and what these need."""
    found: set[str] = set()
    waiting = [(name, "")]
    while waiting:
        distribution, extra = waiting.pop()
        for line in metadata.requires(distribution) or []:
            requirement = Requirement(line)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if wanted and canonicalize_name(requirement.name) not in found:
                with contextlib.suppress(metadata.PackageNotFoundError):
                    metadata.distribution(requirement.name)
                    found.add(canonicalize_name(requirement.name))
                    waiting += [(requirement.name, one) for one in ("", *requirement.extras)]
    return found - {canonicalize_name(name)}


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_demo_installs_the_package_alone(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    demo, tests = (
        said("make", "--no-print-directory", "--dry-run", goal, cwd=tmp_path).stdout for goal in ("demo", "test")
    )
    assert "-e ." in demo
    assert "[dev]" not in demo
    assert demo.rstrip().endswith("autoprune search")
    assert "-e '.[dev]'" in tests


def test_the_readme_names_the_index_for_torch_without_cuda() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install torch --index-url https://download.pytorch.org/whl/cpu" in readme
