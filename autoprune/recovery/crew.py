"""Fine-tuning in several processes: they are started here, and started again from the saved state where one dies.

A worker that is gone leaves the others waiting for it, so all of them begin anew. Where workers die again and again
without a new saved state, the fine-tuning ends with what the first of them had to say.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune import live
from autoprune.assembly import Assembly
from autoprune.callbacks import Callback
from autoprune.errors import StopSearch, UserError
from autoprune.files.reading import read_json
from autoprune.files.writing import own_folder, scratch
from autoprune.ports.training import TrainingSet
from autoprune.recovery.job import Job, Steps, read_ended, write_job
from autoprune.training.loop import Trained, train
from autoprune.training.settings import TrainingSettings
from autoprune.training.state import done

TRIES = 3
"""Attempts without a new saved state in between."""
LOOK, GRACE = 0.05, 3.0
"""Seconds between two looks at the workers, and until the others of a dead one have said what is wrong."""


def train_together(
    run: Path,
    assembly: Assembly,
    student: nn.Module,
    examples: TrainingSet,
    settings: TrainingSettings,
    folder: Path,
    mark: str,
    callbacks: Callback,
) -> Trained:
    """Train a network in `settings.workers` processes. It is in `student` afterwards, as `train` leaves it.

    Args:
        run: the run's directory, which every worker opens.
        assembly: of the run.
        student: the network that training begins with.
        examples: the training set.
        settings: settings of the training.
        folder: folder of the state, which is kept and continued as by `train`.
        mark: as of `train`.
        callbacks: are told how it goes.

    Raises:
        UserError: workers cannot open the run, there are too few GPUs, workers die again and again, or as `train`.
    """
    check_workers(assembly, settings)
    step, _ = done(folder, asdict(settings), mark)
    total, trained = settings.steps(examples.count, examples.tokens), None
    if total is None or step < total:
        own_folder(folder)
        gpus = assembly.config.device.startswith("cuda")
        if gpus:
            student.cpu()  # its GPU is that of a worker
            torch.cuda.empty_cache()
        with scratch(folder, "workers-") as at:
            write_job(at, Job(str(run.resolve()), str(folder.resolve()), settings, mark, gpus), student)
            trained = _Crew(at, settings, callbacks, lambda: done(folder, asdict(settings), mark)[0]).go()
        student.to(assembly.config.device)
    kept = train(student, examples, settings, folder, mark=mark, ended=True)
    return trained or kept


def check_workers(assembly: Assembly, settings: TrainingSettings) -> None:
    """Raise a UserError unless workers can open the run and each of them can have a device."""
    for name, value in assembly.config.model_dump().items():
        if live.is_live(value):
            raise UserError(
                f"the {name} '{live.stem(value)}' was given in Python, and workers={settings.workers} are processes "
                f"that do not know it: name it as module:Object, or train with workers=1."
            )
    found = torch.cuda.device_count()
    if assembly.config.device.startswith("cuda") and found < settings.workers:
        raise UserError(f"workers={settings.workers} need a GPU each, and {found} are here: take --workers {found}.")


class _Crew:
    """The workers of one fine-tuning."""

    def __init__(self, at: Path, settings: TrainingSettings, callbacks: Callback, saved: Any) -> None:
        self._at, self._settings, self._callbacks, self._saved = at, settings, callbacks, saved
        self._steps = Steps(at)

    def go(self) -> Trained:
        """Start workers until a training has come to its end."""
        attempt, left, before = 0, TRIES, self._saved()
        self._callbacks.on_stage(f"starting {self._settings.workers} workers", 0.0)
        while (dead := self._attempt(attempt)) is not None:
            attempt, now = attempt + 1, self._saved()
            left = TRIES if now > before else left - 1
            before = now
            if not left:
                raise UserError(f"{dead}, {TRIES} times at the same place: {self._last_words(dead.rank)}")
            self._callbacks.on_notice(f"{dead}: training goes on from the state after step {now:,}.")
        return read_ended(self._at)

    def _attempt(self, attempt: int) -> "_Dead | None":
        """Train until all have ended, or the first has died."""
        with ExitStack() as stack:
            workers = [self._started(attempt, rank, stack) for rank in range(self._settings.workers)]
            while any(worker.poll() is None for worker in workers):
                self._tell()
                if dead := self._dead(workers):
                    return dead
                time.sleep(LOOK)
            self._tell()
            return self._dead(workers)

    def _started(self, attempt: int, rank: int, stack: ExitStack) -> "subprocess.Popen[bytes]":
        log = stack.enter_context((self._at / f"log-{rank}.txt").open("wb"))
        command = [sys.executable, "-P", "-m", "autoprune.recovery.worker", str(self._at), str(attempt), str(rank)]
        worker = subprocess.Popen(  # noqa: S603 (this program)
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            env=environment(self._settings.workers),
        )  # fmt: skip
        stack.callback(_end, worker)
        return worker

    def _tell(self) -> None:
        for told in self._steps.new():
            self._callbacks.on_stage("fine-tuning", told["share"])
            try:
                self._callbacks.on_step(told["step"], told["measures"])
            except StopSearch:
                (self._at / "stop").touch()

    def _dead(self, workers: "list[subprocess.Popen[bytes]]") -> "_Dead | None":
        """The worker that died first, where one has."""
        if not any(worker.poll() for worker in workers):
            return None
        until = time.monotonic() + GRACE
        while time.monotonic() < until and any(worker.poll() is None for worker in workers):
            time.sleep(LOOK)
        for error in sorted(self._at.glob("error-*.json")):
            raise UserError(read_json(error)["said"])
        # one that was killed is the reason why others fail
        codes = [(worker.poll() or 0, rank) for rank, worker in enumerate(workers)]
        return _Dead(*min((code, rank) for code, rank in codes if code))

    def _last_words(self, rank: int) -> str:
        lines = (self._at / f"log-{rank}.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"


class _Dead:
    """A worker that ended before its time."""

    def __init__(self, code: int, rank: int) -> None:
        self.code, self.rank = code, rank

    def __str__(self) -> str:
        how = f"was killed by signal {-self.code}" if self.code < 0 else f"ended with status {self.code}"
        return f"worker {self.rank} {how}"


def environment(workers: int) -> dict[str, str]:
    """Variables of a worker: it finds what this process finds, listens on the loopback alone, and shares the cores."""
    names = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in ("lo", "lo0") if name in names), None)
    sockets = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback} if loopback else {}
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    own: Mapping[str, str] = {"OMP_NUM_THREADS": threads, **sockets} | dict(os.environ)
    return {**own, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _end(worker: "subprocess.Popen[bytes]") -> None:
    if worker.poll() is None:
        worker.kill()
    worker.wait()
    if worker.stdin:
        worker.stdin.close()
