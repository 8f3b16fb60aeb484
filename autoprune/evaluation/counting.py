"""Counts the multiply-accumulates of a whole network, including what is not cut, by running it.

All matrix products and convolutions count; attention scores count for every pair of positions, as a unit's do
(budgets/macs.py). Convolutions and products that some library does in kernels of its own cannot be seen.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

SHORT = 4  # positions of the shorter of two passes


def macs_per_token(run: Callable[[Tensor], object], device: str | torch.device, context: int) -> float:
    """Multiply-accumulates per token of a language model where `context` positions are attended to.

    Those of attention grow with the length, all others do not: two short passes tell both.

    Args:
        run: a forward pass over tokens `[1, T]`.
        device: that they are on.
        context: positions.
    """
    lengths = SHORT, 2 * SHORT
    short, long = (macs_of(run, torch.zeros(1, n, dtype=torch.long, device=device)) / n for n in lengths)
    return short + (long - short) / SHORT * (context - SHORT)


@torch.no_grad()
def macs_of(run: Callable[[Tensor], object], tokens_BT: Tensor) -> float:
    """Multiply-accumulates of one forward pass."""
    # fused kernels of attention are not counted on every device; their plain form is products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run(tokens_BT)
    return float(counter.get_total_flops()) / 2
