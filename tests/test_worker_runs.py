"""Whole searches on Ray, each with a pool of its own: the same policy, and sentences where there can be none."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoprune
from autoprune.assembly import assemble
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.journal import Journal
from autoprune.objective import Limits, Objective
from autoprune.workers import supervisor
from autoprune.workers.pool import WorkerPool
from tests.conftest import once
from tests.test_resume import outcome, scores

pytestmark = pytest.mark.slow

LOSS = """
import os, signal, time
from autoprune.calibration.losses import KullbackLeibler

class Fatal(KullbackLeibler):
    def measure(self, logits_BTV, reference):
        loss_B = super().measure(logits_BTV, reference)
        if float(loss_B.max()) > {above}:
            {act}
        return loss_B
"""


@pytest.mark.parametrize(
    ("act", "why"), [("os.kill(os.getpid(), signal.SIGKILL)", "died"), ("time.sleep(600)", "did not answer for")]
)
def test_a_policy_that_kills_its_worker_twice_has_failed(
    act: str, why: str, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or hangs it; the search goes on without it, and the journal says why."""
    monkeypatch.setattr(supervisor, "LEAST_SECONDS", 2.0)
    source = tmp_path / "fatal.py"
    plain = assemble(load_config(None, quick))
    sparsest = plain.evaluator(plain.splits.search, "kl").score([plain.space.sparsest], range(8))
    source.write_text(LOSS.format(above=0.999 * sparsest.max(), act=act))
    notices: list[str] = []
    config = load_config(None, quick | {"workers": 2, "loss": f"{source}:Fatal"})
    worst = int(sparsest[0].argmax())
    with WorkerPool(config, notices.append) as pool:
        assembly = assemble(config)
        scorer = pool.scorer(assembly)
        space = assembly.space.rebudgeted({"params": 1.0 * assembly.space.cost(assembly.space.dense, "params")})
        others = [space.dense, space.uniform(), (1,) * len(space.units)]
        with closing(Journal(tmp_path / "journal.jsonl")) as journal:
            objective = Objective(space, scorer, Limits(), journal)
            losses = objective.by_sequence([others[0], space.sparsest, *others[1:]], [worst])[:, 0]
        expected = plain.evaluator(plain.splits.search, "kl").score(others, [worst])[:, 0]
    assert losses[1] == np.inf
    assert losses[[0, 2, 3]] == pytest.approx(
        expected, rel=1e-4, abs=1e-6
    )  # from whole logits here, without them there
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()[1:]]
    failed = {tuple(line["levels"]): line["failed"] for line in lines if "failed" in line}
    assert list(failed) == [space.sparsest]
    assert why in failed[space.sparsest]
    assert any("a policy failed, and the search goes on" in notice for notice in notices)
    assert objective.best != space.sparsest


