"""Labelled images: from a file or a folder to numbers of images in three splits that never mix.

A `.npz` holds `images` `[N, height, width, channels]` uint8, or `pixels`, float32 as the network takes them, and
`labels` `[N]` integers. A folder holds one folder of pictures for each class, classes in the order of their names (the
layout of torchvision's ImageFolder; needs Pillow), or is a Hugging Face data set (dataset_directory.py). `digits` names
those that ship with scikit-learn (digits.py).
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import FiniteFloat, TypeAdapter
from torch import Tensor

from autoprune.data import dataset_directory, digits, folders
from autoprune.data.examples import Examples, split_examples
from autoprune.data.splits import Splits
from autoprune.data_names import Names, Wanted, one_name, wanted_of
from autoprune.errors import UserError
from autoprune.files.arrays import names_of_npz, read_npz, read_picture
from autoprune.files.reading import explained, read_json

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"}
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Mean and standard deviation that networks were trained with, where neither the data nor the user says another."""
SCALE = TypeAdapter(list[FiniteFloat] | None)
FORMS = "--data takes a .npz file, a folder with one folder for each class, a Hugging Face data set, or digits"


@dataclass(frozen=True)
class ImageSet(Examples):
    """Images that are looked up by number.

    Args:
        images: `[N, C, height, width]` uint8; or float32, as the network takes them.
        labels: `[N]` int64.
        mean: of each channel, of values in [0, 1]; what the network was trained with.
        std: likewise.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    called: ClassVar[str] = "images"

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return tuple(self.images.shape[1:])

    def inputs(self, numbers: Tensor) -> Tensor:
        """What a network takes: `pixels`."""
        return self.pixels(numbers)

    def pixels(self, numbers: Tensor) -> Tensor:
        """Normalised images `[n, C, height, width]` float32."""
        if self.images.is_floating_point():
            return self.images[numbers]
        return (self.images[numbers].float() / 255 - self.mean) / self.std

    def to(self, device: str) -> "ImageSet":
        """On another device."""
        return ImageSet(*(tensor.to(device) for tensor in (self.images, self.labels, self.mean, self.std)))


def read_images(
    data: Wanted | Names | None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> ImageSet:
    """The images of a file, a folder or a name.

    Args:
        data: `.npz`, `.parquet`, a folder of folders, a data set's directory, or `digits`; perhaps with the column of
            the images and the split.
        mean: of each channel, or one for all; None is the digits' own, of others ImageNet's.
        std: likewise.

    Raises:
        UserError: nothing there, damaged, no images in it, or images of several sizes.
    """
    wanted = wanted_of(data)
    path = one_name(wanted.names, "images")
    if path is None:
        raise UserError(f"images are needed: {FORMS}.")
    images, labels = _read(path, wanted)
    if images.dtype == np.float32:
        return _as_given(path, images, labels, mean, std)
    channels = images.shape[-1]
    own = ([digits.MEAN], [digits.STD]) if path == digits.NAME else IMAGENET
    scales = []
    for name, given, usual in zip(("image_mean", "image_std"), (mean, std), own, strict=True):
        values = usual if given is None else list(given)
        if len(values) not in (1, channels):
            which = f"{len(values)} values" if given is not None else "ImageNet's three values where none is given"
            raise UserError(
                f"{name} has {which}, and the images in '{path}' have {channels} channel{'s'[: channels - 1]}: give "
                f"{name} as the network was trained, one value for each."
            )
        if not all(math.isfinite(value) and (name == "image_mean" or value > 0) for value in values):
            raise UserError(f"{name} is {values}: finite numbers are needed, and deviations above 0.")
        scales.append(torch.tensor(values).view(-1, 1, 1))
    return ImageSet(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels), *scales)


def preprocessing(directory: str) -> tuple[list[float] | None, list[float] | None]:
    """Mean and standard deviation that a checkpoint's `preprocessor_config.json` normalises by; None where it has none.

    Raises:
        UserError: the file is damaged.
    """
    file = Path(directory) / "preprocessor_config.json"
    with explained("the preprocessor", file, "give image_mean and image_std yourself"):
        told = read_json(file) if os.path.isfile(file) else {}
        factor = float(told.get("rescale_factor", 1 / 255)) if told.get("do_rescale", True) else 1.0
        if not math.isclose(factor, 1 / 255, rel_tol=1e-3):
            raise UserError(
                f"'{file}' multiplies pixels by {factor:g} first, and here they are divided by 255: give image_mean "
                "and image_std of values in [0, 1]."
            )
        if not told.get("do_normalize", True):
            return [0.0], [1.0]
        mean, std = (told.get(name) for name in ("image_mean", "image_std"))
        return SCALE.validate_python(mean), SCALE.validate_python(std)


def split_images(images: ImageSet, length: int, asked: Mapping[str, int | None], seed: int) -> Splits:
    """Numbers of images `[N, length]` by split, in an order that depends on `seed` alone.

    Raises:
        UserError: too few images for each split to get two samples.
    """
    return split_examples(images, length, asked, seed, images.images, images.labels, images.mean, images.std)


def check_labels(images: ImageSet, classes: int) -> None:
    """Raise a UserError where a label is none of the network's classes."""
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= classes:
        raise UserError(f"the images have labels from {low} to {high}, and the model has classes 0 to {classes - 1}.")


