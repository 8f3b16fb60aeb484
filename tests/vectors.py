"""A task of a user's own: regression on vectors. Nothing in the engine knows of it.

The data are a `.npz` with `x` `[N, D]` and `y` `[N, K]`. The network is a plain module from D numbers to K.

Shapes: N vectors, B samples, T vectors of a sample, K outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.config import SearchConfig
from autoprune.data.examples import Examples, split_examples
from autoprune.networks.images import ImageView
from autoprune.networks.modules import load_module
from autoprune.networks.tracing import image_view
from autoprune.ports.task import GraphInput, Prepared, Progress
from autoprune.ports.training import LossSettings, Measurement, TrainingSet
from autoprune.tasks.examples import TaskOfExamples, as_examples, numbers_left
from autoprune.wording import Measure, Words

SIDE, OUTPUTS = 12, 2


class SquaredError:
    """Mean squared distance from the labels, for each sample."""

    def prepare(self, logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, ...]:
        return (labels_BT,)

    def measure(self, logits_BTV: Tensor, reference: tuple[Tensor, ...]) -> Tensor:
        return (logits_BTV.float() - reference[0]).square().flatten(1).mean(1)


class Variance:
    """Variance of the labels of each sample: what squared errors are compared with."""

    def prepare(self, logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, ...]:
        return (labels_BT,)

    def measure(self, logits_BTV: Tensor, reference: tuple[Tensor, ...]) -> Tensor:
        return reference[0].var(1, correction=0).flatten(1).mean(1)


@dataclass(frozen=True)
class Vectors(Examples):
    """Vectors that are looked up by number."""

    x: Tensor
    labels: Tensor
    called = "vectors"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def inputs(self, numbers: Tensor) -> Tensor:
        return self.x[numbers]

    def to(self, device: str) -> "Vectors":
        return Vectors(self.x.to(device), self.labels.to(device))


WORDS = Words(
    "vectors", "vector", "sample", "vectors",
    label_loss=Measure("mse", "squared error"),
    quality=Measure("r2", "R2", better=1, averages=True),
    units={"mse": "squared error per vector"},
)  # fmt: skip


class Regression(TaskOfExamples):
    """Regression on vectors, by a plain module."""

    name = "vectors"
    words = WORDS
    losses = {"mse": f"{__file__}:SquaredError", "variance": f"{__file__}:Variance"}  # noqa: RUF012
    label_loss = "mse"
    measured = ("variance",)

    def settings(self, model: object) -> Mapping[str, Any]:
        return {"sequence_length": 16, "loss": "mse"}

    def prepare(self, config: SearchConfig, masks: bool, progress: Progress, data: str | None = None) -> Prepared:
        loaded = load_module(str(config.model), config.device, config.dtype)
        with np.load(str(config.data)) as file:
            vectors = Vectors(*(torch.from_numpy(file[name]) for name in ("x", "y")))
        asked = config.split_sizes()
        splits = split_examples(vectors, config.sequence_length, asked, config.data_seed, vectors.x, vectors.labels)
        view = image_view(loaded.model, loaded.family, vectors.to(config.device), config.mlp_group)
        return Prepared(config, loaded, lambda: splits, view)

    def quality(self, losses: Mapping[str, float]) -> dict[str, float]:
        return {"mse": losses["mse"], "r2": 1 - losses["mse"] / losses["variance"]}

    def training(self, prepared: Prepared, candidates: bool = False) -> TrainingSet:
        return Taught(as_examples(prepared.view), *numbers_left(prepared, candidates))

    def graph_input(self, prepared: Prepared) -> GraphInput:
        view = as_examples(prepared.view)
        example, *samples = (view.pixels(torch.arange(count)) for count in (2, 1, 3))
        return GraphInput("x", {0: "batch"}, example, samples, [])


@dataclass(frozen=True)
class Fitted(Measurement):
    """Squared error and the share of the variance that is explained."""

    words = WORDS
    mse: float
    r2: float


class Taught(TrainingSet):
    """Vectors to learn from."""

    defaults = {"lr": 1e-2, "batch": 32, "optimizer": "adamw", "augment": False}  # noqa: RUF012

    def __init__(self, view: ImageView, numbers: Tensor, held_out: Tensor) -> None:
        self.view, self.dense, self.count = view, view.model, len(numbers)
        self._numbers, self._held_out = numbers, held_out

    def loss(self, student: nn.Module, some: Tensor, settings: LossSettings, draw: torch.Generator) -> Tensor:
        numbers = self._numbers[some]
        x = self.view.pixels(numbers)
        own, labels = student(x), self.view.images.labels[numbers]
        with torch.no_grad():
            taught = self.dense(x)
        mse = functional.mse_loss
        return (1 - settings.weight) * mse(own, labels) + settings.weight * mse(own, taught)

    @torch.no_grad()
    def measured(self, network: nn.Module, progress: Callable[[float], None] = lambda share: None) -> Fitted:
        labels = self.view.images.labels[self._held_out]
        mse = float(functional.mse_loss(network(self.view.pixels(self._held_out)), labels))
        return Fitted(mse, 1 - mse / float(labels.var(0, correction=0).mean()))


class Perceptron(nn.Module):
    """Two residual blocks of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Linear(SIDE, 24) for _ in range(2))
        self.outer = nn.ModuleList(nn.Linear(24, SIDE) for _ in range(2))
        self.head = nn.Linear(SIDE, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = x + outer(functional.relu(inner(x)))
        out: Tensor = self.head(x)
        return out


def network() -> Perceptron:
    """A network with random weights, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Perceptron().eval()


def save_data(path: Path, count: int = 400) -> None:
    """Vectors, and what the network says of them but for some noise."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(count, SIDE, generator=draw)
    with torch.no_grad():
        y = network()(x)
    y = y + 0.05 * torch.randn(y.shape, generator=draw)
    np.savez(path, x=x.numpy(), y=y.numpy())
