"""The contract of distillations."""

import math
from typing import Any

import torch

from autoprune import registry
from autoprune.ports.distillation import Distillation

ROWS, NUMBERS = 6, 9
STEP = 1e-3


def check_distillation(distillation: Any) -> None:
    """A distance: 0 for the dense network itself, finite and not negative otherwise, and less after a step downhill.

    Args:
        distillation: a name, `package.module:Object`, `file.py:Object`, or the class.
    """
    made = registry.load("distillations", distillation)()
    assert isinstance(made, Distillation), f"{made!r} is no subclass of autoprune.extend.Distillation"
    draw = torch.Generator().manual_seed(0)
    dense_NK, own_NK = (torch.randn(ROWS, NUMBERS, generator=draw) for _ in range(2))
    same = float(_distance(made, dense_NK.clone(), dense_NK))
    assert abs(same) < 1e-6, f"the dense network is {same} away from itself"
    own_NK.requires_grad_(True)
    loss = _distance(made, own_NK, dense_NK)
    assert loss.dim() == 0, f"the distance is of the shape {list(loss.shape)}, and a scalar is needed"
    (slope_NK,) = torch.autograd.grad(loss, own_NK)
    apart = float(loss.detach())
    assert math.isfinite(apart), f"the distance is {apart}"
    assert apart > 0, f"another network is {apart} away"
    assert bool(torch.isfinite(slope_NK).all()), "the derivatives are not finite"
    nearer = float(_distance(made, own_NK.detach() - STEP * slope_NK, dense_NK))
    assert nearer < apart, f"a step downhill leads from {apart} to {nearer}"
    doubled = float(_distance(made, own_NK.detach().repeat(2, 1), dense_NK.repeat(2, 1)))
    assert abs(doubled - apart) < 1e-5, "the distance is no mean over rows"


def _distance(made: Distillation, own_NK: torch.Tensor, dense_NK: torch.Tensor) -> torch.Tensor:
    """Of raw numbers, which are made log-probabilities where logits are compared."""
    if made.of_blocks:
        return made.distance(own_NK, dense_NK)
    return made.distance(own_NK.log_softmax(-1), dense_NK.log_softmax(-1))
