"""The dense tensors of widths, and the live parameters and buffers that hold views of them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from autoprune.cutting.widths import Key


class Dense:
    """The dense tensors of a width and of those behind it.

    Attributes:
        modules: path -> module.
        tensors: the dense tensors, wherever they are now.
    """

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.tensors: dict[Key, Tensor] = {}

    def take(self, block: nn.Module, paths: Iterable[str]) -> None:
        """Remember the present tensors of modules of a block."""
        for path in paths:
            module = self.modules[path] = block.get_submodule(path)
            named = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            self.tensors |= {(path, name): tensor.data for name, tensor in named if tensor.dim()}

    def live(self, key: Key) -> nn.Parameter:
        """The parameter or buffer of the module."""
        parameter: nn.Parameter = getattr(self.modules[key[0]], key[1])
        return parameter

    def put(self, key: Key, tensor: Tensor) -> None:
        """Have a module compute with a tensor."""
        self.live(key).data = tensor

    def restore(self, key: Key) -> None:
        """Have a module compute with its dense tensor."""
        self.live(key).data = self.tensors[key]

    def parameters(self) -> list[nn.Parameter]:
        """All parameters and buffers that tensors are put into."""
        return [self.live(key) for key in self.tensors]


def materialise(module: nn.Module) -> None:
    """Give every parameter and buffer its own contiguous memory, because views cannot be saved and freed."""
    for parameter in (*module.parameters(), *module.buffers()):
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
