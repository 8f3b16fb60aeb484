"""Scoring on Ray: the same losses as in the process, whatever happens to the workers."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoprune
from autoprune import study
from autoprune.assembly import Assembly, assemble
from autoprune.config import SearchConfig, load_config
from autoprune.errors import UserError
from autoprune.farm import crew
from autoprune.farm.crew import Crew, Hand, Work
from autoprune.farm.farm import Farm
from autoprune.journal import Journal
from autoprune.mask import Mask
from autoprune.objective import Limits, Objective
from autoprune.study import Watch
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


@dataclass
class Running:
    """A farm of two workers, what it has said, and what it scores."""

    farm: Farm
    assembly: Assembly
    notices: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def config(quick: dict[str, Any]) -> SearchConfig:
    return load_config(None, quick | {"workers": 2, "agent": "policy-gradient-masks"})


@pytest.fixture(scope="module")
def running(config: SearchConfig) -> Iterator[Running]:
    notices: list[str] = []
    with Farm(config, notices.append) as farm:
        yield Running(farm, assemble(config), notices)


def test_losses_are_those_of_one_process(running: Running) -> None:
    assembly, rng = running.assembly, np.random.default_rng(0)
    farm, here = running.farm.scorer(assembly), assembly.evaluator(assembly.splits.search, "kl")
    for size in (1, 3, 20):
        levels = [assembly.space.sample(rng) for _ in range(size)]
        masks = [Mask.pack([rng.random(n) < 0.6 for n in assembly.space.groups]) for _ in range(size // 3)]
        sequences = [int(s) for s in rng.permutation(here.n_sequences)[: 1 + size % 5]]
        batch = [*levels, *masks, assembly.space.dense]
        assert np.array_equal(farm.score(batch, sequences), here.score(batch, sequences))
    assert (farm.dense_losses([0, 1]) == 0).all()
    assert (farm.n_sequences, farm.tokens_per_sequence) == (here.n_sequences, here.tokens_per_sequence)


def test_searches_from_several_threads_share_it(running: Running) -> None:
    """As a comparison does; each finds what it finds by itself."""
    assembly = running.assembly
    scorer, here = running.farm.scorer(assembly), assembly.evaluator(assembly.splits.search, "kl")

    def search(scorer: Any, seed: int) -> Objective:
        objective = Objective(assembly.space, scorer, Limits(evals=60))
        study._run(study.make_agent("evolution", {"first_tokens": 64}), objective, seed)
        return objective

    found: dict[int, Objective] = {}
    threads = [threading.Thread(target=lambda s=seed: found.update({s: search(scorer, s)})) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        assert found[seed].archive() == search(here, seed).archive()


def test_workers_killed_twenty_times(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At random moments of a search, with SIGKILL: every score is there once, and the result is that of no faults."""
    kills, rng = 20, random.Random(0)
    died, left, due = running.farm.died, [kills], [rng.randrange(1, 6)]
    plain = Crew._send

    def send(self: Crew, hand: Hand, work: Work) -> None:
        plain(self, hand, work)
        due[0] -= 1
        if due[0] <= 0 and left[0] and not work.deaths:  # twice the same policy by itself, and it would count as failed
            pid, left[0], due[0] = hand.pid, left[0] - 1, rng.randrange(1, 6)
            threading.Timer(rng.uniform(0, 0.02), os.kill, (pid, signal.SIGKILL)).start()

    assembly, results = running.assembly, []
    for faults in (True, False):
        journal = Journal(tmp_path / f"journal-{faults}.jsonl")
        objective = Objective(assembly.space, running.farm.scorer(assembly), Limits(evals=250), journal)
        with closing(journal), monkeypatch.context() as patch:
            if faults:
                patch.setattr(Crew, "_send", send)
            study._run(study.make_agent("evolution", {"first_tokens": 64}), objective, 3)
        results.append((objective.best, scores(tmp_path / f"journal-{faults}.jsonl")))
    assert left == [0], "the search was too short for all faults"
    assert running.farm.died - died == kills
    assert results[0] == results[1]
    written = [(tuple(levels), tuple(sequences)) for levels, sequences, _ in results[0][1]]
    assert len(written) == len(set(written)), "a score was counted twice"
    assert sum("is replaced" in notice for notice in running.notices) == 1, "it is said once"