def test_one_two_or_four_workers_find_the_same(quick: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for workers in (1, 2, 4):
        run = autoprune.search(**quick, workers=workers, out=tmp_path / str(workers)).path
        found.append((outcome(run), scores(run / "journal.jsonl")))
    assert found[0] == found[1] == found[2]


def test_candidates_are_trained_beside_workers(quick: dict[str, Any], tmp_path: Path) -> None:
    """In this process, so that a search with workers finds what one without them does."""
    options = {"train_tokens": 64, "train_from": 0.3, "trained": 2, "trainer": "full"}
    settings = quick | {"max_evals": 500, "agent_options": options}
    alone = autoprune.search(**settings, out=tmp_path / "alone")
    shared = autoprune.search(**settings, workers=2, out=tmp_path / "shared")
    assert alone.spent.training > 0
    assert (shared.policy.units, shared.spent.training) == (alone.policy.units, alone.spent.training)


def test_a_comparison_on_workers_is_the_same_results(quick: dict[str, Any], tmp_path: Path) -> None:
    settings = quick | {"max_evals": None, "max_tokens": 1024}
    agents = ["evolution", "random", "ppo"]
    both = [
        autoprune.compare(agents, 2, out=tmp_path / str(workers), workers=workers, **settings).league
        for workers in (1, 2)
    ]
    for results in both:
        for search in results["searches"]:
            assert "failed" not in search
            for timed in ("seconds", "curve", "tokens_per_second"):
                search.pop(timed, None)
    assert [(s["run"], s["loss"], s["tokens"]) for s in both[0]["searches"]] == [
        (s["run"], s["loss"], s["tokens"]) for s in both[1]["searches"]
    ]


def test_the_driver_is_killed_and_resumes_with_other_workers(quick_arguments: list[str], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main = [sys.executable, "-m", "autoprune"]
    settings = once([*quick_arguments, "max_evals=120", "seed=4", "agent_options.slope_sequences=0"])
    subprocess.run([*main, "search", *settings, "--out", str(whole)], check=True, capture_output=True)
    arguments = [*main, "search", *settings, "--workers", "2", "--out", str(killed)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: (killed / "journal.jsonl").exists() and len(scores(killed / "journal.jsonl")) > 20)
        workers = [pid for pid in children(process.pid) if name(pid).startswith("ray::Worker")]
        process.kill()
    assert workers
    wait_for(lambda: all(state(pid) == "Z" for pid in workers))
    assert not (killed / "policy.json").exists()
    resumed = subprocess.run([*main, "resume", str(killed), "--workers", "1"], check=False, capture_output=True)
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(killed) == outcome(whole)
    assert scores(killed / "journal.jsonl") == scores(whole / "journal.jsonl")


def test_two_nodes_of_which_one_dies(quick_arguments: list[str], tmp_path: Path) -> None:
    """The second has a cache of its own, so files are sent to it; its death in the middle changes nothing."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    main = [sys.executable, "-m", "autoprune"]
    # Ray takes a second or two to say that a node has died: the search must be at work for much longer.
    settings = once([*quick_arguments, "max_evals=2000", "seed=4", "agent_options.slope_sequences=0"])
    subprocess.run([*main, "search", *settings, "--out", str(whole)], check=True, capture_output=True)
    port = free_port()
    secret = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    cache = tmp_path / "cache of the second"
    with tempfile.TemporaryDirectory(prefix="ray") as folder, ExitStack() as stack:
        head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
        stack.enter_context(node(head, secret))
        wait_for(lambda: is_open(port))
        second = stack.enter_context(node([f"--address=127.0.0.1:{port}"], secret | {"AUTOPRUNE_CACHE": str(cache)}))
        wait_for(lambda: any("raylet" in name(pid) for pid in children(second.pid)))
        time.sleep(2)  # until it has joined: workers are as many as the cluster has processors
        arguments = [*main, "search", *settings, "--ray-address", f"127.0.0.1:{port}", "--out", str(run)]
        with subprocess.Popen(arguments, env=secret, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as search:
            wait_for(lambda: list(cache.glob("bundles/*/bundle.json")) != [] or search.poll() is not None)
            wait_for(lambda: any(is_at_work(pid) for pid in children(second.pid)))
            wait_for(lambda: len(scores(run / "journal.jsonl")) > 20 if (run / "journal.jsonl").exists() else False)
            for pid in children(second.pid):
                os.kill(pid, signal.SIGKILL)
            said = search.communicate(timeout=120)[1].decode()
    assert search.returncode == 0, said
    assert "it is replaced" in said, said
    assert list(cache.glob("bundles/*/network/*.safetensors"))
    assert outcome(run) == outcome(whole)
    assert scores(run / "journal.jsonl") == scores(whole / "journal.jsonl")


@contextmanager
def node(arguments: list[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A node of a Ray cluster with one processor, and nothing left of it afterwards."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", *arguments]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **quiet) as process:
        try:
            yield process
        finally:
            for pid in [*children(process.pid), process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(happened: Callable[[], bool], seconds: float = 90) -> None:
    for _ in range(int(20 * seconds)):
        if happened():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen")


def children(pid: int) -> list[int]:
    """Processes below one, whatever depth."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def is_at_work(pid: int) -> bool:
    """Whether a process is a worker that has been set up."""
    return name(pid).startswith("ray::Worker") and not name(pid).startswith("ray::Worker.__init__")


def name(pid: int) -> str:
    """The command, or nothing where there is no such process any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_cluster_that_is_not_there(refused: Callable[..., str], quick_arguments: list[str], tmp_path: Path) -> None:
    refused(
        "search", *quick_arguments, "--ray-address", "127.0.0.1:1", "--out", tmp_path / "run",
        seen=("no Ray cluster could be joined at '127.0.0.1:1'", "ray start --head"),
    )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_more_gpus_than_there_are(refused: Callable[..., str], quick_arguments: list[str], tmp_path: Path) -> None:
    refused(
        "search", *quick_arguments, "--workers", "2", "--gpus-per-worker", "1", "--out", tmp_path / "run",
        seen=("a worker needs 1 GPU", "has 0 in all", "--gpus-per-worker"),
    )  # fmt: skip


def test_resume_changes_where_a_run_is_scored_and_nothing_else(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    assert autoprune.resume(run, workers=1).policy.units == autoprune.resume(run).policy.units
    with pytest.raises(UserError, match="'agent' stays as the run has it"):
        autoprune.resume(run, agent="random")


def test_one_worker_imports_no_ray(quick_arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom autoprune.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('ray' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, "search", *quick_arguments, "--workers", "1", "--out", str(tmp_path / "r")]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_dead_crew_says_so(quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that cannot be replaced end the search with a sentence; nothing is lost."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    config = load_config(None, quick | {"workers": 1})
    with WorkerPool(config) as pool:
        assembly = assemble(config)
        scorer = pool.scorer(assembly)
        scorer.score([assembly.space.dense], [0])
        wait_for(lambda: len(pool.pids) == 1)
        (Path(pool._supervisor._bundle.directory) / "bundle.json").write_text("{")  # type: ignore[union-attr]
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(UserError, match="damaged"):
            scorer.score([assembly.space.uniform()], [0])
