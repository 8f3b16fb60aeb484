"""The common part of forms that remove single weights: all groups of a unit stay, with zeros in its matrices.

A level has the matrices of the unit with explicit zeros, the statistics of the BatchNorms that read them, and nothing
else. Its parameters are the weights that are not zero. Where they are is not counted: it takes no space in the files
that exporters write, which have the zeros.

Shapes: O outputs, D inputs of a matrix.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from autoprune.level import Level
from autoprune.levels.form import Building, LiveForm

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.cutting.live import LevelWeights, LiveWidth
    from autoprune.cutting.widths import Key
    from autoprune.levels.matrices import Matrix, UnitBuilding
    from autoprune.levels.weights import Choice
    from autoprune.ports.offer import Offer
    from autoprune.unit import Unit

MATRIX, NORM = "matrix-", "statistics-"
"""Names of the store's tensors of a level, before the number of the matrix."""
LOST = "lost"
"""The name of the share of the outputs of all matrices but the last that a level loses."""


class SingleWeights(LiveForm):
    """All groups, and a part of the weights."""

    form: ClassVar[str]
    """Its name in the registry."""
    whole = True
    changes_producers = True
    keeps_zeros = True

    def choice(self, level: Level, matrix: "Matrix") -> "Choice":
        """How many weights of one matrix a level keeps."""
        raise NotImplementedError

    def level_of(self, of: "Offer", share: float, kept: Sequence[int], *options: tuple[str, float | str]) -> Level:
        """The level of a unit whose matrices keep so many weights.

        Args:
            of: the unit.
            share: the share of weights that was asked for.
            kept: of every matrix, in the order of `LiveWidth.matrix_keys`.
            options: of the level.
        """
        groups = of.unit.groups
        weights = sum(of.width.dense.tensors[key].numel() for key in of.width.matrix_keys)
        stored = of.unit.params(groups) - weights + sum(kept)
        own = options or (("share", share),)
        return Level(groups, stored / of.unit.params(groups), self.form, own)

    # -- costs -----------------------------------------------------------------------------------------------------

    def share(self, level: Level) -> float:
        """The share of weights that a level keeps, nominally."""
        raise NotImplementedError

    def params(self, unit: "Unit", level: Level) -> float:
        """Weights that are not zero, biases and the like."""
        return round(level.density * unit.params(level.kept))

    def nonzeros(self, unit: "Unit", level: Level) -> float:
        """The same."""
        return self.params(unit, level)

    def macs(self, unit: "Unit", level: Level, context: int) -> float:
        """Multiply-accumulates with weights that are not zero; attention scores are those of the dense unit."""
        dense = unit.macs(level.kept, 0)
        return unit.macs(level.kept, context) - dense + self.share(level) * dense

    def zero_macs(self, unit: "Unit", level: Level) -> float:
        """Those with the weights that left."""
        return (1 - self.share(level)) * unit.macs(level.kept, 0)

    def notice(self, metrics: Sequence[str]) -> str | None:
        """Stock kernels take no less time for zeros."""
        timed = [metric for metric in metrics if metric == "latency"]
        if not timed:
            return None
        return (
            f"Levels of the form {self.form} count with the {timed[0]} of the dense unit: stock kernels take as "
            "long with zeros among the weights."
        )

    # -- tensors ---------------------------------------------------------------------------------------------------

    def build_unit(self, levels: Mapping[int, Level], of: "UnitBuilding") -> "Mapping[str, Tensor]":
        """Every matrix at every level: all levels of a matrix come from one pass."""
        import torch

        tensors: dict[str, Tensor] = {}
        lost, last = dict.fromkeys(levels, 0.0), of.width.links[-1].width.consumer.key
        for i, matrix in enumerate(of.matrices):
            choices = [self.choice(level, matrix) for level in levels.values()]
            for number, new_OD in zip(levels, self.prune(matrix, choices, of), strict=True):
                new_OD = new_OD.to(of.dtype).to(matrix.weight.dtype)
                tensors[f"{_name(of.width, matrix.key, i)}.{number}"] = matrix.laid_out(new_OD).cpu()
                statistics = of.statistics(matrix, new_OD)
                if statistics is not None:
                    tensors[f"{NORM}{i}.{number}"] = statistics.cpu()
                lost[number] += 0.0 if matrix.key == last else matrix.lost(new_OD)
        return tensors | {f"{LOST}.{number}": torch.tensor([share]) for number, share in lost.items()}

    def lost(self, level: Level, own: "Mapping[str, Tensor]") -> float:
        """As it was measured when the level was built."""
        return float(own[LOST])

    def prune(self, matrix: "Matrix", choices: "Sequence[Choice]", of: "UnitBuilding") -> "list[Tensor]":
        """A matrix at several levels, `[O, D]` each."""
        from autoprune.levels.weights import pruned

        return pruned(matrix.matrix_od, matrix.moments, choices, of.criterion)

    def build(self, level: Level, of: Building) -> "Mapping[str, Tensor]":
        """Nothing: `build_unit` builds."""
        return {}

    def fits(self, level: Level, what: str, tensor: "Tensor") -> bool:
        """Whole matrices, and means and variances."""
        if what == LOST:
            return tensor.is_floating_point() and tensor.shape == (1,)
        if what.startswith(NORM):
            return tensor.is_floating_point() and tensor.dim() == 2 and len(tensor) == 2
        return (what.startswith(MATRIX) or what == "level") and tensor.is_floating_point() and tensor.dim() > 1

    def place(self, level: Level, width: "LiveWidth", weights: "LevelWeights", own: "Mapping[str, Tensor]") -> None:
        """Swap all matrices of the unit in."""
        width.keep(level.kept, weights)
        for name, tensor in own.items():
            for key, part in _placed(width, name, tensor):
                width.dense.put(key, part.to(width.dense.tensors[key]))

    def lift(self, level: Level, width: "LiveWidth") -> None:
        """Put the dense matrices and statistics back."""
        from autoprune.cutting.widths import STATISTICS
        from autoprune.levels.matrices import norm_behind

        for key in width.matrix_keys:
            width.dense.restore(key)
            norm = norm_behind(width, key)
            for name in STATISTICS if norm else ():
                width.dense.restore((norm or "", name))


def _name(width: "LiveWidth", key: "Key", i: int) -> str:
    """How the store calls a matrix: that of a consumer is `level`, as in any form."""
    consumers = [link.width.consumer.key for link in width.links]
    return "behind." * consumers.index(key) + "level" if key in consumers else f"{MATRIX}{i}"


def _placed(width: "LiveWidth", name: str, tensor: "Tensor") -> "Iterator[tuple[Key, Tensor]]":
    """Which of the unit's tensors one of the store's stands for."""
    from autoprune.cutting.widths import STATISTICS
    from autoprune.levels.matrices import norm_behind

    if name == LOST:
        return
    key = width.matrix_keys[int(name.rpartition("-")[2])]
    if name.startswith(MATRIX):
        yield key, tensor
        return
    norm = norm_behind(width, key)
    assert norm is not None
    for what, statistic in zip(STATISTICS, tensor, strict=True):
        yield (norm, what), statistic
