"""Killed at any moment and resumed, a run ends as if it had never stopped; Ctrl-C ends it with the best so far."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import autoprune
from autoprune import registry
from tests.conftest import once

pytestmark = pytest.mark.slow

EVALS = 400
SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell has put in the background
from autoprune.evaluation.evaluator import Evaluator
score = Evaluator.score
def slowly(self, *args):
    time.sleep({pause})
    return score(self, *args)
Evaluator.score = slowly
from autoprune.cli import main
main()
"""
"""The command line with scoring slowed down, so that signals find it at work."""


def command(*arguments: str, pause: float = 0.0) -> list[str]:
    return [sys.executable, "-c", SLOW.format(pause=pause), *arguments]


def outcome(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions: everything but times and speeds."""
    policy = json.loads((run / "policy.json").read_text())
    result = json.loads((run / "result.json").read_text())
    losses = [(row["name"], row["validation_loss"], row["validation_ce"]) for row in result["table"]]
    spent = {key: result["spent"][key] for key in ("evals", "tokens")}
    return {
        "units": policy["units"],
        "losses": policy["losses"],
        "costs": policy["costs"],
        "table": losses,
        "spent": spent,
    }


def wait_for_scores(run: Path, count: int, process: "subprocess.Popen[bytes]") -> None:
    """Until the journal has so many lines."""
    journal = run / "journal.jsonl"
    for _ in range(3000):
        if journal.exists() and journal.read_bytes().count(b"\n") >= count:
            return
        assert process.poll() is None, "ended before the signal"
        time.sleep(0.02)
    pytest.fail("the search did not start")


def test_killed_at_random_moments_ends_with_the_same_policy(quick_arguments: list[str], tmp_path: Path) -> None:
    settings = once([*quick_arguments, f"max_evals={EVALS}", "seed=4"])
    subprocess.run(command("search", *settings, "--out", str(tmp_path / "whole")), check=True, capture_output=True)

    killed, rng = tmp_path / "killed", random.Random(1)
    arguments = command("search", *settings, "--out", str(killed), pause=0.01)
    for lines in sorted(rng.sample(range(2, EVALS // 2), 3)):
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_for_scores(killed, lines, process)
            process.kill()
        assert not (killed / "policy.json").exists()
        arguments = command("resume", str(killed), pause=0.01)
    subprocess.run(arguments, check=True, capture_output=True)
    assert outcome(killed) == outcome(tmp_path / "whole")
    journals = [scores(run / "journal.jsonl") for run in (killed, tmp_path / "whole")]
    assert journals[0] == journals[1]


def test_killed_whatever_the_agent(quick: dict[str, Any], tmp_path: Path) -> None:
    """SIGKILL twice in the middle of a score; nothing is lost, and the answer is that of an uninterrupted run."""
    arguments = [sys.executable, "-m", "tests.killed_searches", json.dumps(quick), str(tmp_path)]
    done = subprocess.run(arguments, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for agent in registry.names("agents"):
        whole, killed = tmp_path / agent / "whole", tmp_path / agent / "killed"
        assert outcome(killed) == outcome(whole)
        assert scores(killed / "journal.jsonl") == scores(whole / "journal.jsonl")


def test_the_lock_that_a_killed_process_left_of_its_study(finished_run: Path, tmp_path: Path) -> None:
    """Optuna's is a symbolic link."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "study.log.lock").symlink_to(run / "study.log")
    autoprune.resume(run)
    assert not (run / "study.log.lock").is_symlink()
    assert outcome(run) == outcome(finished_run)


def scores(journal: Path) -> list[Any]:
    return [
        (line.get("levels", line.get("mask")), line["sequences"], line.get("losses", line.get("slopes")))
        for line in map(json.loads, journal.read_text().splitlines()[1:])
    ]


def test_killed_while_it_prepares(quick_arguments: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    environment = os.environ | {"AUTOPRUNE_CACHE": str(tmp_path / "cache")}
    arguments = command("search", *quick_arguments, "--out", str(run))
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        assert b"the run is" in process.stderr.readline()
        assert process.stderr.readline() == b"loading the model\n"
        process.kill()
    subprocess.run(command("resume", str(run)), check=True, capture_output=True, env=environment)
    assert (run / "policy.json").exists()


def test_torn_last_line_is_dropped(quick_arguments: list[str], tmp_path: Path) -> None:
    from autoprune.cli import main

    runs = [tmp_path / "whole", tmp_path / "torn"]
    for run in runs:
        with pytest.raises(SystemExit):
            main(["search", *quick_arguments, "--out", str(run)])
    journal = runs[1] / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-25])
    for run in runs:
        with pytest.raises(SystemExit):
            main(["resume", str(run)])
    assert outcome(runs[0]) == outcome(runs[1])
    assert scores(runs[0] / "journal.jsonl") == scores(runs[1] / "journal.jsonl")


def test_ctrl_c_ends_with_the_best_so_far_and_resume_goes_on(quick_arguments: list[str], tmp_path: Path) -> None:
    run, settings = tmp_path / "run", once([*quick_arguments, f"max_evals={EVALS}", "seed=4"])
    arguments = command("search", *settings, "--out", str(run), "--json", pause=0.05)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for_scores(run, 10, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    stopped = json.loads(out)
    assert stopped["interrupted"] is True
    assert 0 < stopped["spent"]["evals"] < EVALS
    assert (run / "policy.json").exists()

    subprocess.run(command("resume", str(run)), check=True, capture_output=True)
    subprocess.run(command("search", *settings, "--out", str(tmp_path / "whole")), check=True, capture_output=True)
    assert outcome(run) == outcome(tmp_path / "whole")


def test_ctrl_c_while_it_prepares_exits_130(quick_arguments: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import autoprune.study as study, time; study.assemble = lambda *_: time.sleep(60)\n"
        "from autoprune.cli import main; main()"
    )
    arguments = [sys.executable, "-c", code, "search", *quick_arguments, "--out", str(run)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (run / "config.yaml").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err == f"autoprune: interrupted: nothing is lost, `autoprune resume {run}` goes on.\n"
