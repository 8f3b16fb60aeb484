"""Second moments of each consumer's inputs, streamed: H_DD = sum over tokens of x x^T (SparseGPT, OBS).

Memory is one D x D matrix a unit whatever the number of tokens; sums are kept in float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoprune.models.blocks import BlockView


def collect(
    view: BlockView, tokens_NT: Tensor, batch: int, progress: Callable[[float], None] | None = None
) -> list[list[Tensor]]:
    """Mean second moments for every width of every block, `[D, D]` float64 on the CPU, at the dense network.

    Args:
        view: the dense network.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass.
        progress: called with the fraction done.
    """
    sums = [[torch.zeros(0) for _ in widths] for widths in view.widths]
    with view.hold(len(tokens_NT), batch, 2, tokens_NT.shape[1]) as (at_once, where):
        for start in range(0, len(tokens_NT), at_once):
            together_NT = tokens_NT[start : start + at_once]
            chunks = [together_NT[i : i + batch] for i in range(0, len(together_NT), batch)]
            states = [view.embed(tokens_BT).to(where) for tokens_BT in chunks]
            for block, moments in enumerate(sums):
                states = [_through(view, block, h_BTD.to(tokens_NT.device), moments).to(where) for h_BTD in states]
            if progress:
                progress(min(1.0, (start + at_once) / len(tokens_NT)))
    return [[h_DD / tokens_NT.numel() for h_DD in row] for row in sums]


def _through(view: BlockView, block: int, hidden: Tensor, sums: list[Tensor]) -> Tensor:
    """Run one block, and add the moments of its consumers' inputs to `sums`."""
    inputs: list[Tensor] = []
    hooks = [width.consumer.register_forward_pre_hook(_catch(inputs)) for width in view.widths[block]]
    hidden = view.run(block, hidden)
    for hook in hooks:
        hook.remove()
    for i, x in enumerate(inputs):
        with view.bench(12 * x.shape[-1] ** 2 + 4 * x.numel()) as device:
            x_ND = x.reshape(-1, x.shape[-1]).to(device).float()
            h_DD = (x_ND.T @ x_ND).double().cpu()
        sums[i] = sums[i] + h_DD if sums[i].numel() else h_DD
    return hidden


def _catch(inputs: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0])

    return hook
