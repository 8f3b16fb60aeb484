"""A process that trains with others: `python -m autoprune.recovery.worker FOLDER ATTEMPT RANK` (job.py, crew.py).

It opens the run as `finetune` does. Only the first worker writes the state and tells of steps. It ends when the process
that started it has ended, whose end closes its standard input.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from autoprune.errors import StopSearch, UserError
from autoprune.exporting import reopen
from autoprune.recovery.cutting_out import cut_out
from autoprune.recovery.job import put_start, read_job, write_ended
from autoprune.training.loop import train
from autoprune.training.processes import Processes

PATIENCE = timedelta(minutes=30)
"""How long a worker waits for the others, which open large networks at different speeds."""


def work(at: Path, attempt: int, rank: int, device: str | None = None) -> None:
    """Train as one of several processes.

    Args:
        at: the folder of the job.
        attempt: number of the attempt.
        rank: number of this process.
        device: where to train; None takes the GPU of the process's number, or the CPU.
    """
    (at / f"pid-{rank}").write_text(str(os.getpid()))
    job = read_job(at)
    device = device or (f"cuda:{rank}" if job.gpus else "cpu")
    if job.gpus:
        torch.cuda.set_device(device)
    assembly, policy = reopen(Path(job.run), places={"device_memory": None, "device": device})
    student = cut_out(assembly, policy)
    put_start(at, student)
    examples = assembly.task.training(assembly.original)
    untyped: Any = distributed
    store = untyped.FileStore(str(at / f"store-{attempt}"), job.settings.workers)
    distributed.init_process_group(
        "nccl" if job.gpus else "gloo", store=store, rank=rank, world_size=job.settings.workers, timeout=PATIENCE
    )
    named = {module: name for name, module in assembly.loaded.model.named_modules()}
    blocks = [named[block] for block in assembly.view.blocks if block in named]
    team = Processes(blocks if job.settings.sharding == "fsdp" else None, torch.device(device))
    told = _Told(at) if rank == 0 else None
    trained = train(
        student,
        examples,
        job.settings,
        Path(job.folder),
        told.progress if told else lambda stage, share: None,
        job.mark,
        told.on_step if told else None,
        team,
    )
    if told:
        write_ended(at, trained)
    distributed.destroy_process_group()


class _Told:
    """Tells of steps through the folder, and ends the training where that is asked for."""

    def __init__(self, at: Path) -> None:
        self._stop, self._share = at / "stop", 0.0
        self._file = (at / "steps.jsonl").open("a", encoding="ascii")

    def progress(self, stage: str, share: float) -> None:
        """Remember the share."""
        self._share = share

    def on_step(self, step: int, measures: Mapping[str, float]) -> None:
        """Write a line."""
        self._file.write(json.dumps({"step": step, "share": self._share, "measures": dict(measures)}) + "\n")
        self._file.flush()
        if self._stop.exists():
            raise StopSearch


def _end_with_parent() -> None:
    """End when standard input does."""
    while os.read(0, 1):  # not `sys.stdin`, whose lock would be held when this process ends
        pass
    os._exit(1)


def main(folder: str, attempt: str, rank: str) -> int:
    """Work, and write a sentence for the user where there is one to say."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(Path(folder), int(attempt), int(rank))
    except UserError as error:
        path = Path(folder) / f"error-{rank}.json"
        path.with_suffix(".new").write_text(json.dumps({"said": str(error)}), encoding="utf-8")
        path.with_suffix(".new").rename(path)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
