"""Rounds the matrices of a unit for its levels, and multiplies them out again when a level is put in place.

Shapes: O outputs, D inputs of a matrix, K kept inputs of the consumer, R rows of several matrices.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autoprune.cutting.live import LevelWeights, LiveWidth
from autoprune.cutting.matrices import Matrix, matrices_of
from autoprune.level import Level
from autoprune.levels.form import Building
from autoprune.levels.groups import normalised
from autoprune.levels.quantising.packing import pack, unpack
from autoprune.levels.quantising.rounding import Rounded, Rounding, weights_of
from autoprune.levels.quantising.setting import by_importance, grid_of
from autoprune.levels.quantising.storage import group_of

AT_ONCE = 2**24
"""Weights that are rounded at once, so that temporary copies stay small."""
BYTES = 2**30
"""Of weights that were multiplied out and are remembered."""

Named = dict[str, Tensor]


# -- to build levels -------------------------------------------------------------------------------------------------


def rounded_producers(level: Level, of: Building, alike: Sequence[Level]) -> Named:
    """The codes of every matrix that writes the unit, all groups in the store's order, and what the outputs lose.

    Args:
        level: whose they are.
        of: what it is built from.
        alike: levels on such grids in all numbers of bits, which are rounded together.
    """
    known = of.memo.setdefault(("producers", level.options[1:]), {})
    if not known:
        bits = sorted({grid_of(other).bits for other in alike})
        known |= _producers(level, of, bits)
    return dict(known[grid_of(level).bits])


def _producers(level: Level, of: Building, bits: Sequence[int]) -> dict[int, Named]:
    found: dict[int, Named] = {number: {} for number in bits}
    lost = dict.fromkeys(bits, 0.0)
    rows = [(i, matrix) for i, matrix in enumerate(_matrices(of.width)[:-1]) if matrix.rows_follow]
    together: dict[int, list[tuple[int, Matrix]]] = {}
    for i, matrix in rows:  # those that read the same
        h_DD = of.read.get(matrix.cut.key[0])
        together.setdefault(-i - 1 if h_DD is None else id(h_DD), []).append((i, matrix))
    for some in together.values():
        h_DD = of.read.get(some[0][1].cut.key[0])
        h_DD = None if h_DD is None else h_DD[:-1, :-1]  # without the constant
        weights = [_in_order(matrix, of) for _, matrix in some]
        for number, parts in _rounded(weights, bits, level, h_DD, of.dtype).items():
            for (i, _), weight_OD, part in zip(some, weights, parts, strict=True):
                found[number] |= _named(i, part, number)
                lost[number] += _lost(weight_OD, part, h_DD)
    return {number: tensors | {"lost": torch.tensor([lost[number]])} for number, tensors in found.items()}


def rounded_consumer(level: Level, of: Building, alike: Sequence[Level]) -> Named:
    """The codes of the matrices that read the unit, for the groups kept, and the norm behind the consumer.

    Args:
        level: whose they are.
        of: what it is built from.
        alike: levels that keep as much, on such grids, in all numbers of bits.
    """
    known = of.memo.setdefault(("consumer", level.kept, level.options[1:]), {})
    if not known:
        known |= _consumers(level, of, sorted({grid_of(other).bits for other in alike}))
    return dict(known[grid_of(level).bits])


def _consumers(level: Level, of: Building, bits: Sequence[int]) -> dict[int, Named]:
    kept_K, weight_OD = of.inputs[: level.kept * of.size], of.width.consumer_weight
    weight_OK = weight_OD[:, kept_K]
    if of.reconstructs and level.kept < of.unit.groups:
        weight_OK = of.reconstruction().on(kept_K).to(weight_OD.dtype)
    h_KK = of.moments[kept_K][:, kept_K] if of.moments.numel() else None  # those of ends are not known
    matrices, found = _matrices(of.width), {number: Named() for number in bits}
    for number, (part,) in _rounded([weight_OK], bits, level, h_KK, of.dtype).items():
        found[number] |= _named(len(matrices) - 1, part, number)
        if of.mean is not None:
            found[number]["norm"] = normalised(of, kept_K, _exact(part).to(weight_OK)).cpu()
    for i, matrix in enumerate(matrices[:-1]):
        if not matrix.rows_follow:  # gates beside the consumer
            kept = of.width.dense.tensors[matrix.cut.key]
            kept = matrix.cut.segments.taken(kept, matrix.cut.dim, of.order[: level.kept])
            for number, (part,) in _rounded([matrix.layout.matrix(kept)], bits, level, None, of.dtype).items():
                found[number] |= _named(i, part, number)
    return found


def _rounded(
    weights: Sequence[Tensor], bits: Sequence[int], level: Level, h_DD: Tensor | None, dtype: torch.dtype
) -> dict[int, list[Rounded]]:
    """Matrices that read the same, each in every number of bits. All their rows go through together."""
    columns, grid = weights[0].shape[1], grid_of(level)
    sizes = [len(weight_OD) for _ in bits for weight_OD in weights]
    weight_RD = torch.cat([weight_OD.float() for _ in bits for weight_OD in weights])
    of_row = torch.tensor([float(number) for number in bits for _ in weights]).repeat_interleave(torch.tensor(sizes))
    parts, each = [], max(1, AT_ONCE // max(1, columns))
    for start in range(0, len(weight_RD), each):
        some = slice(start, start + each)
        rounding = Rounding(
            weight_RD[some], of_row[some], group_of(columns, grid.group), grid.symmetric, h_DD, dtype,
            by_importance(level),
        )  # fmt: skip
        parts.append(rounding.best())
    whole = [torch.cat(tensors) for tensors in zip(*((p.codes, p.scales, p.zeros) for p in parts), strict=True)]
    split = [torch.split(tensor, sizes) for tensor in whole]
    single = [Rounded(codes, scales, zeros, parts[0].group) for codes, scales, zeros in zip(*split, strict=True)]
    return {number: single[n * len(weights) : (n + 1) * len(weights)] for n, number in enumerate(bits)}


def _in_order(matrix: Matrix, of: Building) -> Tensor:
    """A producer's weight with its groups in the store's order, `[O, D]`."""
    dense = of.width.dense.tensors[matrix.cut.key]
    return matrix.layout.matrix(matrix.cut.segments.taken(dense, matrix.cut.dim, of.order))


def _lost(weight_OD: Tensor, found: Rounded, h_DD: Tensor | None) -> float:
    """The share of a matrix's output, squared, that rounding loses; of its weights where the inputs are not known."""
    weight_OD = weight_OD.double()
    gone_OD = weight_OD - _exact(found).double()
    if h_DD is not None:
        h_DD = h_DD.to(weight_OD.device)
    lost, whole = (float(((one if h_DD is None else one @ h_DD) * one).sum()) for one in (gone_OD, weight_OD))
    return lost / whole if whole > 0 else 0.0


