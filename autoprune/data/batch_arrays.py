"""What batches of live data are made of, as arrays of NumPy; and how many are read of what may be endless."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENOUGH = 1024
"""Sequences, or samples of images, of what may be endless: four times as many as the splits take by default."""


def bounded(
    items: Iterable[Any], length: int | None, size: Callable[[Any], int], each: int, unit: str
) -> tuple[list[Any], str | None]:
    """Items until there is enough, and a sentence where more were there.

    Args:
        length: items of a sample; None is all.
        size: of an item, in units.
        each: units of an item of a sample.
    """
    found, total, items = [], 0, iter(items)
    most = None if length is None else ENOUGH * length * each
    for item in items:
        found.append(item)
        total += size(item)
        if most is not None and total >= most:
            more = next(items, None) is not None
            told = (
                f"the data have no length and may be endless: the first {total:,} {unit} are read, enough for "
                f"{ENOUGH:,} samples."
            )
            return found, told if more else None
    return found, None


def is_array(value: Any) -> bool:
    """Whether it is a tensor of torch or an array of NumPy."""
    return isinstance(value, np.ndarray) or (
        type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "numpy")
    )


def is_torch(value: Any) -> bool:
    """Whether it is a tensor of torch, whose images have channels first."""
    return type(value).__module__.partition(".")[0] == "torch"


def array_of(value: Any) -> NDArray[Any]:
    """As an array of NumPy."""
    if is_torch(value):
        value = value.detach().cpu()
        return np.asarray(value.float().numpy() if value.is_floating_point() else value.numpy())
    return np.asarray(value)


def other_kind(batch: Any, wanted: str) -> str:
    """The sentence for a batch that is of another kind than is needed."""
    if isinstance(batch, Mapping):
        shown = f"a mapping of {', '.join(map(str, list(batch)[:6]))}"
    elif is_array(batch):
        shown = f"an array {list(batch.shape)} of {batch.dtype}"
    elif isinstance(batch, Sequence) and not isinstance(batch, (str, bytes)):
        shown = (
            f"a {type(batch).__name__} of {', '.join(sorted({type(one).__name__ for one in batch[:6]})) or 'nothing'}"
        )
    else:
        shown = f"a {type(batch).__name__}"
    return f"the data give {shown}, and {wanted} are needed."
