"""Labelled examples that are looked up by number, such as images, for networks that do not read text.

Shapes: N examples, n of them.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from autoprune.data.splits import Splits, split
from autoprune.errors import UserError


class Examples(ABC):
    """Examples and their labels.

    Attributes:
        labels: `[N]` or `[N, ...]`, whatever the losses of the task compare with; on the device of the examples.
        called: what messages call them.
    """

    labels: Tensor
    called: ClassVar[str] = "examples"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one example."""

    @abstractmethod
    def inputs(self, numbers: Tensor) -> Tensor:
        """What the network takes of these examples, `[n, *shape]` float32."""

    @abstractmethod
    def to(self, device: str) -> "Examples":
        """On another device."""


def split_examples(
    examples: Examples, length: int, asked: Mapping[str, int | None], seed: int, *content: Tensor
) -> Splits:
    """Numbers of examples `[samples, length]` by split, in an order that depends on `seed` alone.

    Args:
        examples: all of them.
        length: examples of a sample.
        asked: split -> number of samples, where one is asked for.
        seed: of the order.
        content: tensors by which these data are told from others.

    Raises:
        UserError: too few examples for each split to get two samples.
    """
    count = len(examples) // length
    if count < 8:
        raise UserError(
            f"there are {len(examples)} {examples.called}, and at least {8 * length} are needed for samples of "
            f"{length}: give more with --data, or smaller samples with sequence_length=..."
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(examples)))
    splits = split(order[: count * length].view(count, length), asked, seed)
    sha = hashlib.sha256(splits.digest.encode())
    for tensor in content:
        sha.update(tensor.numpy().tobytes())
    return replace(splits, digest=sha.hexdigest()[:16])
