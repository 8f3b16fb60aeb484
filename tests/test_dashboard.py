"""optuna-dashboard on a run's study, as the command serves it: what a browser asks for, its end, what is refused."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import optuna
import pytest

from autoprune.records.storage import FILE, open_storage

Refused = Callable[..., str]

COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell has put in the background
from autoprune.cli import main
main()
"""


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@contextmanager
def serving(run: Path, *options: str) -> Iterator[str]:
    """The URL of a dashboard in a process of its own, which Ctrl-C must end."""
    arguments = [sys.executable, "-c", COMMAND, "dashboard", str(run), "--port", "0", *options]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"dashboard of {run}: http://"), process.stderr and process.stderr.read()
            yield line.split()[3]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode in (0, 130)
    assert err == ""


def get(url: str) -> bytes:
    with urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def test_a_browser_sees_the_study_and_changes_nothing(run_copy: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    before = (run_copy / FILE).read_bytes()
    with serving(run_copy) as url:
        assert url.startswith("http://127.0.0.1:")
        assert b"<html" in get(url)
        (listed,) = json.loads(get(url + "api/studies"))["study_summaries"]
        assert listed["study_name"] == "finished"
        detail = studied(url, listed["study_id"])
        scores = [trial for trial in detail["trials"] if trial["state"] == "Pruned"]
        assert len(scores) == 40
        (best,) = detail["best_trials"]
        found = {
            unit["name"]: str(unit["level"]) for unit in json.loads((run_copy / "policy.json").read_text())["units"]
        }
        assert {one["name"]: one["param_external_value"] for one in best["params"]} == found
        for method, path in (("DELETE", "api/studies/0"), ("POST", "api/studies"), ("PUT", "api/studies/0/note")):
            with pytest.raises(HTTPError, match="405"):
                urlopen(Request(url + path, data=b"{}", method=method), timeout=30)
    assert (run_copy / FILE).read_bytes() == before


def studied(url: str, study: int) -> dict[str, Any]:
    return dict(json.loads(get(f"{url}api/studies/{study}?after=0")))


def test_a_search_at_work_is_followed(run_copy: Path) -> None:
    """Its file grows while it is read, and its last line may be half written."""
    pytest.importorskip("optuna_dashboard")
    lines = (run_copy / FILE).read_bytes().splitlines(keepends=True)
    total = len(optuna.load_study(study_name="finished", storage=open_storage(run_copy, None)).trials)
    (run_copy / FILE).write_bytes(b"".join(lines[:20]) + lines[20][:30])
    with serving(run_copy) as url:
        few = len(studied(url, 0)["trials"])
        with (run_copy / FILE).open("ab") as file:
            file.write(lines[20][30:] + b"".join(lines[21:]))
        for _ in range(100):
            if (many := len(studied(url, 0)["trials"])) > few:
                break
            time.sleep(0.1)  # the dashboard asks again after two seconds
    assert few < 20
    assert many == total > 40


def test_a_study_in_a_database(run_copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.copy_study(
        from_study_name="finished", from_storage=open_storage(run_copy, None), to_storage=url, to_study_name="shared"
    )
    config = run_copy / "config.yaml"
    config.write_text(
        config.read_text().replace("storage: null", f"storage: {url}").replace("study_name: null", "study_name: shared")
    )
    with serving(run_copy, "--host", "localhost") as address:
        assert address.startswith("http://localhost:")
        (listed,) = json.loads(get(address + "api/studies"))["study_summaries"]
        assert listed["study_name"] == "shared"


def test_what_is_refused(refused: Refused, run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna_dashboard")
    refused("dashboard", tmp_path / "nowhere", seen=("nowhere", "is no run"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused("dashboard", run_copy, "--port", port, seen=(f"127.0.0.1:{port}", "in use", "--port 0"))
    for host in ("no.such.host.invalid", "1.2.3.4", "x" * 100 + ".y"):
        refused("dashboard", run_copy, "--port", "0", "--host", host, seen=(host, "--host"))
    (run_copy / FILE).write_bytes(b"")
    refused("dashboard", run_copy, seen=(str(run_copy / FILE), "no study", "when the search begins"))
    (run_copy / FILE).unlink()
    refused("dashboard", run_copy, seen=(str(run_copy), "no study", "when the search begins"))
    assert not (run_copy / FILE).exists()
    config = run_copy / "config.yaml"
    config.write_text(config.read_text().replace("storage: null", f"storage: sqlite:///{tmp_path / 'empty.db'}"))
    refused("dashboard", run_copy, seen=("empty.db", "no study"))
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    refused("dashboard", run_copy, seen=("the dashboard needs the package: pip install 'autoprune[dashboard]'.",))
