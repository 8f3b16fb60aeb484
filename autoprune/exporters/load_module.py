"""Load this directory's pruned network with torch and safetensors alone.

import sys; sys.path.insert(0, DIRECTORY)
from load_module import load
network = load(dense)        # `dense`: the module that the search was given, with or without its weights
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn


class Zeros(nn.Module):
    """In the place of a convolution or linear layer of which nothing is left: zeros of the shape that it gave.

    Args:
        gone: the layer.
        narrow: one channel is enough, since only what is gone too reads it.
    """

    def __init__(self, gone: Any, narrow: bool) -> None:
        super().__init__()
        self.features = getattr(gone, "out_features", None)
        if self.features is None:
            self._like(gone, narrow)
        elif narrow:
            self.features = 1

    def _like(self, conv: Any, narrow: bool) -> None:
        self.channels = 1 if narrow else conv.out_channels
        self.asked: tuple[Any] | None = None
        self.known: dict[tuple[int, ...], Any] = {}
        if type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
            self.sides = list(zip(conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True))
            return
        # one that pads in its own way is asked for its sides, with a single channel
        small, outputs = copy.deepcopy(conv).cpu().float(), len(conv.weight)
        for tensor in (*small.parameters(), *small.buffers()):
            tensor.data = tensor.data[:1] if tensor.dim() and len(tensor) == outputs else tensor.data
        small.weight.data, small.groups = small.weight.data[:, :1], 1
        self.asked = (small,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, channels, height, width]`, or `[..., features]`."""
        if self.features is not None:
            return x.new_zeros(*x.shape[:-1], self.features)
        if self.asked is not None:
            before = tuple(x.shape[2:])
            if before not in self.known:
                self.known[before] = self.asked[0](torch.zeros(1, 1, *before)).shape[2:]
            return x.new_zeros(len(x), self.channels, *self.known[before])
        sides = zip(x.shape[2:], self.sides, strict=True)
        return x.new_zeros(
            len(x), self.channels, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, (k, s, p, d) in sides)
        )


def load(dense: nn.Module, directory: str | Path = Path(__file__).parent) -> nn.Module:
    """Cut a dense module in place to the shapes in `directory`, and fill it.

    Args:
        dense: as the function in `config.json` makes it.
        directory: where `model.safetensors` and `config.json` are.
    """
    directory = Path(directory)
    described = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    for path, stand_in in described["stand_ins"].items():
        owner, _, name = path.rpartition(".")
        gone = dense.get_submodule(path)
        there = nn.Identity() if stand_in == "identity" else Zeros(gone, narrow=stand_in == "narrow")
        setattr(dense.get_submodule(owner), name, there)
    for path, tensor in load_file(directory / "model.safetensors").items():
        owner, _, name = path.rpartition(".")
        getattr(dense.get_submodule(owner), name).data = tensor
    for module in dense.modules():
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups == module.out_channels > 1
            module.groups = len(module.weight) if depthwise else module.groups
            module.out_channels, module.in_channels = len(module.weight), module.weight.shape[1] * module.groups
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            each = module.running_mean if module.weight is None else module.weight
            module.num_features = module.num_features if each is None else len(each)
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
    return dense.eval()
