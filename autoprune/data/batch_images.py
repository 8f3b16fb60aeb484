"""Batches of images with labels, written to a `.npz`.

A batch is a pair, or a mapping with `pixel_values` or `image` and `labels` or `label`; one example is a batch of one.
Integers are kept as uint8. Floats go to the network as they are.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.data.batch_arrays import array_of, bounded, is_array, is_torch, other_kind
from autoprune.data.keeping import keep
from autoprune.errors import UserError

IMAGES, LABELS = ("pixel_values", "image", "images", "img"), ("labels", "label")


def keep_images(stream: Iterable[Any], samples: int | None) -> tuple[str, str | None]:
    """The file of images, and a sentence where not all were read.

    Args:
        stream: batches or examples.
        samples: images of a sample where the stream may be endless; None reads all.

    Raises:
        UserError: they are of several kinds or sizes, or no images.
    """

    def pairs() -> Iterator[tuple[NDArray[Any], int]]:
        for one in stream:
            both = images_in(one)
            if both is None:
                raise UserError(other_kind(one, "images with labels"))
            yield from zip(*both, strict=True)

    found, notice = bounded(pairs(), samples, lambda pair: 1, 1, "images")
    pictures, labels = [picture for picture, _ in found], np.array([label for _, label in found], dtype=np.int64)
    if len({picture.shape for picture in pictures}) > 1:
        raise UserError(f"the images have several shapes, as {pictures[0].shape}: images of one size are needed.")
    out, images = io.BytesIO(), _pixels(np.stack(pictures))
    if images.dtype == np.uint8:
        np.savez(out, images=images, labels=labels)
    else:
        np.savez(out, pixels=images, labels=labels)
    return keep(out.getvalue(), ".npz"), notice


def images_in(batch: Any) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Images `[B, height, width, C]` and labels `[B]` of a batch, or of one example; None of what has none."""
    if isinstance(batch, Mapping):
        keys = [next((key for key in known if key in batch), None) for known in (IMAGES, LABELS)]
        pair = [batch[key] for key in keys if key is not None]
    else:
        pair = list(batch) if isinstance(batch, (list, tuple)) else []
    if len(pair) != 2 or not (is_array(pair[0]) or hasattr(pair[0], "getbands")):
        return None
    images, labels = np.asarray(pair[0]) if hasattr(pair[0], "getbands") else array_of(pair[0]), array_of(pair[1])
    if images.ndim in (2, 3) and labels.ndim == 0:
        images, labels = images[None], labels[None]
    if images.ndim == 3:
        images = images[:, None] if is_torch(pair[0]) else images[..., None]
    if images.ndim != 4 or labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        return None
    first = images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3)
    return (images.transpose(0, 2, 3, 1) if first or is_torch(pair[0]) else images), labels


def _pixels(images: NDArray[Any]) -> NDArray[Any]:
    if np.issubdtype(images.dtype, np.integer):
        if images.min() < 0 or images.max() > 255:
            raise UserError(f"the images hold integers from {images.min()} to {images.max()}: 0 to 255 are needed.")
        return images.astype(np.uint8)
    return images.astype(np.float32)
