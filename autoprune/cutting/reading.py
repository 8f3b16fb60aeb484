"""The inputs of a width's consumer and its weights as matrices, for moments, criteria and reconstruction.

Shapes: O outputs, D inputs of the consumer (`groups * size`), K kept inputs, N positions.
"""

import torch
from torch import Tensor, nn

from autoprune.cutting.live import LiveWidth


def laid_out(live: LiveWidth, weight_OK: Tensor) -> Tensor:
    """A consumer's weight with the width last, in the layout of its module."""
    return live.layout.laid_out(weight_OK, live.dense.tensors[live.width.consumer.key])


def matrix(live: LiveWidth, weight: Tensor) -> Tensor:
    """The other way: `[O, K]`."""
    return live.layout.matrix(weight)


def rows(live: LiveWidth, inputs: Tensor) -> Tensor:
    """The inputs of the consumer's matrix, one row for each position, `[N, D]`. With a norm, each row ends with a 1."""
    x_ND = live.layout.read(live.consumer, inputs)
    return x_ND if live.norm is None else torch.cat([x_ND, x_ND.new_ones(len(x_ND), 1)], dim=1)


def moments(live: LiveWidth, h_DD: Tensor) -> tuple[Tensor, Tensor | None]:
    """Second moments of the consumer's inputs, and their means `[D]` where there is a norm, of what `rows` gave."""
    if live.norm is None:
        return h_DD, None
    h_DD = h_DD / h_DD[-1, -1].clamp_min(1e-300)
    return h_DD[:-1, :-1], h_DD[:-1, -1]


def batchnorm_statistics(live: LiveWidth) -> tuple[Tensor, Tensor] | None:
    """Mean and variance of the dense consumer's outputs from the BatchNorm behind it; None without one."""
    if live.norm is None:
        return None
    mean_O, variance_O = (live.dense.tensors[key] for key in live.width.statistics_keys)
    return mean_O, variance_O


def scales(live: LiveWidth) -> Tensor | None:
    """Of the last BatchNorm that writes the width, `[D]`; None where none does, or it has none."""
    modules = live.dense.modules
    norms = [s.module for s in live.width.producers if isinstance(modules[s.module], nn.BatchNorm2d)]
    return live.dense.tensors.get((norms[-1], "weight")) if norms else None
