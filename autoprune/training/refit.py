"""Refits the consumers of one policy, block after block, on the outputs of the pruned blocks before them.

The level store reconstructs every level separately, with inputs of the dense network. Once a policy is chosen, its
consumers can be fitted to each other. Least squares map the consumer's inputs in the pruned network to its outputs in
the dense network. If the output is added to a residual stream, the target includes what the stream has lost so far (the
asymmetric reconstruction of He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", sec. 3.2). No
derivatives are needed, only a few forward passes of each block.

A part of the sequences is held out. It determines how strongly a consumer is drawn towards the weights of its level,
and whether it changes at all. Otherwise least squares would overfit few sequences, in particular those of a classifier,
which have one row for each image.

Shapes: N rows (positions of outputs), D inputs of a row (and a constant where there is a bias to solve), O outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.calibration.moments import links_of
from autoprune.cutting import reading
from autoprune.cutting.live import LiveWidth
from autoprune.levels.criterion import DAMPING
from autoprune.levels.placing import Placer
from autoprune.networks.blocks import BlockView
from autoprune.space import Proposal
from autoprune.training.refit_maps import AffineOfMap

NEAR = 1e-2
"""Of the stream: what may be left of it where blocks are said to add to it."""
OFF = 1e-6
"""Scales of a BatchNorm that are so much smaller than its largest write nothing."""
HELD_OUT = 4
"""One batch of so many."""
RIDGES = tuple(DAMPING * 10.0**power for power in range(5))
"""Shares of the mean diagonal, from that of the levels on; beyond the last a consumer hardly moves."""
AFTER: tuple[Callable[[Tensor], Tensor], ...] = (lambda stream: stream, functional.relu)
"""What blocks do to the stream after they have added to it."""


@dataclass(frozen=True)
class Step:
    """One block on one batch: the stream before and after, and what the consumers read and wrote, by their number.

    Consumers of what is dropped are missing, but for what is in the place of a sub-block.
    """

    before: Tensor
    after: Tensor
    read: dict[int, Tensor]
    written: dict[int, Tensor]


@torch.no_grad()
def place_refitted(
    placer: Placer,
    proposal: Proposal,
    tokens_NT: Tensor,
    batch: int,
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Put a proposal in place with its consumers refitted, until the next is placed or the dense network released.

    Args:
        placer: its network is on the device as a whole.
        proposal: levels or a mask.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass at most.
        progress: is told what share of the blocks is done.
    """
    view = placer.view
    batch = min(batch, -(-len(tokens_NT) // HELD_OUT))
    placer.release_ends()
    dense = pruned = [view.embed(tokens_BT) for tokens_BT in torch.split(tokens_NT, batch)]
    if any(placer.ends(proposal)):
        placer.place_ends(placer.ends(proposal))
        pruned = [view.embed(tokens_BT) for tokens_BT in torch.split(tokens_NT, batch)]
    for block, choices in enumerate(placer.choices(proposal)):
        placer.release_block(block)
        wanted = [_step(view, block, hidden) for hidden in dense]
        placer.place_block(block, choices)
        links = links_of(view.widths[block])
        refits = [placer.refits(block, unit, choice) for unit, choice in enumerate(choices)]
        of_unit = [unit for unit, width in enumerate(view.widths[block]) for _ in width.links]
        stream = [number for number, link in enumerate(links) if link.behind is None]
        added = bool(stream) and _adds(wanted[0], stream)
        for number, link in enumerate(links):
            solves = refits[of_unit[number]] and (link.kept or (added and link.dropping.replacement is not None))
            if solves:
                lost = [m for m in stream if m < number] if added and number in stream else None
                pairs = _pairs(view, block, pruned, wanted, number, lost)
                _refit(_affine(link), pairs, min(HELD_OUT, len(wanted)))
        dense = [step.after for step in wanted]
        pruned = [view.run(block, hidden) for hidden in pruned]
        progress((block + 1) / len(view.blocks))


def _step(view: BlockView, block: int, hidden: Tensor) -> Step:
    """Run a block as it stands."""
    read: dict[int, Tensor] = {}
    written: dict[int, Tensor] = {}
    hooks = []
    for number, link in enumerate(links_of(view.widths[block])):
        if link.dropping.replacement is not None:
            hooks.append(
                link.dropping.replacement.register_forward_hook(_seen(number, read, written), with_kwargs=True)
            )
        hooks.append(link.consumer.register_forward_pre_hook(lambda _, args, n=number: read.update({n: args[0]})))
        writer = link.norm or link.consumer
        # some blocks add to what was written in place
        hooks.append(writer.register_forward_hook(lambda _, args, out, n=number: written.update({n: out.clone()})))
    try:
        return Step(hidden, view.run(block, hidden), read, written)
    finally:
        for hook in hooks:
            hook.remove()


def _seen(number: int, read: dict[int, Tensor], written: dict[int, Tensor]) -> Callable[..., None]:
    """A hook that remembers what a replacement read and wrote."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        read[number] = args[0] if args else kwargs["hidden_states"]
        written[number] = (output[0] if isinstance(output, tuple) else output).clone()

    return hook


def _affine(link: LiveWidth) -> "Affine | AffineOfMap":
    """What is solved of a width: its consumer, or what is in the place of its sub-block."""
    module: Any = link.dropping.replacement
    return Affine(link) if module is None else AffineOfMap(module)


def _adds(step: Step, stream: Sequence[int]) -> bool:
    """Whether a dense block adds what these consumers write to the stream, and does nothing more than a ReLU to it."""
    if any(
        tensor.numel() != step.before.numel() for tensor in (step.after, *(step.written[number] for number in stream))
    ):
        return False
    total = step.before + sum(step.written[number].reshape(step.before.shape) for number in stream)
    after = step.after.reshape(total.shape)
    return any(float((done(total) - after).float().norm()) <= NEAR * float(after.float().norm()) for done in AFTER)


def _pairs(
    view: BlockView, block: int, pruned: Sequence[Tensor], wanted: Sequence[Step], number: int, lost: list[int] | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a consumer reads and what it should write, a batch at a time.

    Args:
        lost: consumers before it that write to the same stream; None where it writes to none.
    """
    for hidden, dense in zip(pruned, wanted, strict=True):
        now = _step(view, block, hidden)
        target = dense.written[number]
        if lost is not None:
            target = target + (dense.before - now.before).reshape(target.shape)
            for other in lost:
                gap = dense.written[other] - now.written.get(other, torch.zeros_like(dense.written[other]))
                target = target + gap.reshape(target.shape)
        yield now.read[number], target


def _refit(affine: "Affine | AffineOfMap", pairs: Iterable[tuple[Tensor, Tensor]], every: int) -> None:
    """Solve a consumer's weight, and its bias or the mean of the norm behind it, if that serves what is held out.

    Args:
        affine: the consumer, or what is in the place of its sub-block.
        pairs: what it reads and should write, a batch at a time.
        every: one batch of so many is held out.
    """
    parts = [Fit(affine.matrix(), affine.inputs) for _ in range(2)]
    for number, (read, written) in enumerate(pairs):
        parts[number % every == every - 1].add(*affine.rows(read, written))
    fitted, held_out = parts
    least, chosen = held_out.error(affine.matrix()), None
    for ridge in RIDGES:
        error = held_out.error(fitted.solved(ridge))
        if error < least:
            least, chosen = error, ridge
        elif chosen is not None:
            break  # stronger ones lead back to what is there
    if chosen is not None:
        affine.put((fitted + held_out).solved(chosen))


class Fit:
    """Sums over rows of what a consumer reads and should write, of which least squares are made.

    Args:
        now_DO: what is there, towards which a solution is drawn.
        inputs: rows of it that are drawn; behind them is the constant.
    """

    def __init__(self, now_DO: Tensor, inputs: int) -> None:
        self._now_DO, self._inputs = now_DO, inputs
        self._h_DD, self._r_DO = now_DO.new_zeros(len(now_DO), len(now_DO)), torch.zeros_like(now_DO)

    def add(self, x_ND: Tensor, t_NO: Tensor) -> None:
        """Rows of one batch."""
        self._h_DD += (x_ND.T @ x_ND).double()
        self._r_DO += (x_ND.T @ t_NO).double()

    def __add__(self, other: "Fit") -> "Fit":
        both = Fit(self._now_DO, self._inputs)
        both._h_DD, both._r_DO = self._h_DD + other._h_DD, self._r_DO + other._r_DO
        return both

    def error(self, found_DO: Tensor) -> float:
        """Of a solution, the sum of squares but for what no solution changes; 0 without rows."""
        return float((found_DO * (self._h_DD @ found_DO - 2 * self._r_DO)).sum())

    def solved(self, ridge: float) -> Tensor:
        """`[D, O]`, drawn to what is there by a share of the mean diagonal; the constant is free."""
        ridge_D = torch.zeros_like(self._h_DD.diagonal())
        if self._inputs:
            ridge_D[: self._inputs] = ridge * float(self._h_DD.diagonal()[: self._inputs].mean()) or 1.0
        target_DO = self._r_DO + ridge_D[:, None] * self._now_DO
        found_DO: Tensor = torch.linalg.solve(self._h_DD + ridge_D.diag(), target_DO)
        return found_DO


class Affine:
    """A consumer and the BatchNorm behind it, where there is one, as one matrix and its constants.

    Args:
        link: what they read, and as much of it as is kept now.

    Attributes:
        inputs: D without the constant.
    """

    def __init__(self, link: LiveWidth) -> None:
        self._link = link
        consumer: Any = link.consumer
        norm: Any = link.norm
        self._consumer, self._norm = consumer, norm
        self._weight_OK = reading.matrix(link, consumer.weight.data).double()
        self.inputs = self._weight_OK.shape[1]
        one_O = self._weight_OK.new_ones(len(self._weight_OK))
        self._scale_O, self._bias_O = one_O, 0 * one_O
        if norm is not None:
            self._scale_O = (norm.running_var.double() + norm.eps).rsqrt()
        if norm is not None and norm.affine:
            self._scale_O, self._bias_O = self._scale_O * norm.weight.double(), norm.bias.double()
        self._constant = norm is not None or consumer.bias is not None

    def matrix(self) -> Tensor:
        """`[D, O]` float64."""
        bias_O = 0 if self._consumer.bias is None else self._consumer.bias.double()
        mean_O = 0 if self._norm is None else self._norm.running_mean.double()
        rows = [(self._weight_OK * self._scale_O[:, None]).T]
        rows += [((bias_O - mean_O) * self._scale_O + self._bias_O)[None]] if self._constant else []
        return torch.cat(rows)

    def rows(self, read: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        """What it reads and writes at once as rows, `[N, D]` and `[N, O]`, of channels of the dense that are kept."""
        x_ND = reading.rows(self._link, read).float()
        if self._constant and self._norm is None:
            x_ND = torch.cat([x_ND, x_ND.new_ones(len(x_ND), 1)], dim=1)
        channels_last = written.movedim(1, -1) if isinstance(self._consumer, nn.Conv2d) else written
        return x_ND, channels_last.flatten(0, -2)[:, : len(self._weight_OK)].float()

    def put(self, found_DO: Tensor) -> None:
        """Put it in place; outputs that the norm turns off stay as they are."""
        on_O = self._scale_O.abs() > OFF * self._scale_O.abs().max()
        scale_O = torch.where(on_O, self._scale_O, 1.0)
        weight_OK = torch.where(on_O[:, None], found_DO[: self.inputs].T / scale_O[:, None], self._weight_OK)
        weight = self._consumer.weight
        weight.data = reading.laid_out(self._link, weight_OK).to(weight.dtype).contiguous()
        if self._norm is not None:
            bias_O = 0 if self._consumer.bias is None else self._consumer.bias.double()
            mean_O = torch.where(on_O, (self._bias_O - found_DO[-1]) / scale_O + bias_O, self._norm.running_mean)
            self._norm.running_mean.data = mean_O.to(self._norm.running_mean.dtype)
        elif self._constant:
            self._consumer.bias.data = found_DO[-1].to(self._consumer.bias.dtype)
