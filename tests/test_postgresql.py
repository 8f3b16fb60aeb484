"""Two searches in one study on a PostgreSQL server, one of them killed: nothing is lost, nothing is there twice."""

import importlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from tests.conftest import once
from tests.test_resume import command, outcome, wait_for_scores

pytestmark = pytest.mark.slow

EVALS = 80


def program(name: str) -> str:
    """The path of one of the server's programs; Debian has them outside PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(places[-1]) if places else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: apt-get install postgresql")
    return found


def unprivileged() -> list[str]:
    """What runs a command as another user: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("as root, no setpriv: apt-get install util-linux")
    return [setpriv, "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server of the tests' own, in a folder that is removed with it."""
    pytest.importorskip("psycopg", reason="no driver: pip install 'psycopg[binary]'")
    initdb, postgres, user = program("initdb"), program("postgres"), unprivileged()
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name, socket.socket() as free:
        folder = Path(name)  # not below pytest's, which other users cannot enter; a socket's path must be short
        if user:
            shutil.chown(folder, "nobody", "nogroup")
        data, log = str(folder / "data"), folder / "log"
        made = [*user, initdb, "-D", data, "-U", "tester", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        options = ["-h", "127.0.0.1", "-p", str(port), "-k", name, "-c", "fsync=off"]
        with log.open("wb") as said:
            process = subprocess.Popen([*user, postgres, "-D", data, *options], stderr=said, stdout=said, cwd=folder)
        try:
            url = f"postgresql+psycopg://tester:secret@127.0.0.1:{port}/postgres"
            wait_for(url, process, log)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # ends those that are connected; SIGTERM would wait for them
            process.wait(30)


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until the server answers."""
    psycopg = importlib.import_module("psycopg")
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            psycopg.connect(url.replace("+psycopg", "")).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the server did not start: {log.read_text()}")


def test_two_processes_share_a_study_and_one_is_killed(server: str, quick_arguments: list[str], tmp_path: Path) -> None:
    settings = once([*quick_arguments, f"max_evals={EVALS}", "agent_options.slope_sequences=0"])
    shared = ["--storage", server, "--study-name", "shared"]
    whole, killed, other = (tmp_path / name for name in ("whole", "killed", "other"))

    def search(run: Path, seed: int, pause: float, *options: str) -> list[str]:
        return command("search", *settings, f"seed={seed}", "--out", str(run), *options, pause=pause)

    subprocess.run(search(whole, 4, 0.0), check=True, capture_output=True)
    with (
        subprocess.Popen(search(killed, 4, 0.05, *shared), stdout=DEVNULL, stderr=PIPE) as first,
        subprocess.Popen(search(other, 5, 0.05, *shared), stdout=DEVNULL, stderr=PIPE) as second,
    ):
        wait_for_scores(killed, random.Random(2).randrange(20, EVALS // 2), first)
        first.kill()
        _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert b"warning" not in said
    assert not (killed / "policy.json").exists()
    assert len(own_trials(server, killed)) <= len(seconds(killed)) < EVALS

    done = subprocess.run(
        command("resume", str(killed)), check=True, capture_output=True, env=os.environ | {"AUTOPRUNE_STORAGE": server}
    )
    assert b"warning" not in done.stderr
    assert b"secret" not in done.stderr + said
    assert outcome(killed) == outcome(whole)
    for run in (killed, other):
        trials = [trial for trial in own_trials(server, run) if not trial.user_attrs.get("final")]
        assert [trial.user_attrs["seconds"] for trial in trials] == seconds(run)
        assert len(trials) == EVALS
    with shared_study(server) as study:
        numbers = [trial.number for trial in study.trials]
        assert sorted(numbers) == list(range(len(numbers)))
        complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
        assert len(numbers) == 2 * EVALS + len(complete), "complete trials are those that answers were chosen from"
        assert {f"answer.{run_id(run)}" for run in (killed, other)} <= set(study.user_attrs)


def run_id(run: Path) -> str:
    return str(json.loads((run / "journal.jsonl").read_text().splitlines()[0])["id"])


def seconds(run: Path) -> list[float]:
    """Of every score in the journal; a last line that the signal tore is none."""
    lines = (run / "journal.jsonl").read_text().split("\n")[1:-1]
    return [json.loads(line)["seconds"] for line in lines]


@contextmanager
def shared_study(server: str) -> Iterator[optuna.Study]:
    """The study, its connections closed at the end."""
    storage = RDBStorage(server)
    yield optuna.load_study(study_name="shared", storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def own_trials(server: str, run: Path) -> list[FrozenTrial]:
    with shared_study(server) as study:
        return [trial for trial in study.trials if trial.user_attrs["run"] == run_id(run)]
