"""What a refit solves of a constant or a linear map in the place of a dropped sub-block: its outer matrix and constant.

Shapes: N rows (positions), D inputs of the outer matrix, at the end a constant 1, O outputs.
"""

from typing import Any

import torch
from torch import Tensor

from autoprune.cutting.replacing import Constant, LinearMap, normed


class AffineOfMap:
    """The same as `Affine` (refit.py) of a replacement. The inner matrix of a map of low rank stays.

    Args:
        module: the replacement, in place on the live network.

    Attributes:
        inputs: D without the constant; 0 of a constant.
    """

    def __init__(self, module: Constant | LinearMap) -> None:
        self._module = module
        self.inputs = 0 if isinstance(module, Constant) else module.up.in_features

    def matrix(self) -> Tensor:
        """`[D, O]` float64."""
        module: Any = self._module
        if isinstance(module, Constant):
            return module.bias.data.double()[None]
        return torch.cat([module.up.weight.data.double().T, module.up.bias.data.double()[None]])

    def rows(self, read: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        """What it reads and should write as rows, `[N, D]` and `[N, O]`."""
        y_NO = written.reshape(-1, written.shape[-1]).float()
        one_N1 = y_NO.new_ones(len(y_NO), 1)
        if isinstance(self._module, Constant):
            return one_N1, y_NO
        inner = normed(read) if self._module.down is None else self._module.down(normed(read))
        return torch.cat([inner.reshape(-1, self.inputs).float(), one_N1], dim=1), y_NO

    def put(self, found_DO: Tensor) -> None:
        """Put it in place, in memory of its own: the level store keeps its own."""
        if isinstance(self._module, Constant):
            self._module.bias.data = found_DO[-1].to(self._module.bias.dtype)
            return
        up = self._module.up
        up.weight.data = found_DO[:-1].T.to(up.weight.dtype).contiguous()
        up.bias.data = found_DO[-1].to(up.bias.dtype)
