"""The common part of tasks' training: the loss against labels and the dense network, and the choice of examples.

Shapes: N predictions, V vocabulary (or classes).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from autoprune.errors import UserError
from autoprune.ports.training import LossSettings


def blended(own_NV: Tensor, taught: Callable[[], Tensor], labels_N: Tensor, settings: LossSettings) -> Tensor:
    """`(1 - weight) * cross-entropy + weight * T^2 * KL(dense || pruned)` at temperature T (Hinton et al. 2015).

    Args:
        own_NV: the student's logits.
        taught: returns the dense network's logits. It is not called if their weight is 0.
        labels_N: the labels; -100 where nothing is to be predicted.
        settings: weight and temperature.
    """
    loss = own_NV.new_zeros((), dtype=torch.float32)
    if settings.weight < 1:
        loss = loss + (1 - settings.weight) * functional.cross_entropy(own_NV.float(), labels_N)
    if settings.weight > 0:
        with torch.no_grad():
            dense_NV = (taught().float() / settings.temperature).log_softmax(-1)
        log_NV = (own_NV.float() / settings.temperature).log_softmax(-1)
        shown = functional.kl_div(log_NV, dense_NV, reduction="batchmean", log_target=True)
        loss = loss + settings.weight * settings.temperature**2 * shown
    return loss


def left(examples: Tensor, others_N: Tensor) -> Tensor:
    """Examples that are not of the validation split.

    Args:
        examples: all of them, `[N, ...]`.
        others_N: which are not of that split.

    Raises:
        UserError: none are.
    """
    if not bool(others_N.any()):
        raise UserError("the validation split is all there is of the data: nothing is left to learn from.")
    return examples[others_N]
