"""N:M: of every M neighbouring inputs of each output, N single weights stay, in every matrix of a unit (2:4, 4:8).

    --forms 2:4,4:8            one level each; sparse:2:4 is the same

NVIDIA's sparse tensor cores multiply with matrices of the pattern 2:4. Exports have explicit zeros in the dense shape,
which any library loads. Whether a library then uses the pattern is its own business.

For a convolution, neighbours are input channels at one place of the kernel.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoprune.errors import UserError
from autoprune.forms import PATTERN
from autoprune.level import Level
from autoprune.levels.single_weights import SingleWeights

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.levels.matrices import Matrix, UnitBuilding
    from autoprune.levels.weights import Choice
    from autoprune.ports.offer import Offer


class NOfM(SingleWeights):
    """A pattern in every matrix."""

    form = "n:m"

    def check_argument(self, argument: str) -> None:
        """A pattern."""
        _pattern(argument)

    def levels(self, of: "Offer") -> Sequence[Level]:
        """One level.

        Raises:
            UserError: the inputs of a matrix do not divide by M.
        """
        from autoprune.levels.matrices import layout_at

        n, m = _pattern(of.argument)
        kept = []
        for key in of.width.matrix_keys:
            weight = of.width.dense.tensors[key]
            inputs = weight.shape[layout_at(of.width, key).inputs]
            if inputs % m:
                raise UserError(
                    f"the pattern {n}:{m} needs matrices whose inputs divide by {m}: {key[0]} in unit {of.unit.name} "
                    f"has {inputs}. Leave the form {n}:{m} out for this network."
                )
            kept.append(weight.numel() // m * n)
        return [self.level_of(of, n / m, kept, ("pattern", f"{n}:{m}"))]

    def short(self, level: Level) -> str:
        """The pattern."""
        return str(level.option("pattern"))

    def told(self, level: Level, groups: int, kind: str) -> str:
        """The pattern."""
        n, m = _pattern(str(level.option("pattern")))
        return f"{n} of every {m} weights kept"

    def share(self, level: Level) -> float:
        """Exactly."""
        n, m = _pattern(str(level.option("pattern")))
        return n / m

    def choice(self, level: Level, matrix: "Matrix") -> "Choice":
        """The pattern."""
        from autoprune.levels.weights import Choice

        return Choice(0, _pattern(str(level.option("pattern"))))

    def prune(self, matrix: "Matrix", choices: "Sequence[Choice]", of: "UnitBuilding") -> "list[Tensor]":
        """With channels as neighbours, where the matrix is a convolution's."""
        import torch

        from autoprune.levels.weights import pruned

        weight_OD = matrix.matrix_od
        channels = matrix.weight.shape[matrix.layout.inputs]
        numbers_D = torch.arange(weight_OD.shape[1], device=weight_OD.device).view(channels, -1).T.flatten()
        moments_DD = matrix.moments[numbers_D][:, numbers_D]
        back_D = numbers_D.argsort()
        found = pruned(weight_OD[:, numbers_D], moments_DD, choices, of.criterion)
        return [new_OD[:, back_D] for new_OD in found]


def _pattern(argument: str) -> tuple[int, int]:
    """N and M.

    Raises:
        UserError: it is no pattern.
    """
    n, m = (int(number) for number in argument.split(":")) if PATTERN.fullmatch(argument) else (0, 0)
    if not 0 < n < m:
        raise UserError(
            f"the form n:m keeps N of every M weights, fewer than all and more than none: write 2:4 or 4:8, and not "
            f"'{argument}'."
        )
    return n, m