def _named(i: int, found: Rounded, bits: int) -> Named:
    zeros = found.zeros.cpu().contiguous()
    return {
        f"codes{i}": pack(found.codes, bits),
        f"scales{i}": found.scales.cpu().contiguous(),
        f"zeros{i}": zeros,
    }


# -- to put levels in place ------------------------------------------------------------------------------------------


def level_weights(level: Level, width: LiveWidth, weights: LevelWeights, own: Mapping[str, Tensor]) -> LevelWeights:
    """All weights of a level, multiplied out and cut to what it keeps."""
    others = {}
    matrices = _matrices(width)
    for i, matrix in enumerate(matrices[:-1]):
        weight = _weight(level, width, matrix, i, own)
        others[matrix.cut.key] = (
            matrix.cut.segments.prefix(weight, matrix.cut.dim, level.kept) if matrix.rows_follow else weight
        )
    return LevelWeights(consumer_of(level, width, own), weights.norm, weights.behind, others)


def consumer_of(level: Level, width: LiveWidth, own: Mapping[str, Tensor]) -> Tensor:
    """The consumer's weight, multiplied out, in its module's layout."""
    matrices = _matrices(width)
    return _weight(level, width, matrices[-1], len(matrices) - 1, own)


def rounded_of(level: Level, own: Mapping[str, Tensor], i: int, columns: int) -> Rounded:
    """What the store has of a matrix."""
    grid = grid_of(level)
    codes = unpack(own[f"codes{i}"], grid.bits, columns)
    return Rounded(codes, own[f"scales{i}"], own[f"zeros{i}"], group_of(columns, grid.group))


def columns_of(level: Level, width: LiveWidth, matrix: Matrix) -> int:
    """Columns of a matrix at a level."""
    columns = matrix.whole(width).shape[1]
    return columns if matrix.rows_follow else columns // width.width.groups * level.kept


class Latest:
    """Weights that were multiplied out last, by the codes that they were made of."""

    def __init__(self, limit: int = BYTES) -> None:
        self._limit, self._nbytes = limit, 0
        self._known: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()  # the codes stay: no other has their id

    def get(self, codes: Tensor) -> Tensor | None:
        """The weight, if it is remembered."""
        found = self._known.get(id(codes))
        if found is None:
            return None
        self._known.move_to_end(id(codes))
        return found[1]

    def put(self, codes: Tensor, weight: Tensor) -> None:
        """Remember a weight; those that were asked for longest ago are let go of."""
        self._known[id(codes)] = codes, weight
        self._nbytes += weight.numel() * weight.element_size()
        while self._nbytes > self._limit and len(self._known) > 1:
            _, (_, oldest) = self._known.popitem(last=False)
            self._nbytes -= oldest.numel() * oldest.element_size()


LATEST = Latest()


def _weight(level: Level, width: LiveWidth, matrix: Matrix, i: int, own: Mapping[str, Tensor]) -> Tensor:
    codes, dense = own[f"codes{i}"], width.dense.tensors[matrix.cut.key]
    known = LATEST.get(codes)
    if known is None or known.dtype != dense.dtype:
        weight_OD = _exact(rounded_of(level, own, i, columns_of(level, width, matrix))).to(dense.dtype)
        known = matrix.layout.laid_out(weight_OD, dense)
        LATEST.put(codes, known)
    return known


def _exact(found: Rounded) -> Tensor:
    """The weights in the dtype in which they are stored."""
    return weights_of(found.codes, found.scales, found.zeros, found.group).to(found.scales.dtype)


def _matrices(width: LiveWidth) -> list[Matrix]:
    found = matrices_of(width)
    assert found is not None, "a unit of other weights is offered no such level"
    return found
