"""A task of one's own: regression on vectors, by a small network that is trained here in a second.

    python examples/10_own_task.py

searches what can be left out of the network. The command line does the same with a network and data of yours:
`autoprune search task=examples/10_own_task.py:Regression --model FILE.py:FUNCTION --data FILE.npz`.

The task says how network and data are loaded and split, what is measured, and what things are called. The search, its
budgets, the journal and the report come with the engine, which has never heard of vectors.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import autoprune
from autoprune.extend import Examples, split_examples
from autoprune.networks.modules import load_module
from autoprune.networks.tracing import image_view
from autoprune.ports import Loss
from autoprune.ports.task import Prepared
from autoprune.tasks.examples import TaskOfExamples
from autoprune.wording import Measure, Words

INPUTS, COUNT, WIDTHS = 8, 4000, (48, 32, 24, 16, 8)


class SquaredError(Loss):
    """Squared distance from the labels, a mean for each sample."""

    def prepare(self, logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, ...]:
        """The labels are kept."""
        return (labels_BT,)

    def measure(self, logits_BTV: Tensor, reference: tuple[Tensor, ...]) -> Tensor:
        """`[B]`."""
        return (logits_BTV.float() - reference[0]).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Vectors(Examples):
    """Vectors `[N, INPUTS]` with labels `[N, 1]`."""

    x: Tensor
    labels: Tensor
    called = "vectors"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one vector."""
        return tuple(self.x.shape[1:])

    def inputs(self, numbers: Tensor) -> Tensor:
        """What the network takes."""
        return self.x[numbers]

    def to(self, device: str) -> "Vectors":
        """On another device."""
        return Vectors(self.x.to(device), self.labels.to(device))


class Regression(TaskOfExamples):
    """Regression on vectors."""

    name = "vectors"
    words = Words(
        "vectors", "vector", "sample", "vectors",
        label_loss=Measure("mse", "squared error"), quality=Measure("rmse", "error"),
    )  # fmt: skip
    losses = {"mse": f"{__file__}:SquaredError"}  # noqa: RUF012
    label_loss = "mse"

    def settings(self, model):
        """Samples of 16 vectors; agents minimise the squared error."""
        return {"sequence_length": 16, "loss": "mse"}

    def prepare(self, config, masks, progress, data=None):
        """A plain module, and the vectors of a `.npz` file."""
        loaded = load_module(config.model, config.device, config.dtype)
        with np.load(config.data) as file:
            vectors = Vectors(torch.from_numpy(file["x"]), torch.from_numpy(file["y"]))
        sizes = config.split_sizes()
        splits = split_examples(vectors, config.sequence_length, sizes, config.data_seed, vectors.x, vectors.labels)
        view = image_view(loaded.model, loaded.family, vectors.to(config.device), config.mlp_group)
        return Prepared(config, loaded, lambda: splits, view)

    def quality(self, losses):
        """The squared error and its root."""
        return {"mse": losses["mse"], "rmse": losses["mse"] ** 0.5}


class Network(nn.Module):
    """Residual blocks of several widths, each of which can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(INPUTS, width) for width in WIDTHS)
        self.down = nn.ModuleList(nn.Linear(width, INPUTS) for width in WIDTHS)
        self.head = nn.Linear(INPUTS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, INPUTS] -> [N, 1]`."""
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(x)))
        return self.head(x)


def data() -> tuple[Tensor, Tensor]:
    """Vectors, and a smooth function of them."""
    x = torch.randn(COUNT, INPUTS, generator=torch.Generator().manual_seed(0))
    return x, torch.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3] / 2


def network() -> Network:
    """The network, trained."""
    torch.manual_seed(0)
    made, (x, y) = Network(), data()
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.mse_loss(made(x), y).backward()
        optimizer.step()
    return made.eval()


def main() -> None:
    arguments = argparse.ArgumentParser(description="Search with a task of one's own.")
    arguments.add_argument("--tokens", type=int, default=200_000, help="vectors that policies are scored on")
    tokens = arguments.parse_args().tokens
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        np.savez(file, **dict(zip("xy", (tensor.numpy() for tensor in data()), strict=True)))
        result = autoprune.search(
            f"{__file__}:network", file, 0.5, task=f"{__file__}:Regression", max_tokens=tokens, out=Path(folder) / "run"
        )
    for row in result.table:
        print(f"{row.name:>8}: loss {row.validation_loss:.4f}, error {row.rmse:.4f}, {row.params:,} parameters")


if __name__ == "__main__":
    main()
