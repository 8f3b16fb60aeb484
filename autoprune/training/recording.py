"""Outputs of blocks, recorded while a network runs.

Shapes: N examples, D numbers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from autoprune.networks.blocks import BlockView


def block_names(view: BlockView) -> list[str]:
    """Names of the modules of a network's blocks. Empty if a block is no module of the network, as in traced ones."""
    names = {id(module): name for name, module in view.model.named_modules()}
    found = [names.get(id(block)) for block in view.blocks]
    return [name for name in found if name] if all(found) else []


@contextmanager
def recorded(network: nn.Module, names: Sequence[str]) -> Iterator[list[Tensor]]:
    """Record what blocks of a network give in a forward pass, in the order of their names.

    Args:
        network: the network, or a wrapper that holds it as `module`, as torch's data parallel does.
        names: of the blocks' modules; with none, nothing is recorded.
    """
    found: list[Tensor] = []
    held: Any = getattr(network, "module", network)

    def keep(module: nn.Module, args: Any, out: Any) -> None:
        found.append(out[0] if isinstance(out, tuple) else out)

    hooks = [held.get_submodule(name).register_forward_hook(keep) for name in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
