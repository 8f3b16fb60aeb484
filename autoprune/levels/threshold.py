"""One threshold of magnitude over all matrices of a network, with a floor for each of them.

Shapes: none of its own; weights are of any shape.
"""

from collections.abc import Sequence

from torch import Tensor

FLOOR = 0.25
"""Of the share asked for: the least that every matrix keeps. Without it whole layers collapse at high sparsity."""
STEPS = 50  # of a bisection of the threshold


def kept_above(weight: Tensor, threshold: float, share: float) -> int:
    """How many weights of a matrix stay: those larger than the threshold, and at least the floor."""
    least = round(FLOOR * share * weight.numel())
    return max(least, int((weight.abs() > threshold).sum()))


def threshold_of(weights: Sequence[Tensor], share: float) -> float:
    """The threshold at which all matrices together keep a share of their weights, floors included.

    Args:
        weights: of all matrices of the network.
        share: in (0, 1).
    """
    wanted = round(share * sum(weight.numel() for weight in weights))
    low, high = 0.0, max(float(weight.abs().max()) for weight in weights)
    for _ in range(STEPS):
        middle = (low + high) / 2
        many = sum(kept_above(weight, middle, share) for weight in weights) > wanted
        low, high = (middle, high) if many else (low, middle)
    return high
