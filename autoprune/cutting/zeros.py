"""Widths at a larger size than what is kept of them, with zeros in the place of what is gone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from autoprune.cutting.live import LiveWidth


def pad(live: LiveWidth, groups: int) -> None:
    """Zero-pad what is kept now to `groups` groups (for exports that need a stock model's shape)."""
    if live.kept == 0:
        live.keep(1)
        _silence(live)
    for link in live.links:
        for cut in link.cuts:
            now = live.dense.live(cut.key).data
            live.dense.put(cut.key, cut.segments.padded(now, cut.dim, link.kept, groups))
    for link in live.links:
        link.follow(groups)


def _silence(live: LiveWidth) -> None:
    """The last consumer and its norm give nothing but zeros, until something else is kept."""
    last = live.links[-1]
    for module in filter(None, (last.consumer, last.norm)):
        for parameter in module.parameters(recurse=False):
            parameter.data = torch.zeros_like(parameter)


@contextmanager
def blind(live: LiveWidth, groups: int) -> Iterator[None]:
    """Have what reads the width multiply all but the first groups with zeros for a while, at their full size."""
    readers = [
        s
        for link in live.links
        for s in (*link.width.producers, link.width.consumer)
        if s.reads or s is link.width.consumer
    ]
    weights = {s.module: getattr(live.block.get_submodule(s.module), s.parameter) for s in readers}
    before = {path: weight.data for path, weight in weights.items()}
    try:
        for s in readers:
            weight = weights[s.module]
            weight.data = weight.data.clone()
            weight.data.narrow(s.dim, groups * s.size, (live.width.groups - groups) * s.size).zero_()
        yield
    finally:
        for path, weight in weights.items():
            weight.data = before[path]
