"""The weight matrices of a unit with the moments of their inputs, for forms that change all matrices of a unit.

Everything is in the store's order of groups, as the live network is when a level is put in place.

Shapes: O outputs, D inputs of a matrix, G groups.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from autoprune.cutting import reading
from autoprune.cutting.cuts import Cut
from autoprune.cutting.layouts import Experts, Layout, consumer_layout, layout_of
from autoprune.cutting.live import LiveWidth
from autoprune.cutting.widths import STATISTICS, Key
from autoprune.errors import UserError
from autoprune.space import Unit


@dataclass(frozen=True)
class Matrix:
    """One weight matrix of a unit.

    Args:
        key: its module and name.
        layout: of the weight.
        weight: dense, in its layout.
        moments: second moments of its inputs, `[D, D]` float64.
        mean: means of its inputs, `[D]`; None where they are not known.
    """

    key: Key
    layout: Layout
    weight: Tensor
    moments: Tensor
    mean: Tensor | None

    @cached_property
    def matrix_od(self) -> Tensor:
        """The weight as a matrix."""
        return self.layout.matrix(self.weight)

    def lost(self, new_OD: Tensor) -> float:
        """E|Wx - W'x|^2 / E|Wx|^2."""
        old_OD = self.matrix_od.double()
        gone_OD = old_OD - new_OD.double()
        gone, whole = (float((one @ self.moments * one).sum()) for one in (gone_OD, old_OD))
        return gone / whole if whole > 0 else 0.0

    def laid_out(self, weight_OD: Tensor) -> Tensor:
        """A matrix in the layout of the weight, contiguous."""
        return self.layout.laid_out(weight_OD, self.weight).contiguous()


@dataclass(frozen=True)
class UnitBuilding:
    """What a form builds the levels of one unit from, where it changes more than the consumer.

    Args:
        unit: the unit.
        width: its live width, dense, with the groups in the network's own order.
        orders: of the groups, `[G]` for the width and for each behind it.
        inputs: path of a producer -> moments of its inputs and of a constant 1 (calibration/inputs.py).
        consumers: moments of the inputs of each link's consumer, as `calibration.moments.collect` gives them.
        criterion: of the search.
        dtype: the checkpoint's, which weights are rounded to.
    """

    unit: Unit
    width: LiveWidth
    orders: Sequence[Tensor]
    inputs: Mapping[str, Tensor]
    consumers: Sequence[Tensor]
    criterion: Any
    dtype: torch.dtype

    @cached_property
    def matrices(self) -> list[Matrix]:
        """The unit's matrices, in the order of `LiveWidth.matrix_keys`.

        Raises:
            UserError: the moments of a matrix are not known.
        """
        return [self._matrix(key) for key in self.width.matrix_keys]

    def statistics(self, matrix: Matrix, new_OD: Tensor) -> Tensor | None:
        """Mean and variance of the BatchNorm that reads a matrix, with other weights, `[2, O]`; None without one.

        What training left is shifted and scaled by what changes on the calibration data (levels/groups.py).
        """
        norm = norm_behind(self.width, matrix.key)
        if norm is None or matrix.mean is None:
            return None
        known = [self._in_order((norm, name), self.width.dense.tensors[norm, name]) for name in STATISTICS]
        mean_O, variance_O = (statistic.double() for statistic in known)
        old_OD, new_OD = matrix.matrix_od.double(), new_OD.double()
        before_O, after_O = old_OD @ matrix.mean, new_OD @ matrix.mean
        spread_O = (old_OD @ matrix.moments * old_OD).sum(1) - before_O.square()
        left_O = (new_OD @ matrix.moments * new_OD).sum(1) - after_O.square()
        ratio_O = (left_O.clamp_min(0) / spread_O.clamp_min(1e-12)).where(spread_O > 0, 1.0)
        return torch.stack([mean_O + after_O - before_O, variance_O * ratio_O]).float()

    def _matrix(self, key: Key) -> Matrix:
        layout, weight = layout_at(self.width, key), self.width.dense.tensors[key]
        h_DD, mean_D = self._moments(key)
        inputs_D = self._inputs_in_order(key, layout, weight)
        h_DD = h_DD.to(weight.device)
        if inputs_D is not None:
            h_DD = h_DD[inputs_D][:, inputs_D]
            mean_D = None if mean_D is None else mean_D.to(weight.device)[inputs_D]
        return Matrix(key, layout, self._in_order(key, weight), h_DD, mean_D)

    def _moments(self, key: Key) -> tuple[Tensor, Tensor | None]:
        for link, h_DD in zip(self.width.links, self.consumers, strict=True):
            if link.width.consumer.key == key:
                return reading.moments(link, h_DD)
        if key[0] not in self.inputs:
            raise UserError(
                f"the inputs of {key[0]} in unit {self.unit.name} are not known: the forms of single weights cannot "
                "be had for it."
            )
        h_DD = self.inputs[key[0]]
        h_DD = h_DD / h_DD[-1, -1].clamp_min(1e-300)
        return h_DD[:-1, :-1], h_DD[:-1, -1]

    def _in_order(self, key: Key, tensor: Tensor) -> Tensor:
        """A tensor with the groups of all widths that cut it in the store's order."""
        for cut, order in self._cuts(key):
            tensor = cut.segments.taken(tensor, cut.dim, order)
        return tensor

    def _inputs_in_order(self, key: Key, layout: Layout, weight: Tensor) -> Tensor | None:
        """Numbers of a matrix's inputs in the store's order, `[D]`; None where no width cuts them."""
        for cut, order in self._cuts(key):
            if cut.dim == layout.inputs:
                entries = cut.segments.entries(order.to(weight.device))
                each = layout.matrix(weight).shape[1] // weight.shape[cut.dim]
                return (entries[:, None] * each + torch.arange(each, device=weight.device)).flatten()
        return None

    def _cuts(self, key: Key) -> list[tuple[Cut, Tensor]]:
        links = zip(self.width.links, self.orders, strict=True)
        return [(cut, order) for link, order in links for cut in link.cuts if cut.key == key]


def layout_at(width: LiveWidth, key: Key) -> Layout:
    """The layout of one of a unit's matrices.

    Raises:
        UserError: it is of a layer's experts, whose inputs are not known outside.
    """
    for link in width.links:
        if link.width.consumer.key == key:
            layout = consumer_layout(width.dense.tensors[key], link.width.consumer.dim)
            break
    else:
        layout = layout_of(width.dense.modules[key[0]])
    if isinstance(layout, Experts) or width.dense.tensors[key].dim() == 3:
        raise UserError(f"the matrices of experts ({key[0]}) have no levels of single weights yet: leave the form out.")
    return layout


def norm_behind(width: LiveWidth, key: Key) -> str | None:
    """The path of the BatchNorm that directly reads one of a unit's matrices and has statistics; None without one."""
    for link in width.links:
        if link.width.consumer.key == key and link.width.norm:
            return link.width.norm
        paths = [s.module for s in link.width.producers]
        for path, following in itertools.pairwise(paths):
            if path == key[0] and (following, STATISTICS[0]) in width.dense.tensors:
                return following
    return None
