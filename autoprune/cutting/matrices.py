"""The weight matrices that a width writes and reads, whatever the layout of their modules.

Shapes: O outputs, D inputs of a matrix (of a convolution channels times kernel).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from autoprune.cutting.cuts import Cut
from autoprune.cutting.layouts import Depthwise, Layout, Transposed, layout_of
from autoprune.unit import MatrixShape

if TYPE_CHECKING:
    from autoprune.cutting.live import LiveWidth


@dataclass(frozen=True)
class Matrix:
    """A weight matrix of a width.

    Args:
        cut: how its weight follows the width.
        layout: of its module.
        rows_follow: whether the width is its outputs; otherwise it is its inputs.
    """

    cut: Cut
    layout: Layout
    rows_follow: bool

    def whole(self, live: "LiveWidth") -> Tensor:
        """The dense weight, `[O, D]`: a view."""
        return self.layout.matrix(live.dense.tensors[self.cut.key])


def matrices_of(live: "LiveWidth") -> list[Matrix] | None:
    """The matrices of a width, producers before the consumer; None where one of them is no plain matrix.

    Experts are no plain matrices, nor is what two widths have in common.
    """
    if live.behind is not None:
        return None
    found = []
    for cut in live.cuts:
        weight = live.dense.tensors[cut.key]
        if not cut.is_weight or weight.dim() < 2:
            continue
        layout = live.layout if cut is live.cuts[-1] else layout_of(live.dense.modules[cut.key[0]])
        if weight.dim() not in (2, 4):
            return None
        if isinstance(layout, Depthwise):  # a weight for each channel, and no matrix
            continue
        found.append(Matrix(cut, layout, cut.dim == int(isinstance(layout, Transposed))))
    return found


def shapes_of(live: "LiveWidth") -> tuple[MatrixShape, ...]:
    """The shapes of the matrices of a width, as a unit has them; none where one is no plain matrix."""
    shapes = []
    for matrix in matrices_of(live) or ():
        outputs, inputs = matrix.whole(live).shape
        entries = live.dense.tensors[matrix.cut.key].shape[matrix.cut.dim]
        segments = matrix.cut.segments.segments
        times = 1 if matrix.rows_follow else inputs // entries
        follows = (
            0,
            times * sum(segment.size for segment in segments if not segment.shared),
            times * sum(segment.size for segment in segments if segment.shared),
        )
        fixed = (inputs if matrix.rows_follow else outputs, 0, 0)
        shapes.append(MatrixShape(follows, fixed) if matrix.rows_follow else MatrixShape(fixed, follows))
    return tuple(shapes)
