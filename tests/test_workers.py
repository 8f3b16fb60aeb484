"""Scoring on Ray: the same losses as in the process, whatever happens to the workers."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray  # noqa: F401 (as a program may before it asks for a pool: Ray reads the environment only then)

from autoprune import study
from autoprune.assembly import Assembly, assemble
from autoprune.config import SearchConfig, load_config
from autoprune.journal import Journal
from autoprune.mask import Mask
from autoprune.objective import Limits, Objective
from autoprune.space import Proposal
from autoprune.workers.pool import WorkerPool
from autoprune.workers.supervisor import Supervisor, Work, WorkerState
from tests.test_resume import scores
from tests.test_worker_runs import children

pytestmark = pytest.mark.slow


@dataclass
class Running:
    """A pool of two workers, what it has said, and what it scores."""

    pool: WorkerPool
    assembly: Assembly
    notices: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def config(quick: dict[str, Any]) -> SearchConfig:
    return load_config(None, quick | {"workers": 2, "agent": "policy-gradient-masks"})


@pytest.fixture(scope="module")
def running(config: SearchConfig) -> Iterator[Running]:
    notices: list[str] = []
    with WorkerPool(config, notices.append) as pool:
        yield Running(pool, assemble(config), notices)


def test_losses_are_those_of_one_process(running: Running) -> None:
    assembly, rng = running.assembly, np.random.default_rng(0)
    pool, here = running.pool.scorer(assembly), assembly.evaluator(assembly.splits.search, "kl")
    for size in (1, 3, 20):
        levels = [assembly.space.sample(rng) for _ in range(size)]
        masks = [Mask.pack([rng.random(n) < 0.6 for n in assembly.space.groups]) for _ in range(size // 3)]
        sequences = [int(s) for s in rng.permutation(here.n_sequences)[: 1 + size % 5]]
        batch: list[Proposal] = [*levels, *masks, assembly.space.dense]
        assert np.array_equal(pool.score(batch, sequences), here.score(batch, sequences))
    assert (pool.dense_losses([0, 1]) == 0).all()
    assert (pool.n_sequences, pool.tokens_per_sequence) == (here.n_sequences, here.tokens_per_sequence)


def test_searches_from_several_threads_share_it(running: Running) -> None:
    """As a comparison does; each finds what it finds by itself."""
    assembly = running.assembly
    scorer, here = running.pool.scorer(assembly), assembly.evaluator(assembly.splits.search, "kl")

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
    died, due, killed = running.pool.died, [rng.randrange(1, 6)], set[int]()
    plain = Supervisor._send

    def send(self: Supervisor, worker: WorkerState, work: Work) -> None:
        plain(self, worker, work)
        due[0] -= 1
        if due[0] > 0 or len(killed) == kills or worker.pid in killed or work.deaths:
            return  # (twice the same policy by itself, and it would count as failed)
        killed.add(worker.pid)
        due[0] = rng.randrange(1, 6)
        threading.Timer(rng.uniform(0, 0.02), os.kill, (worker.pid, signal.SIGKILL)).start()

    assembly, results = running.assembly, []
    for faults in (True, False):
        journal = Journal(tmp_path / f"journal-{faults}.jsonl")
        objective = Objective(assembly.space, running.pool.scorer(assembly), Limits(evals=250), journal)
        with closing(journal), monkeypatch.context() as patch:
            if faults:
                patch.setattr(Supervisor, "_send", send)
            study._run(study.make_agent("evolution", {"first_tokens": 64}), objective, 3)
        results.append((objective.best, scores(tmp_path / f"journal-{faults}.jsonl")))
    assert len(killed) == kills, "the search was too short for all faults"
    assert running.pool.died - died == kills
    assert results[0] == results[1]
    written = [(tuple(levels), tuple(sequences), np.ndim(told)) for levels, sequences, told in results[0][1]]
    assert len(written) == len(set(written)), "a score was counted twice"
    assert sum("is replaced" in notice for notice in running.notices) == 1, "it is said once"


def test_nothing_listens_on_the_network(running: Running) -> None:
    """Sockets of Ray's processes are bound to the loopback."""
    running.pool.scorer(running.assembly)
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


def test_notices_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from autoprune.progress import Display

    with Display() as display:
        display.on_notice("worker 2 died: it is replaced, 1 work on, and nothing is lost.")
    assert capsys.readouterr().err == "autoprune: worker 2 died: it is replaced, 1 work on, and nothing is lost.\n"
