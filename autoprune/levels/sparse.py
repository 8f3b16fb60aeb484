"""Sparse: a share of the single weights of every matrix of a unit stays, anywhere in it (unstructured).

    --forms sparse             shares as the setting `levels` has them: 9 levels are 7 shares between all and nothing
    --forms sparse:0.5/0.3     these shares
    --forms sparse:2:4         the form n:m (n_of_m.py), under the name that people know it by

Every matrix keeps the same share, with one exception: the criterion `global-magnitude` has one threshold of the network
for each share, so that units keep different shares.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoprune.errors import UserError
from autoprune.forms import PATTERN
from autoprune.level import Level, form_called
from autoprune.levels.single_weights import SingleWeights

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.levels.matrices import Matrix
    from autoprune.levels.weights import Choice
    from autoprune.ports.offer import Offer

PATTERNS = "n:m"
"""The form that has the levels of an argument such as 2:4."""


class Sparse(SingleWeights):
    """So much of every matrix."""

    form = "sparse"

    def check_argument(self, argument: str) -> None:
        """Shares with slashes, or a pattern."""
        if PATTERN.fullmatch(argument):
            form_called(PATTERNS).check_argument(argument)
        elif argument:
            _shares(argument)

    def levels(self, of: "Offer") -> Sequence[Level]:
        """A level for each share.

        Raises:
            UserError: the setting `levels` has no share between all and nothing.
        """
        from autoprune.levels.matrices import layout_at

        if PATTERN.fullmatch(of.argument):
            return form_called(PATTERNS).levels(of)
        for key in of.width.matrix_keys:
            layout_at(of.width, key)  # which refuses what has no such levels
        shares = _shares(of.argument) if of.argument else [share for share in of.fractions if 0 < share < 1]
        if not shares:
            raise UserError(
                "the form sparse has no level between all weights and none: give more levels, or shares of its own, as "
                "sparse:0.5/0.3."
            )
        return [self._level(of, share) for share in shares]

    def _level(self, of: "Offer", share: float) -> Level:
        from autoprune.levels.threshold import kept_above
        from autoprune.levels.weights import kept_of_share
        from autoprune.ports.criterion import load_criterion

        weights = [of.width.dense.tensors[key] for key in of.width.matrix_keys]
        criterion = load_criterion(of.config.criterion)
        if criterion.compares != "network" or criterion.reconstructs:
            matrices = [_matrix(of, i) for i in range(len(weights))]
            return self.level_of(of, share, [kept_of_share(matrix, share) for matrix in matrices], ("share", share))
        threshold = _threshold(of, share)
        kept = [kept_above(weight, threshold, share) for weight in weights]
        return self.level_of(of, share, kept, ("share", share), ("threshold", threshold))

    def short(self, level: Level) -> str:
        """The share of weights."""
        return f"{100 * self.share(level):.3g} % of weights"

    def told(self, level: Level, groups: int, kind: str) -> str:
        """The share of weights."""
        return f"{self.short(level)} kept"

    def share(self, level: Level) -> float:
        """As asked for; of one threshold, as it came out."""
        options = dict(level.options)
        return level.density if "threshold" in options else float(options["share"])

    def choice(self, level: Level, matrix: "Matrix") -> "Choice":
        """So many weights of a matrix."""
        from autoprune.levels.threshold import kept_above
        from autoprune.levels.weights import Choice, kept_of_share

        options, share = dict(level.options), float(level.option("share"))
        if "threshold" in options:
            return Choice(kept_above(matrix.weight, float(options["threshold"]), share))
        return Choice(kept_of_share(matrix.matrix_od, share))


def _matrix(of: "Offer", i: int) -> "Tensor":
    from autoprune.levels.matrices import layout_at

    key = of.width.matrix_keys[i]
    return layout_at(of.width, key).matrix(of.width.dense.tensors[key])


def _threshold(of: "Offer", share: float) -> float:
    """The network's threshold for a share, which is found once for all units."""
    from autoprune.levels.threshold import threshold_of

    known: dict[float, float] = vars(of.view).setdefault("thresholds_of_magnitude", {})
    if share not in known:
        widths = [width for row in of.view.widths for width in row]
        known[share] = threshold_of([width.dense.tensors[key] for width in widths for key in width.matrix_keys], share)
    return known[share]


def _shares(argument: str) -> list[float]:
    try:
        shares = [float(share) for share in argument.split("/")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share < 1 for share in shares):
        raise UserError(
            "the form sparse takes shares of weights between 0 and 1 with slashes, as sparse:0.5/0.3, or a pattern, as "
            f"sparse:2:4, and not '{argument}'."
        )
    return sorted(set(shares), reverse=True)
