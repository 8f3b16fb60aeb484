"""Handwritten digits that ship with scikit-learn: 1,797 images of 8x8 pixels, in two halves that share no image.

One half is what the embedded network `tiny-cnn` was trained on, the other is the default for calibration, search and
validation. An image's half depends on its pixels alone, so neither order nor copies can carry one across.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import UserError

NAME = "digits"
MEAN, STD = 0.305, 0.375
"""Of all pixels of the half that was trained on, of values up to 1."""
HELD_OUT_PERCENT = 58
"""Share of the images that tiny-cnn never trained on, in per cent: 1,036 of 1,797."""


def read(held_out: bool = True) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One half of the digits: `[N, 8, 8, 1]` pixels and `[N]` labels.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (its test set).

    Args:
        held_out: the half that `tiny-cnn` did not train on; otherwise the one that it did.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("the digits need scikit-learn: pip install 'autoprune[vision]'.") from error
    shades, labels = load_digits(return_X_y=True)  # of 0 to 16
    images = np.round(shades * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    chosen = np.array([is_held_out(image) is held_out for image in images])
    return images[chosen], labels[chosen].astype(np.int64)


def is_held_out(image: NDArray[np.uint8]) -> bool:
    """Whether an image was kept out of training."""
    return zlib.crc32(image.tobytes()) % 100 < HELD_OUT_PERCENT
