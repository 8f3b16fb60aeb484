"""Speed of a network as it stands."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def tokens_per_second(model: Any, tokens_BT: Tensor, repeats: int = 5) -> float:
    """Tokens a second of plain forward passes over `[B, T]` tokens: the median of `repeats` after one warm-up."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        model(input_ids=tokens_BT, use_cache=False)
        if tokens_BT.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return float(tokens_BT.numel() / np.median(seconds[1:]))
