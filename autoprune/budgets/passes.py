"""Times one forward pass of a workload on a whole network with its present widths. The task defines the pass."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from autoprune.workload import Workload

if TYPE_CHECKING:
    from autoprune.networks.images import ImageView

Pass = Callable[[], None]


@torch.no_grad()
def example_pass_of(view: "ImageView", workload: Workload) -> Pass:
    """A forward pass over `workload.batch` examples, the first of those at hand, which are on the device before."""
    pixels = view.pixels(torch.zeros(workload.batch, dtype=torch.long, device=view.images.labels.device))
    return lambda: discard(view.model(pixels))


@torch.no_grad()
def seconds_of(forward: Pass, device: torch.device) -> float:
    """How long a pass takes, from an idle device to an idle device."""
    _synchronise(device)
    begun = time.perf_counter()
    forward()
    _synchronise(device)
    return time.perf_counter() - begun


def discard(output: object) -> None:
    """A pass gives nothing back, so that its logits are freed before the next."""


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
