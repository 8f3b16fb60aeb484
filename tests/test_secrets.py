"""What is in no file: a storage's password. And what nobody else may enter: scratch folders, gone with their owner."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage

from autoprune.config import STORAGE, load_config
from autoprune.errors import UserError
from autoprune.files.writing import BUILDING, OLD, replacing, scratch, write_atomically
from autoprune.records import storage
from autoprune.rundir import locked

URL = "postgresql+psycopg://me:secret@host/studies"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """URLs of storages that were opened; a file stands for the server."""
    opened: list[str] = []

    def opening(url: str) -> RDBStorage:
        opened.append(url)
        return RDBStorage(f"sqlite:///{tmp_path}/server.db")

    monkeypatch.setattr(storage, "_database", opening)
    return opened


def test_a_password_is_in_no_file_of_a_run(
    database: list[str], quick_arguments: list[str], cli: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    assert cli("search", *quick_arguments, "max_evals=8", "--storage", URL, "--out", "run").status == 0
    chosen = ("--agents", "random", "--seeds", "1", "--storage", URL)
    assert cli("compare", *quick_arguments, "max_evals=8", *chosen, "--out", "cmp").status == 0
    assert set(database) == {URL}
    for folder in ("run", "cmp"):
        held = [path for path in Path(folder).rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
        assert not held
        config = load_config(Path(folder) / "config.yaml")
        assert config.storage == URL.replace("secret", "***")
        refused = cli("resume", folder)
        assert refused.status == 2
        assert STORAGE in refused.err
        assert "--storage" in refused.err
        database.clear()
        assert cli("resume", folder, "--storage", URL).status == 0
        with monkeypatch.context() as patch:
            patch.setenv(STORAGE, URL)
            assert cli("resume", folder).status == 0
        assert set(database) <= {URL}
    assert cli("report", "run").status == 0
    assert cli("show", "run").status == 0


def test_a_url_of_the_environment_is_of_that_storage_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.yaml").write_text("storage: postgresql://me:***@host/other\n")
    monkeypatch.setenv(STORAGE, URL)
    assert load_config(tmp_path / "c.yaml").storage == "postgresql://me:***@host/other"
    assert load_config(None, {"model": "tiny-cnn"}).storage is None


def test_a_scratch_folder_is_its_owners_alone_and_goes(tmp_path: Path) -> None:
    with scratch(tmp_path, BUILDING) as one, scratch(tmp_path, BUILDING) as other:
        assert one != other
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        assert one.is_dir(), "its owner lives"
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom autoprune.files.writing import BUILDING, scratch\n"
        "with scratch(Path(sys.argv[1]), BUILDING) as folder:\n    (folder / 'store').mkdir()\n"
        "    print(folder, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with scratch(tmp_path, BUILDING):
            assert left.is_dir(), "its owner lives"
        process.send_signal(signal.SIGKILL)
    kept = tmp_path / f"{BUILDING}kept"
    (kept / OLD).mkdir(parents=True)
    (kept / "lock").touch()
    (tmp_path / f"{BUILDING}young").mkdir()
    (tmp_path / f"{BUILDING}link").symlink_to("/")
    old = tmp_path / f"{BUILDING}old"
    old.mkdir()
    os.utime(old, (0, 0))
    assert left.is_dir()
    with scratch(tmp_path, BUILDING):
        names = {path.name.removeprefix(BUILDING) for path in tmp_path.iterdir()}
    assert not left.exists()
    assert names > {"kept", "young", "link"}
    assert "old" not in names


def test_no_planted_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "file").symlink_to("victim")
    (tmp_path / "file.tmp").symlink_to("victim")
    write_atomically(tmp_path / "file", "new")
    (tmp_path / "other").symlink_to("victim")
    with replacing(tmp_path / "other") as path:
        path.write_text("new")
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "file").read_text() == (tmp_path / "other").read_text() == "new"
    assert not (tmp_path / "file").is_symlink()
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) & 0o044, "as any file of the user's"


def test_no_device_and_no_pipe_is_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for place in (tmp_path / "pipe", tmp_path / "link", Path("/dev/no-device-of-this-name"), Path("/proc/self/fd/1")):
        with pytest.raises(UserError, match="no regular file can be there"):
            write_atomically(place, "new")
        with pytest.raises(OSError, match="no regular file can be there"), replacing(place):
            raise AssertionError("nothing is written")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    "name", [".lock", "journal.jsonl", "study.log", "policy.json", "front", "finetuned", "config.yaml", "model.zip"]
)
def test_a_run_with_a_planted_link_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    victim, run = tmp_path / "victim", tmp_path / "run"
    run.mkdir()
    if name in ("front", "finetuned"):
        victim.mkdir()
        (victim / "important.json").write_text("mine")
    else:
        victim.write_text("mine")
    (run / name).symlink_to(victim)
    with pytest.raises(UserError, match="symbolic link"), locked(run):
        pass
    assert (victim / "important.json" if victim.is_dir() else victim).read_text() == "mine"
    (run / name).unlink()
    with locked(run):
        pass


def test_exports_and_folders_of_one_s_own_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "hf").symlink_to(tmp_path / "elsewhere")
    with locked(tmp_path / "run"):
        pass


def test_ray_works_in_a_folder_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from autoprune.workers.cluster import Cluster

    seen: list[tuple[Path, int]] = []

    def init(**options: Any) -> None:
        folder = Path(options["_temp_dir"]).parent
        seen.append((folder, stat.S_IMODE(folder.stat().st_mode)))
        raise RuntimeError("not today")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match="not today"):
        Cluster(load_config(None, {"model": "tiny-cnn", "workers": 2}))
    ((folder, mode),) = seen
    assert mode == 0o700
    assert not folder.exists()
