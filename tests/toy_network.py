"""Networks for metrics that must see one: a stand-in without weights, and a clock that counts instead of measuring."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from autoprune.budgets.metric import Network
from autoprune.space import Unit
from autoprune.task_choice import load_task
from autoprune.workload import Workload

TEXT = "text"


class ToyWidth:
    """A width that only knows how much of it is kept."""

    def __init__(self, unit: Unit) -> None:
        self.width, self.kept = SimpleNamespace(groups=unit.groups, kind=unit.kind, droppable=True), unit.groups
        self.dense = SimpleNamespace(parameters=lambda: [])

    def keep(self, groups: int) -> None:
        self.kept = groups

    def bare(self) -> bool:
        return False


class ToyModel(torch.nn.Module):
    """A head of 10 x 4 and a configuration."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(4, 10, bias=False)
        self.config = SimpleNamespace(num_hidden_layers=blocks, to_dict=lambda: {"hidden_size": 4})

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head


def toy_network(units: Sequence[Unit], workload: Workload, cache: Path, run: Path | None = None) -> Network:
    """A network of these units."""
    blocks = 1 + max(unit.block for unit in units)
    block = SimpleNamespace(get_submodule=lambda path: SimpleNamespace())
    view: Any = SimpleNamespace(
        model=ToyModel(blocks), family=SimpleNamespace(attention="attn"), blocks=[block] * blocks, streamed=False,
        places=[""] * blocks, attention_types=["full_attention"] * blocks, as_given=nullcontext,
        number_caches=lambda: None, shape=lambda: ["ToyModel", blocks],
        widths=[[ToyWidth(unit) for unit in units if unit.block == b] for b in range(blocks)],
    )  # fmt: skip
    return Network(view, units, workload, cache, run, task=load_task(TEXT))


Kept = dict[tuple[int, str], tuple[int, int]]
"""(block, kind) -> groups kept, groups."""


def kept_of(view: Any) -> Kept:
    """What is kept of a live or a toy network."""
    return {
        (b, width.width.kind): (width.kept, width.width.groups) for b, row in enumerate(view.widths) for width in row
    }


def counting_clock(milliseconds: Callable[[Kept], float]) -> Callable[[Network], float]:
    """A clock for `autoprune.budgets.latency.clock`: what a function of what is kept says."""

    def clock(network: Network) -> float:
        return milliseconds(kept_of(network.view)) / 1e3

    return clock


def additive(fixed: float = 3.0, attention: float = 1.5, mlp: float = 2.0) -> Callable[[Kept], float]:
    """So many ms for a whole unit of a kind, with a step of a fifth for keeping anything at all."""

    def milliseconds(kept: Kept) -> float:
        price = {"attention": attention, "mlp": mlp}
        return fixed + sum(price[kind] * (0.2 * (k > 0) + 0.8 * k / g) for (_, kind), (k, g) in kept.items())

    return milliseconds


def noisy(milliseconds: Callable[[Kept], float], noise: float, seeds: Iterator[float]) -> Callable[[Kept], float]:
    """The same, off by up to a share of it."""
    return lambda kept: milliseconds(kept) * (1 + noise * next(seeds))
