"""Which single weights of a matrix stay, and what the others become: magnitude, Wanda, SparseGPT.

SparseGPT (Frantar & Alistarh 2023, algorithm 1) goes through the inputs in blocks. In every block the weights whose
removal costs least, w^2 / [H^-1]_jj, leave, and the weights of later inputs are corrected. All choices of a matrix are
made in one pass: they share the inverse of the moments, and rows of the matrix do not depend on each other.

Shapes: O outputs, D inputs, S choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.levels.criterion import damped
from autoprune.ports.criterion import Criterion

BLOCK = 128
"""Inputs whose weights are chosen together."""


@dataclass(frozen=True)
class Choice:
    """How many weights of a matrix stay.

    Args:
        kept: of the whole matrix, anywhere in it; not read with a pattern.
        pattern: (n, m): n of every m neighbouring inputs of each output; None is any.
    """

    kept: int
    pattern: tuple[int, int] | None = None


def kept_of_share(weight_OD: Tensor, share: float) -> int:
    """How many weights of a matrix a share is: as many of each output."""
    return len(weight_OD) * max(1, round(share * weight_OD.shape[1]))


def pruned(weight_OD: Tensor, moments_DD: Tensor, choices: Sequence[Choice], criterion: Criterion) -> list[Tensor]:
    """The matrix with zeros for the weights that leave, once for each choice, `[O, D]`.

    Args:
        weight_OD: dense.
        moments_DD: second moments of the inputs, float64.
        choices: how many weights stay. The number is exact.
        criterion: says which, and whether the others are corrected.
    """
    if criterion.reconstructs:
        return _sparsegpt(weight_OD, moments_DD, choices)
    score_OD = criterion.importance(weight_OD, moments_DD)
    return [weight_OD * _stays(score_OD, choice, criterion.compares == "row") for choice in choices]


def _stays(score_OD: Tensor, choice: Choice, by_row: bool) -> Tensor:
    """A mask of the weights with the highest scores, `[O, D]` bool."""
    outputs, inputs = score_OD.shape
    if choice.pattern:
        return _by_pattern(score_OD, choice.pattern)
    if by_row and choice.kept % outputs == 0:
        kept = choice.kept // outputs
        return torch.zeros_like(score_OD, dtype=torch.bool).scatter_(1, _largest(score_OD, kept), True)
    flat = score_OD.reshape(1, outputs * inputs)
    mask = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, _largest(flat, choice.kept), True)
    return mask.view(outputs, inputs)


def _by_pattern(score_OD: Tensor, pattern: tuple[int, int]) -> Tensor:
    n, m = pattern
    groups = score_OD.reshape(-1, m)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, _largest(groups, n), True)
    return mask.view_as(score_OD)


def _largest(score_RC: Tensor, count: int) -> Tensor:
    """Columns of the largest scores of each row, the first ones among equals."""
    return torch.argsort(score_RC, dim=1, descending=True, stable=True)[:, :count]


def _sparsegpt(weight_OD: Tensor, moments_DD: Tensor, choices: Sequence[Choice]) -> list[Tensor]:
    """As the module says. Weights of dead inputs are of no use and are the first to leave."""
    inputs = weight_OD.shape[1]
    inverse_DD = torch.cholesky_inverse(torch.linalg.cholesky(damped(moments_DD)))
    factor_DD = torch.linalg.cholesky(inverse_DD, upper=True).float()
    w_SOD = weight_OD.float().repeat(len(choices), 1, 1)
    size = _block_size(inputs, choices)
    for begin in range(0, inputs, size):
        end = min(begin + size, inputs)
        block_SOB, inside_BB = w_SOD[:, :, begin:end], factor_DD[begin:end, begin:end]
        scores_SOB = block_SOB.square() / inside_BB.diagonal().square()
        stays_SOB = torch.stack(
            [_in_block(score, choice, begin, end, inputs) for score, choice in zip(scores_SOB, choices, strict=True)]
        )
        errors_SOB = _correct(block_SOB, stays_SOB, inside_BB)
        w_SOD[:, :, end:] -= errors_SOB @ factor_DD[begin:end, end:]
    return [w_OD.to(weight_OD.dtype) for w_OD in w_SOD]


def _correct(block_SOB: Tensor, stays_SOB: Tensor, factor_BB: Tensor) -> Tensor:
    """Remove the weights of a block that do not stay, in place, and correct those behind them in it.

    Returns:
        What is left to be corrected behind the block, `[S, O, B]`.
    """
    errors_SOB = torch.zeros_like(block_SOB)
    for j in range(block_SOB.shape[2]):
        column_SO = block_SOB[:, :, j]
        error_SO = column_SO.masked_fill(stays_SOB[:, :, j], 0) / factor_BB[j, j]
        block_SOB[:, :, j:] -= error_SO[:, :, None] * factor_BB[j, j:]
        block_SOB[:, :, j].masked_fill_(~stays_SOB[:, :, j], 0)
        errors_SOB[:, :, j] = error_SO
    return errors_SOB


def _in_block(score_OB: Tensor, choice: Choice, begin: int, end: int, inputs: int) -> Tensor:
    """Which weights of a block stay. Blocks have the same share, and add up to exactly what was asked."""
    if choice.pattern:
        return _by_pattern(score_OB.contiguous(), choice.pattern)
    kept = choice.kept * end // inputs - choice.kept * begin // inputs
    return _stays(score_OB, Choice(kept), by_row=False)


def _block_size(inputs: int, choices: Sequence[Choice]) -> int:
    """About BLOCK, so that no group of a pattern is in two blocks."""
    size = BLOCK
    for choice in choices:
        if choice.pattern:
            size += -size % choice.pattern[1]
    return min(size, inputs)
