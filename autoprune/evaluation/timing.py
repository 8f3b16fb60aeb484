"""Measures the speeds of several networks side by side."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ROUNDS = 7


@dataclass(frozen=True)
class Speed:
    """What some forward passes of a network took.

    Args:
        per_second: tokens or images, at the median of the passes.
        spread: half of what lies between the quartiles of the passes, as a share of their median.
    """

    per_second: float
    spread: float


@torch.no_grad()
def speeds(
    places: Sequence[Callable[[], object]],
    run: Callable[[Tensor], object],
    tokens_BT: Tensor,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Speed]:
    """The speeds of several networks. Each round has one pass of each, so that a slow machine slows all of them.

    Args:
        places: put each network where `run` finds it; not timed.
        run: a forward pass of the network that stands there.
        tokens_BT: what it reads.
        progress: is told what share of the rounds is done.
    """
    seconds_RP = np.zeros((ROUNDS + 1, len(places)))
    for r in range(ROUNDS + 1):
        progress(r / (ROUNDS + 1))
        for p, place in enumerate(places):
            place()
            _wait(tokens_BT)
            begun = time.perf_counter()
            run(tokens_BT)
            _wait(tokens_BT)
            seconds_RP[r, p] = time.perf_counter() - begun
    low_P, median_P, high_P = np.quantile(seconds_RP[1:], (0.25, 0.5, 0.75), axis=0)  # the first is a warm-up
    spread_P = (high_P - low_P) / 2 / median_P
    return [Speed(tokens_BT.numel() / m, s) for m, s in zip(median_P.tolist(), spread_P.tolist(), strict=True)]


def _wait(tokens_BT: Tensor) -> None:
    if tokens_BT.is_cuda:
        torch.cuda.synchronize()
