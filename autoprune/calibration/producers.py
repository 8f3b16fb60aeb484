"""Second moments of what the producers of widths read: a block's normed hidden states, for most.

Only forms that change the weights of producers need them (`LiveForm.changes_producers`). Producers that read the same
tensor, as q, k and v do, share one matrix.

Shapes: N positions, D inputs of a producer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.cutting.layouts import Layout, layout_of
from autoprune.cutting.live import LiveWidth
from autoprune.networks.blocks import BlockView

Read = dict[str, Tensor]
"""Path of a producer in its block -> mean second moments of what it reads, `[D, D]` float64 on the CPU."""


def collect_read(
    view: BlockView, tokens_NT: Tensor, batch: int, progress: Callable[[float], None] | None = None
) -> Iterator[Read]:
    """The moments of one block after another, of the dense network.

    Args:
        view: the dense network, which is to stay so until the last.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass.
        progress: called with the fraction done.
    """
    states = [view.embed(tokens_BT).cpu() for tokens_BT in torch.split(tokens_NT, batch)]
    for block, widths in enumerate(view.widths):
        modules = producers_of(widths)
        layouts = {path: layout_of(module) for path, module in modules.items()}  # those of the dense modules
        sums = _Sums(layouts, modules)
        for i, hidden in enumerate(states):
            with _inputs_of(modules) as inputs:
                states[i] = view.run(block, hidden.to(tokens_NT.device)).cpu()
            sums.add(inputs)
        if progress:
            progress((block + 1) / len(view.widths))
        yield sums.means(tokens_NT.numel())


def producers_of(widths: Sequence[LiveWidth]) -> dict[str, nn.Module]:
    """The modules with a matrix whose outputs are one of the widths, by their path in the block."""
    found = {}
    for width in widths:
        for cut in width.cuts[:-1]:
            if cut.is_weight and cut.dim == 0 and width.dense.tensors[cut.key].dim() in (2, 4):
                found[cut.key[0]] = width.dense.modules[cut.key[0]]
            elif cut.is_weight and cut.dim == 1 and width.dense.tensors[cut.key].dim() == 2:
                found[cut.key[0]] = width.dense.modules[cut.key[0]]
    return found


class _Sums:
    def __init__(self, layouts: Mapping[str, Layout], modules: Mapping[str, nn.Module]) -> None:
        self._layouts, self._modules = layouts, modules
        self._sums: dict[str, Tensor] = {}
        self._same: dict[str, str] = {}  # path -> the producer whose matrix it shares

    def add(self, inputs: Mapping[str, Tensor]) -> None:
        """What the producers read in one batch."""
        seen: dict[tuple[int, type[Layout]], str] = {}
        for path, x in inputs.items():
            layout, module = self._layouts[path], self._modules[path]
            first = seen.setdefault((id(x), type(layout)), path) if not isinstance(module, nn.Conv2d) else path
            self._same[path] = first
            if first == path:
                x_ND = layout.read(module, x).float()
                h_DD = (x_ND.T @ x_ND).double().cpu()
                self._sums[path] = self._sums[path].add_(h_DD) if path in self._sums else h_DD

    def means(self, items: int) -> Read:
        """The sums by the number of items."""
        means = {path: h_DD.div_(items) for path, h_DD in self._sums.items()}
        return {path: means[first] for path, first in self._same.items()}


@contextmanager
def _inputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    inputs: dict[str, Tensor] = {}

    def catch(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, args: inputs.__setitem__(path, args[0])

    hooks = [module.register_forward_pre_hook(catch(path)) for path, module in modules.items()]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()
