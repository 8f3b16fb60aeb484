"""Second moments of each consumer's inputs, streamed: H_DD = sum over tokens of x x^T (SparseGPT, OBS).

Memory is one D x D matrix a width whatever the number of tokens; sums are kept in float64.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from autoprune.cutting import reading
from autoprune.cutting.live import LiveWidth
from autoprune.networks.blocks import BlockView

SLAB = 256
"""Rows of a product at a time, on a CPU."""


def collect(
    view: BlockView, tokens_NT: Tensor, batch: int, progress: Callable[[float], None] | None = None
) -> Iterator[list[Tensor]]:
    """Mean second moments, dense network: for each width of one block after another, `[D, D]` float64 on the CPU.

    Widths behind others have their own. Those of a width with a norm have one more row and column (`reading.rows`).
    Moments of large networks take more memory than their weights: whoever needs one block's at a time holds no more,
    but where blocks are brought to the device in turn and not all sequences have room, which makes them all at once.

    Args:
        view: the dense network, which is to stay so until the last.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass.
        progress: called with the fraction done.
    """
    sums = [[torch.zeros(0) for _ in links_of(widths)] for widths in view.widths]
    with _held(view, tokens_NT, batch) as (at_once, where):
        for start in range(0, len(tokens_NT), at_once):
            together_NT = tokens_NT[start : start + at_once]
            chunks = [together_NT[i : i + batch] for i in range(0, len(together_NT), batch)]
            states = [view.embed(tokens_BT).to(where) for tokens_BT in chunks]
            for block, moments in enumerate(sums):
                of_block = [torch.zeros(0) for _ in moments]
                for i, h_BTD in enumerate(states):
                    states[i] = _through(view, block, h_BTD.to(tokens_NT.device), of_block).to(where)
                for i, h_DD in enumerate(of_block):
                    _add(moments, i, whole(h_DD).cpu())
                if progress:
                    progress(min(1.0, (start + at_once * (block + 1) / len(sums)) / len(tokens_NT)))
                if not view.streamed:
                    yield _means(moments, tokens_NT)
    if view.streamed:
        yield from (_means(moments, tokens_NT) for moments in sums)


def _means(sums: list[Tensor], tokens_NT: Tensor) -> list[Tensor]:
    """What the list holds, which lets go of it."""
    means = [h_DD.div_(tokens_NT.numel()) for h_DD in sums]
    sums.clear()
    return means


def _held(view: BlockView, tokens_NT: Tensor, batch: int) -> AbstractContextManager[tuple[int, torch.device]]:
    """How many sequences go through a block together, and where they wait: all, unless blocks must be brought."""
    if not view.streamed:
        return nullcontext((len(tokens_NT), tokens_NT.device))
    return view.hold(len(tokens_NT), batch, 2, tokens_NT.shape[1])


def _through(view: BlockView, block: int, hidden: Tensor, sums: list[Tensor]) -> Tensor:
    """Run one block, and add the moments of its consumers' inputs to `sums`."""
    links = links_of(view.widths[block])
    with inputs_of(links) as inputs:
        hidden = view.run(block, hidden)
    for i, x in enumerate(inputs):
        x_ND = reading.rows(links[i], x)
        if not view.streamed:
            add_product(sums, i, x_ND.float())
            continue
        with view.bench(12 * x_ND.shape[-1] ** 2 + 4 * x_ND.numel()) as device:
            x_ND = x_ND.to(device).float()
            # matrices of large networks take as long to be copied as to be computed: one copy a block, if there is room
            _add(sums, i, (x_ND.T @ x_ND).double().cpu())
    return hidden


def add_product(sums: list[Tensor], i: int, x_ND: Tensor) -> None:
    """Add x^T x to a sum; on a CPU, where products take most of the time, without what is below the slabs' diagonal."""
    width = x_ND.shape[1]
    if not sums[i].numel():
        sums[i] = torch.zeros(width, width, dtype=torch.float64, device=x_ND.device)
    slab = SLAB if x_ND.device.type == "cpu" else width
    for begin in range(0, width, slab):
        sums[i][begin : begin + slab, begin:] += x_ND[:, begin : begin + slab].T @ x_ND[:, begin:]


def whole(h_DD: Tensor) -> Tensor:
    """A sum of which only what is on and above the slabs' diagonal was added, in place."""
    if h_DD.device.type == "cpu":
        for begin in range(0, len(h_DD), SLAB):
            end = begin + SLAB
            h_DD[end:, begin:end] = h_DD[begin:end, end:].T
    return h_DD


def links_of(widths: Sequence[LiveWidth]) -> list[LiveWidth]:
    """The widths of a block, each followed by those behind it."""
    return [link for width in widths for link in width.links]


@contextmanager
def inputs_of(links: Sequence[LiveWidth]) -> Iterator[list[Tensor]]:
    """What the consumers of widths read of what is run meanwhile, in the order of the widths."""
    inputs: list[Tensor] = []
    hooks = [link.consumer.register_forward_pre_hook(_catch(inputs)) for link in links]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def _add(sums: list[Tensor], i: int, h_DD: Tensor) -> None:
    sums[i] = sums[i].add_(h_DD) if sums[i].numel() else h_DD


def _catch(inputs: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0])

    return hook
