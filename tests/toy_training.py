"""A small network and its training set, which the tests of the training loop share.

    python tests/toy_training.py FOLDER KILL_AT

trains in FOLDER, ends itself with SIGKILL in the middle of step KILL_AT (0: never), and saves what is trained.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from autoprune.ports.training import Measurement, TrainingSet
from autoprune.training import TrainingSettings, train
from autoprune.wording import Words

COUNT = 52  # seven steps of eight, the last one of four


@dataclass(frozen=True)
class ToyMeasurement(Measurement):
    words = Words()
    ce: float

    @property
    def loss(self) -> float:
        return self.ce


class Toy(TrainingSet):
    """Random inputs and labels. `at_loss` is called with the number of the call before each loss."""

    as_trained = True

    def __init__(self, at_loss: Callable[[int], None] = lambda call: None) -> None:
        draw = torch.Generator().manual_seed(1)
        self.dense, self.count = network(), COUNT
        self._x, self._y = torch.randn(COUNT, 6, generator=draw), torch.randint(5, (COUNT,), generator=draw)
        self._at_loss, self.calls = at_loss, 0

    def loss(self, student: nn.Module, some: Tensor, settings: Any, draw: torch.Generator) -> Tensor:
        self.calls += 1
        self._at_loss(self.calls)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.in_bfloat16(False)):
            own_NV = student(self._x[some])
        return functional.cross_entropy(own_NV.float(), self._y[some])

    @torch.no_grad()
    def measured(self, network: nn.Module, progress: Any = None) -> Measurement:
        return ToyMeasurement(float(functional.cross_entropy(network(self._x), self._y)))


def network(dropout: float = 0.0) -> nn.Module:
    """The same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(dropout), nn.LayerNorm(16), nn.Linear(16, 5))


def main(folder: str, kill_at: int) -> None:
    """Train, or die on the way."""
    student = network(0.2)
    settings = TrainingSettings(3, lr=1e-2, batch=8, at_once=3, optimizer="adamw", warmup=0.1, clip=1.0, save_every=3)

    def on_step(step: int, measures: Any) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    train(student, Toy(), settings, Path(folder) / "state", on_step=on_step)
    save_file(student.state_dict(), Path(folder) / "trained.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
