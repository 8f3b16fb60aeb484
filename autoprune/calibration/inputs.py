"""Second moments of what every weight matrix of a unit reads, for forms of levels that change all of its matrices.

moments.py has those of the consumers. Here are the producers, which mostly read one tensor together: queries, keys and
values, or gate and up. The moments of one tensor are computed once.

Shapes: N positions, D inputs of a matrix.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from autoprune.calibration.moments import add_product, whole
from autoprune.cutting.layouts import layout_of
from autoprune.networks.blocks import BlockView

Inputs = Mapping[str, Tensor]
"""Path of a module in its block -> mean second moments of its inputs and of a constant 1, `[D + 1, D + 1]`, float64."""


def collect_inputs(view: BlockView, tokens_NT: Tensor, batch: int) -> Iterator[Inputs]:
    """The moments of each block's producers, block after block, on the dense network.

    Args:
        view: the dense network, whose weights are all on the device.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass.
    """
    states = [view.embed(tokens_BT) for tokens_BT in torch.split(tokens_NT, batch)]
    for block in range(len(view.blocks)):
        sums = _Sums(_producers(view, block))
        for i, hidden in enumerate(states):
            with sums.adding():
                states[i] = view.run(block, hidden)
        yield sums.means(tokens_NT.numel())


class _Sums:
    """Sums of moments, added up while a block is run.

    Args:
        modules: path -> module.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._sums: dict[str, list[Tensor]] = {}
        self._with: dict[str, str] = {}  # the module that reads the same tensor and has the sum

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Add what the modules read meanwhile."""
        read: dict[str, Tensor] = {}

        def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def add(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                plain = not isinstance(module, nn.Conv2d)  # which may take other patches of the same image
                same = (first for first, x in read.items() if plain and x is args[0])
                first = self._with.setdefault(path, next(same, path))
                if first == path:
                    read[path] = args[0]

            return add

        hooks = [module.register_forward_pre_hook(hook(path)) for path, module in self._modules.items()]
        try:
            yield
        finally:
            for one in hooks:
                one.remove()
        for path, x in read.items():  # without hooks, because some layers are called to find what they read
            x_ND = layout_of(self._modules[path]).read(self._modules[path], x)
            row_ND = torch.cat([x_ND, x_ND.new_ones(len(x_ND), 1)], dim=1)
            add_product(self._sums.setdefault(path, [torch.zeros(0)]), 0, row_ND.float())

    def means(self, positions: int) -> Inputs:
        """The moments of each module that was run, by path."""
        found = {path: whole(held[0]).cpu() / positions for path, held in self._sums.items()}
        return {path: found[first] for path, first in self._with.items()}


def _producers(view: BlockView, block: int) -> dict[str, nn.Module]:
    """Modules of a block that write its widths and have a weight matrix, by path."""
    links = [link for width in view.widths[block] for link in width.links]
    consumers = {link.width.consumer.module for link in links}
    paths = dict.fromkeys(key[0] for width in view.widths[block] for key in width.matrix_keys)
    return {path: view.blocks[block].get_submodule(path) for path in paths if path not in consumers}
