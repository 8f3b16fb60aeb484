"""Moments of what a sub-block reads and of what it adds to the residual stream, streamed block after block.

What is read is what a stand-in would read if the sub-block were dropped and nothing else (cutting/replacing.py). What
is added is the output of the last module that leaves with the sub-block, as a norm behind an attention.

A part of the sequences is held out. It determines how strongly a map is drawn towards a constant.

Shapes: N positions, D inputs and at the end a constant 1, O outputs, R rank.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.cutting.live import LiveWidth
from autoprune.cutting.replacing import host_of, normed
from autoprune.networks.blocks import BlockView

HELD_OUT = 4
"""One batch of so many."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Shares of each input's variance that are added to it. Inputs differ in scale, so that one number would not do."""
TINY = 1e-9
"""Of the mean variance: what is added to that of inputs which never change."""
NAMES = ("read", "both", "added")


@dataclass(frozen=True)
class Sums:
    """Sums over positions, float64.

    Args:
        read: `x x^T`, `[D, D]`.
        both: `x y^T`, `[D, O]`.
        added: `y^T y`, a single number.
    """

    read: Tensor
    both: Tensor
    added: Tensor

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.read + other.read, self.both + other.both, self.added + other.added)

    @classmethod
    def of(cls, x_ND: Tensor, y_NO: Tensor) -> "Sums":
        """Those of some positions."""
        x_ND = torch.cat([x_ND, x_ND.new_ones(len(x_ND), 1)], dim=1)
        return cls((x_ND.T @ x_ND).double(), (x_ND.T @ y_NO).double(), y_NO.double().square().sum())

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """In the order of `NAMES`."""
        return self.read, self.both, self.added

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Of the inputs without the constant, and of the outputs."""
        return self.read[:-1, -1] / self.read[-1, -1], self.both[-1] / self.read[-1, -1]

    @property
    def covariance(self) -> Tensor:
        """Of the inputs without the constant."""
        mean_D, _ = self.means
        return self.read[:-1, :-1] / self.read[-1, -1] - torch.outer(mean_D, mean_D)

    def solved(self, ridge: float) -> Tensor:
        """The least-squares matrix `[O, D]` without the constant, with a share of each variance as its ridge."""
        mean_D, mean_O = self.means
        both_DO = self.both[:-1] / self.read[-1, -1] - torch.outer(mean_D, mean_O)
        h_DD = self.covariance
        diagonal_D = h_DD.diagonal().clamp_min(0)
        h_DD.diagonal().add_(ridge * diagonal_D + (TINY * float(diagonal_D.mean()) or 1.0))
        found_DO: Tensor = torch.linalg.solve(h_DD, both_DO)
        return found_DO.T

    def error(self, matrix_OD: Tensor, bias_O: Tensor) -> float:
        """The sum of squares of a map, but for what no map changes."""
        whole_DO = torch.cat([matrix_OD, bias_O[:, None]], dim=1).T
        return float((whole_DO * (self.read @ whole_DO - 2 * self.both)).sum())


@dataclass(frozen=True)
class SubBlock:
    """What one sub-block reads and adds.

    Args:
        fitted: sums over most sequences.
        held_out: over the others; None where there was one batch.
    """

    fitted: Sums
    held_out: Sums | None

    def map(self, rank: int | None) -> dict[str, Tensor]:
        """The map that adds most nearly what the sub-block adds, float64: `bias`, `up`, and `down` of low rank.

        Of all maps of rank R, the nearest on what was read is the whole map behind the projection on its R largest
        directions (reduced-rank regression, Izenman 1975).

        Args:
            rank: R; None is a full matrix, 0 a constant alone.
        """
        mean_D, mean_O = self._all.means
        if rank == 0:
            return {"bias": mean_O}
        matrix_OD = self._matrix
        if rank is None:
            return {"bias": mean_O - matrix_OD @ mean_D, "up": matrix_OD}
        up_OR = self._directions[:, -rank:].flip(1)
        down_RD = up_OR.T @ matrix_OD
        return {"bias": mean_O - up_OR @ (down_RD @ mean_D), "up": up_OR, "down": down_RD}

    def lost(self, tensors: Mapping[str, Tensor]) -> float:
        """The share of what the sub-block adds that a map misses, in squares: at most 1 for the maps above."""
        up_OR, bias_O = tensors.get("up"), tensors["bias"]
        matrix_OD = bias_O.new_zeros(len(bias_O), len(self._all.read) - 1)
        if up_OR is not None:
            matrix_OD = up_OR @ tensors["down"] if "down" in tensors else up_OR
        added = float(self._all.added)
        return max(0.0, 1 + self._all.error(matrix_OD, bias_O) / added) if added > 0 else 0.0

    def named(self, kind: str) -> dict[str, Tensor]:
        """Its tensors by names that begin with the kind of the unit, for `found`."""
        parts = {"fitted": self.fitted, "held_out": self.held_out}
        return {
            f"{kind}.{part}.{name}": tensor
            for part, sums in parts.items()
            if sums is not None
            for name, tensor in zip(NAMES, sums.parts, strict=True)
        }

    @classmethod
    def found(cls, kind: str, named: Mapping[str, Tensor], device: torch.device | str = "cpu") -> "SubBlock":
        """The sub-block of that kind among named tensors, on a device."""
        fitted, held_out = (
            [named[f"{kind}.{part}.{name}"].to(device) for name in NAMES if f"{kind}.{part}.{name}" in named]
            for part in ("fitted", "held_out")
        )
        return cls(Sums(*fitted), Sums(*held_out) if held_out else None)

    @cached_property
    def _all(self) -> Sums:
        return self.fitted if self.held_out is None else self.fitted + self.held_out

    @cached_property
    def _matrix(self) -> Tensor:
        """The full matrix, `[O, D]`."""
        return self._all.solved(self._ridge())

    @cached_property
    def _directions(self) -> Tensor:
        """The directions of what it adds, by their variance, `[O, O]`, the largest last."""
        spread_OO: Tensor = self._matrix @ self._all.covariance @ self._matrix.T
        directions_OO: Tensor = torch.linalg.eigh(spread_OO).eigenvectors
        return directions_OO

    def _ridge(self) -> float:
        """The one whose map errs least on the sequences that it was not fitted to."""
        if self.held_out is None:
            return RIDGES[len(RIDGES) // 2]
        mean_D, mean_O = self.fitted.means
        errors = {}
        for ridge in RIDGES:
            matrix_OD = self.fitted.solved(ridge)
            errors[ridge] = self.held_out.error(matrix_OD, mean_O - matrix_OD @ mean_D)
        return min(errors, key=lambda ridge: errors[ridge])


@torch.no_grad()
def collect_sub_blocks(
    view: BlockView, tokens_NT: Tensor, batch: int, wanted: Collection[str]
) -> Iterator[dict[str, Tensor]]:
    """Of one block after another, on the dense network: what its sub-blocks read and add (`SubBlock.named`).

    Args:
        view: the dense network, whole on the device, which is dense again whenever a block's are given.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass at most.
        wanted: names of units that can be replaced (cutting/replacing.py).
    """
    assert not view.streamed
    batch = min(batch, -(-len(tokens_NT) // HELD_OUT))
    states = [view.embed(tokens_BT) for tokens_BT in torch.split(tokens_NT, batch)]
    for block, widths in enumerate(view.widths):
        asked = [width for width in widths if f"{block}.{width.width.kind}" in wanted]
        parts: list[list[Sums | None]] = [[None, None] for _ in asked]
        for number, hidden in enumerate(states):
            states[number], found = _sums(view, block, hidden, asked)
            part = number % HELD_OUT == HELD_OUT - 1
            for row, sums in zip(parts, found, strict=True):
                before = row[part]
                row[part] = sums if before is None else before + sums
        named: dict[str, Tensor] = {}
        for width, (fitted, held_out) in zip(asked, parts, strict=True):
            assert fitted is not None
            named |= SubBlock(fitted, held_out).named(width.width.kind)
        yield named


def _sums(view: BlockView, block: int, hidden: Tensor, asked: Sequence[LiveWidth]) -> tuple[Tensor, list[Sums]]:
    """What a dense block gives, and the sums of those widths, on the CPU."""
    with last_outputs(asked) as outputs:
        behind = view.run(block, hidden)
    found = []
    for width, added in zip(asked, outputs, strict=True):
        read = normed(_read_when_dropped(view, block, width, hidden))
        x_ND, y_NO = (tensor.reshape(-1, tensor.shape[-1]).float() for tensor in (read, added))
        found.append(Sums(*(sums.cpu() for sums in Sums.of(x_ND, y_NO).parts)))
    return behind, found


@contextmanager
def last_outputs(widths: Sequence[LiveWidth]) -> Iterator[list[Tensor]]:
    """What the last module of each width that leaves with it gives, of what is run meanwhile."""
    outputs = [torch.zeros(0) for _ in widths]
    hooks = [
        module.register_forward_hook(partial(_keep, outputs, i))
        for i, width in enumerate(widths)
        for module in width.dropping.modules.values()
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _keep(outputs: list[Tensor], i: int, module: nn.Module, args: Any, output: Any) -> None:
    outputs[i] = (output[0] if isinstance(output, tuple) else output).clone()  # some blocks add to it in place


def _read_when_dropped(view: BlockView, block: int, width: LiveWidth, hidden: Tensor) -> Tensor:
    """What the stand-in of a width reads where nothing else of the block is dropped."""
    read: list[Tensor] = []

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        read.append(args[0] if args else kwargs["hidden_states"])

    host = host_of(width.width)
    assert host is not None
    width.keep(0)
    try:
        width.block.get_submodule(host).register_forward_pre_hook(
            hook, with_kwargs=True
        )  # which leaves with the module
        view.run(block, hidden)
    finally:
        width.restore()
    return read[0]