def _as_given(
    path: str,
    images: NDArray[Any],
    labels: NDArray[np.int64],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> ImageSet:
    """Images that are what the network takes already."""
    if mean is not None or std is not None:
        raise UserError(
            f"the images in '{path}' are floats, which go to the network as they are: leave image_mean and image_std."
        )
    if not np.isfinite(images).all():
        raise UserError(f"the images in '{path}' hold numbers that are not finite.")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return ImageSet(pixels, torch.from_numpy(labels), torch.zeros(1, 1, 1), torch.ones(1, 1, 1))


def _read(path: str, wanted: Wanted) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Pixels `[N, height, width, channels]`, uint8 or float32, and labels `[N]`."""
    column, split = wanted.column, wanted.split
    found: list[Path] = []
    if path != digits.NAME:
        source = Path(path)
        if not os.path.exists(source):
            raise UserError(f"no images at '{path}': {FORMS}.")
        if source.is_dir():
            found = folders.files_of(source, split, folders.IMAGES).files
        elif source.suffix == ".parquet":
            found = [source]
    if found:
        return dataset_directory.read(found, column)
    for setting, value in (("data_column", column), ("data_split", split)):
        if value is not None:
            raise UserError(f"{setting}='{value}' is of data sets, and '{path}' is none: leave it.")
    if path == digits.NAME:
        return digits.read()
    return _folder(source) if source.is_dir() else _npz(source)


def _npz(path: Path) -> tuple[NDArray[Any], NDArray[np.int64]]:
    with explained("the file of images", path):
        as_given = "pixels" in names_of_npz(path)
        images, labels = read_npz(path, ("pixels" if as_given else "images", "labels"))
    if images.dtype != (np.float32 if as_given else np.uint8) or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"`images` in '{path}' is {images.dtype} {images.shape}: uint8 [N, height, width, 1 or 3] is needed, "
            "or `pixels`, float32 as the network takes them."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"`labels` in '{path}' is {labels.dtype} {labels.shape}: {len(images)} integers are needed.")
    return images, labels.astype(np.int64)


def _folder(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise UserError("folders of images need Pillow: pip install 'autoprune[vision]'.") from error
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir())
    files = [
        (file, label)
        for label, folder in enumerate(classes)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise UserError(f"no images in '{path}': one folder for each class is needed, with pictures in it.")
    pictures: list[NDArray[np.uint8]] = []
    for file, _ in files:
        with explained("the image", file):
            pictures.append(read_picture(file, lambda mode: "RGB"))
        if pictures[-1].shape != pictures[0].shape:
            sizes = ["x".join(map(str, p.shape[:2])) for p in (pictures[0], pictures[-1])]
            raise UserError(
                f"'{file}' is {sizes[1]}, and '{files[0][0]}' is {sizes[0]}: images of one size are needed."
            )
    return np.stack(pictures), np.array([label for _, label in files], dtype=np.int64)