@pytest.mark.parametrize(
    ("act", "why"), [("os.kill(os.getpid(), signal.SIGKILL)", "died"), ("time.sleep(600)", "did not answer for")]
)
def test_a_policy_that_kills_its_worker_twice_has_failed(
    act: str, why: str, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or hangs it; the search goes on without it, and the journal says why."""
    monkeypatch.setattr(crew, "LEAST_SECONDS", 2.0)
    source = tmp_path / "fatal.py"
    plain = assemble(load_config(None, quick))
    sparsest = plain.evaluator(plain.splits.search, "kl").score([plain.space.sparsest], range(8))
    source.write_text(LOSS.format(above=0.999 * sparsest.max(), act=act))
    notices: list[str] = []
    config = load_config(None, quick | {"workers": 2, "loss": f"{source}:Fatal"})
    worst = int(sparsest[0].argmax())
    with Farm(config, notices.append) as farm:
        assembly = assemble(config)
        scorer = farm.scorer(assembly)
        space = assembly.space.rebudgeted({"params": 1.0 * assembly.space.cost(assembly.space.dense, "params")})
        others = [space.dense, space.uniform(), (1,) * len(space.units)]
        with closing(Journal(tmp_path / "journal.jsonl")) as journal:
            objective = Objective(space, scorer, Limits(), journal)
            losses = objective.by_sequence([others[0], space.sparsest, *others[1:]], [worst])[:, 0]
        expected = plain.evaluator(plain.splits.search, "kl").score(others, [worst])[:, 0]
    assert losses[1] == np.inf
    assert np.array_equal(losses[[0, 2, 3]], expected)
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


def test_a_comparison_on_a_farm_is_the_same_league(quick: dict[str, Any], tmp_path: Path) -> None:
    settings = quick | {"max_evals": None, "max_tokens": 1024}
    agents = ["evolution", "random", "ppo"]
    leagues = [
        autoprune.compare(agents, 2, out=tmp_path / str(workers), workers=workers, **settings).league
        for workers in (1, 2)
    ]
    for league in leagues:
        for search in league["searches"]:
            assert "failed" not in search
            for timed in ("seconds", "curve", "tokens_per_second"):
                search.pop(timed, None)
    assert [(s["run"], s["loss"], s["tokens"]) for s in leagues[0]["searches"]] == [
        (s["run"], s["loss"], s["tokens"]) for s in leagues[1]["searches"]
    ]


def test_the_driver_is_killed_and_resumes_with_other_workers(quick_arguments: list[str], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main = [sys.executable, "-m", "autoprune"]
    settings = [*quick_arguments, "max_evals=120", "seed=4"]
    subprocess.run([*main, "search", *settings, "--out", str(whole)], check=True, capture_output=True)
    arguments = [*main, "search", *settings, "--workers", "2", "--out", str(killed)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: (killed / "journal.jsonl").exists() and len(scores(killed / "journal.jsonl")) > 20)
        ours = children(process.pid)
        process.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() and "Z" not in state(pid) for pid in ours))
    assert not (killed / "policy.json").exists()
    resumed = subprocess.run([*main, "resume", str(killed), "--workers", "1"], check=False, capture_output=True)
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(killed) == outcome(whole)
    assert scores(killed / "journal.jsonl") == scores(whole / "journal.jsonl")


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


def test_one_worker_imports_no_ray(quick_arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom autoprune.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('ray' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, "search", *quick_arguments, "--workers", "1", "--out", str(tmp_path / "r")]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_nothing_listens_on_the_network(running: Running) -> None:
    """Sockets of Ray's processes are bound to the loopback."""
    running.farm.scorer(running.assembly)
    ours = {os.getpid(), *children(os.getpid())}
    inodes = {os.readlink(fd) for pid in ours for fd in _descriptors(pid)}
    listening = []
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "0000000000000000FFFF00000100007F")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes and address != loopback:
                listening.append((table, address, int(port, 16)))
    assert listening == []


def _descriptors(pid: int) -> list[Path]:
    try:
        return [fd for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    except OSError:
        return []


def test_a_dead_crew_says_so(quick: dict[str, Any], tmp_path: Path) -> None:
    """Workers that cannot even start end the search with a sentence; nothing is lost."""
    config = load_config(None, quick | {"workers": 2})
    with Farm(config) as farm:
        assembly = assemble(config)
        scorer = farm.scorer(assembly)
        scorer.score([assembly.space.dense], [0])
        farm._crew._cluster.options["runtime_env"] = {"env_vars": {"LD_PRELOAD": "", "PYTHONPATH": "/nowhere"}}
        (Path(farm._crew._kit.directory) / "kit.json").write_text("{")  # type: ignore[union-attr]
        for pid in farm.pids:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(UserError, match="damaged"):
            scorer.score([assembly.space.uniform()], [0])


def test_notices_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from autoprune.display import Display

    with Display() as display:
        Watch(notice=display.notice).notice("worker 2 died: it is replaced, 1 work on, and nothing is lost.")
    assert capsys.readouterr().err == "autoprune: worker 2 died: it is replaced, 1 work on, and nothing is lost.\n"
