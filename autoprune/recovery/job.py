"""The folder through which a fine-tuning and its workers speak: what is to be trained, and how it goes.

job.json            the run, the settings and the mark
start.safetensors   weights and buffers that training begins with
store-N             where the processes of attempt N find each other (a FileStore of torch.distributed)
pid-R               process number of worker R
steps.jsonl         one line for each step, by worker 0: its number, the share that is done, and the measures
stop                is made to end the training after the present step
error-R.json        a sentence for the user, of worker R
ended.json          how far the training went, by worker 0
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from autoprune.errors import UserError
from autoprune.files.arrays import read_tensors
from autoprune.files.reading import read_json
from autoprune.files.writing import write_atomically
from autoprune.training.loop import Trained
from autoprune.training.settings import TrainingSettings, settings_of


@dataclass(frozen=True)
class Job:
    """What workers train.

    Args:
        run: the run's directory, absolute.
        folder: where the state of the training is, absolute.
        settings: settings of the training.
        mark: as of `train`.
        gpus: whether each worker has a GPU of its own.
    """

    run: str
    folder: str
    settings: TrainingSettings
    mark: str
    gpus: bool


def write_job(at: Path, job: Job, student: nn.Module) -> None:
    """Write what workers need: the job and the network that they begin with.

    Raises:
        UserError: the disk is full or not writable.
    """
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(student)}, at / "start.safetensors"
        )
        write_atomically(at / "job.json", json.dumps(asdict(job)))
    except OSError as error:
        raise UserError(f"the network could not be written to '{at}' for the workers ({error}).") from error


def read_job(at: Path) -> Job:
    """The job in a folder."""
    told = dict(read_json(at / "job.json"))
    return Job(**told | {"settings": settings_of({}, told["settings"])})


@torch.no_grad()
def put_start(at: Path, student: nn.Module) -> None:
    """Put the weights that training begins with into a network of the same form."""
    start = read_tensors(at / "start.safetensors")
    for name, tensor in _tensors(student):
        tensor.copy_(start[name])


def write_ended(at: Path, trained: Trained) -> None:
    """Say how far the training went."""
    write_atomically(at / "ended.json", json.dumps(asdict(trained)))


def read_ended(at: Path) -> Trained:
    """How far the training went."""
    return Trained(**read_json(at / "ended.json"))


class Steps:
    """Reads `steps.jsonl` while it is written. A step that is taken again after an interruption is told once."""

    def __init__(self, at: Path) -> None:
        self._path, self._read, self.last = at / "steps.jsonl", 0, 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Lines since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                told = json.loads(line)
                if told["step"] > self.last:
                    self.last = told["step"]
                    yield told


def _tensors(student: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers that are saved, tied ones once."""
    saved = student.state_dict().keys()
    yield from student.named_parameters()
    yield from ((name, buffer) for name, buffer in student.named_buffers() if name in saved)
