"""Samples of the data in three splits that never mix.

`reconstruction` is for the moments, `search` for the losses that agents get, `validation` for reported results.

Shapes: N samples, T items (tokens, images) of a sample.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import UserError

SHARES = {"reconstruction": 0.5, "search": 0.25, "validation": 0.25}
MOST = {"reconstruction": 128, "search": 64, "validation": 64}
"""Samples of a split for which no number is asked."""
LEAST = 2


@dataclass(frozen=True)
class Splits:
    """Samples `[N, T]` by split, a hash of all of them, and sentences for the user on how they were read."""

    reconstruction: Tensor
    search: Tensor
    validation: Tensor
    digest: str
    notices: tuple[str, ...] = ()


def split(tokens_NT: Tensor, asked: Mapping[str, int | None], seed: int | None = 0) -> Splits:
    """Shuffle samples by `seed` and deal them to the three splits, as many to each as `dealt` says.

    With None they are dealt in the order that they have.

    Raises:
        UserError: too few samples for each split to get two.
    """
    count, length = tokens_NT.shape
    takes = dealt(count, asked)
    if min(takes.values()) < LEAST:
        raise UserError(
            f"the calibration data are too short: {count} sequences of {length}, and at least 8 are needed. Give more "
            "with --data, or shorter sequences with sequence_length=..."
        )
    shuffled = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    order = torch.from_numpy(shuffled)
    parts, start = {}, 0
    for name, take in takes.items():
        parts[name] = tokens_NT[order[start : start + take]]
        start += take
    sha = hashlib.sha256(b"".join(name.encode() + part.numpy().tobytes() for name, part in parts.items()))
    return Splits(parts["reconstruction"], parts["search"], parts["validation"], sha.hexdigest()[:16])


def dealt(count: int, asked: Mapping[str, int | None]) -> dict[str, int]:
    """How many of `count` samples each split gets.

    The configured numbers are used if at least two samples are left for each other split. The others share the rest by
    `SHARES`, up to `MOST`. If the numbers are too large, no split gets more than its share of all samples.
    """
    fixed = {name: number for name, number in asked.items() if number is not None}
    others = [name for name in SHARES if name not in fixed]
    left, shares = count - sum(fixed.values()), sum(SHARES[name] for name in others)
    least = LEAST if fixed else 0
    takes = fixed | {name: max(least, min(MOST[name], int(left * SHARES[name] / shares))) for name in others}
    if sum(takes.values()) > count:
        takes = {name: min(fixed.get(name, MOST[name]), int(count * share)) for name, share in SHARES.items()}
    return {name: takes[name] for name in SHARES}
