"""Speed of a network as it stands."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def tokens_per_second(run: Callable[[Tensor], object], tokens_BT: Tensor, repeats: int = 5) -> float:
    """Tokens (or images) a second of forward passes over `[B, T]` of them: median of `repeats` after a warm-up."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        run(tokens_BT)
        if tokens_BT.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return float(tokens_BT.numel() / np.median(seconds[1:]))
