"""The common part of tasks' training: the loss against labels and the dense network, and the choice of examples.

Shapes: N predictions, V vocabulary (or classes).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from autoprune.distillation.targets import Target, targets_of
from autoprune.errors import UserError
from autoprune.ports.training import LossSettings
from autoprune.training.top_k import TopK, log_probabilities, top_of

Hidden = Sequence[Tensor]
"""Outputs of blocks, `[..., D]` each."""


def blended(
    own_NV: Tensor,
    taught: Callable[[], Tensor | TopK],
    labels_N: Tensor,
    settings: LossSettings,
    hidden: tuple[Hidden, Hidden] | None = None,
) -> Tensor:
    """`(1 - weight) * cross-entropy + weight * distances from the dense network`.

    The default distance is T^2 * KL(dense || pruned) at temperature T (Hinton et al. 2015).

    Args:
        own_NV: the student's logits.
        taught: returns the dense network's logits, or the largest of them. It is not called if their weight is 0.
        labels_N: the labels; -100 where nothing is to be predicted.
        settings: weight, temperature, and the distances.
        hidden: outputs of blocks of the student and of the dense network, which are read after `taught` was called.
            None if the task has none.

    Raises:
        UserError: `top_k` is more than there are classes, or outputs of blocks are missing or of other widths.
    """
    loss = own_NV.new_zeros((), dtype=torch.float32)
    if settings.weight < 1:
        loss = loss + (1 - settings.weight) * functional.cross_entropy(own_NV.float(), labels_N)
    if settings.weight > 0:
        targets = targets_of(settings.distill)
        with torch.no_grad():
            dense = taught()
        own_NK, dense_NK = _predicted(own_NV, dense, settings)
        for target in targets:
            if target.distillation.of_blocks:
                loss = loss + settings.weight * target.share * _of_blocks(target, hidden)
            else:
                scale = settings.weight * target.share * settings.temperature**2
                loss = loss + scale * target.distillation.distance(own_NK, dense_NK)
    return loss


def compares_blocks(settings: LossSettings) -> bool:
    """Whether outputs of blocks are compared."""
    return settings.weight > 0 and any(target.distillation.of_blocks for target in targets_of(settings.distill))


def _predicted(own_NV: Tensor, dense: Tensor | TopK, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both networks at the temperature, of all classes or of the most likely ones."""
    with torch.no_grad():
        if isinstance(dense, Tensor) and settings.top_k:
            dense = top_of(dense, settings.top_k, settings.temperature)
        dense_NK = dense.log if isinstance(dense, TopK) else (dense.float() / settings.temperature).log_softmax(-1)
    if isinstance(dense, TopK):
        return log_probabilities(own_NV, dense.which, settings.temperature), dense_NK
    return (own_NV.float() / settings.temperature).log_softmax(-1), dense_NK


def _of_blocks(target: Target, hidden: tuple[Hidden, Hidden] | None) -> Tensor:
    """The mean distance of the outputs of blocks."""
    if hidden is None or not hidden[0]:
        raise UserError(
            f"distill={target.name} compares outputs of blocks, and this network's blocks are no modules of their own "
            "that give any: distill=kl compares logits."
        )
    found = []
    for block, (own, dense) in enumerate(zip(*hidden, strict=True)):
        if own.shape != dense.shape:
            raise UserError(
                f"distill={target.name} compares outputs of blocks, and those of block {block} are of the shape "
                f"{list(own.shape[1:])} in the pruned network and {list(dense.shape[1:])} in the dense one: "
                "distill=kl compares logits."
            )
        found.append(target.distillation.distance(own.float().flatten(0, -2), dense.float().flatten(0, -2)))
    return torch.stack(found).mean()


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
