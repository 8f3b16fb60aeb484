"""Reads labelled images of a Hugging Face data set on disk with pyarrow and Pillow. No code is run or downloaded.

Two layouts: what `Dataset.save_to_disk` writes (`state.json`, `*.arrow`; of a `DatasetDict` one such folder for each
split), and the hub's (`*.parquet` in the folder or below it, as `data/train-00000-of-00001.parquet`). Of several splits
it is `train`. An image is its encoded file (PNG, JPEG, ...), a label an integer. Pictures that are all grey have one
channel, others three.

Source of the formats: the documentation of `datasets` 4, "Load", "Create an image dataset" and `Features`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import UserError
from autoprune.files.arrays import read_picture
from autoprune.files.reading import DAMAGE, parse_json, reason

IMAGES, LABELS = ("image", "img"), ("label", "labels", "fine_label", "class", "target")
"""Names of columns that are taken first, in this order."""
GREY, COLOURED = {"1", "L", "LA"}, {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"}
"""Pillow's modes of up to 8 bits a channel."""
ROWS = 1000  # of a parquet file in memory at a time


def read(files: Sequence[Path], column: str | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels `[N, height, width, 1 or 3]` and labels `[N]` of the files of one split.

    Args:
        files: of the split (folders.py).
        column: of the images; None finds it.

    Raises:
        UserError: a file is damaged or has no columns of images and labels; an image is missing, damaged, of more than
            8 bits a channel or of another size than the first; a label is missing; or pyarrow or Pillow is.
    """
    try:
        import PIL.Image  # noqa: F401
        import pyarrow
    except ImportError as error:
        raise UserError("data sets of images need pyarrow and Pillow: pip install 'autoprune[vision]'.") from error
    pictures: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for file in files:
        try:
            for image, label in _rows(file, column):
                where = f"row {len(labels)} of the data set (in '{file}')"
                pictures.append(_decoded(image, where))
                _check_size(pictures, where)
                if label is None:
                    raise UserError(f"{where} has no label.")
                labels.append(label)
        except (pyarrow.ArrowException, OSError, *DAMAGE) as error:
            raise UserError(f"the data set's '{file}' cannot be read ({reason(error)}).") from error
    if not pictures:
        raise UserError(f"the data set in '{files[0].parent}' has no rows.")
    channels = max(picture.shape[-1] for picture in pictures)
    shape = (*pictures[0].shape[:2], channels)
    return np.stack([np.broadcast_to(p, shape) for p in pictures]), np.array(labels, dtype=np.int64)


def _rows(file: Path, column: str | None) -> Iterator[tuple[Any, int | None]]:
    """What the columns of images and labels hold, row by row."""
    import pyarrow
    from pyarrow import parquet

    if file.suffix == ".parquet":
        with parquet.ParquetFile(file) as source:
            image, label = _columns(source.schema_arrow, file, column)
            yield from _pairs(source.iter_batches(ROWS, columns=[image, label]), image, label)
    else:
        with pyarrow.memory_map(str(file)) as stream, pyarrow.ipc.open_stream(stream) as source:
            image, label = _columns(source.schema, file, column)
            yield from _pairs(source, image, label)


def _pairs(batches: Iterable[Any], image: str, label: str) -> Iterator[tuple[Any, int | None]]:
    for batch in batches:
        batch.validate(full=True)  # offsets of a damaged file would lead outside of it
        labels = batch.column(label).cast("int64").to_pylist()
        yield from zip(batch.column(image).to_pylist(), labels, strict=True)


def _columns(schema: Any, file: Path, column: str | None) -> tuple[str, str]:
    """Names of the columns of images and of labels: by what `datasets` noted in the file, types and names."""
    from pyarrow import types

    noted = _noted(schema)
    files = [f.name for f in schema if _is_file(f.type)]
    integers = [f.name for f in schema if types.is_integer(f.type)]
    images = [name for name in files if noted.get(name) == "Image"] or files
    classes = [name for name in integers if noted.get(name) == "ClassLabel"] or integers
    if column is not None and column not in files:
        known = ", ".join(f"{f.name} ({f.type})" for f in schema)
        raise UserError(f"'{file}' has no column of images '{column}'. It has: {known}.")
    image = column or _chosen(images, IMAGES)
    label = _chosen(integers, LABELS) or _chosen(classes, ())
    if image is None or label is None:
        lacking = "images (encoded files)" if image is None else "integer labels"
        known = ", ".join(f"{f.name} ({f.type})" for f in schema)
        wanted = IMAGES if image is None else LABELS
        raise UserError(
            f"'{file}' has no column of {lacking}, or several of other names than {', '.join(wanted)}. It has: {known}."
        )
    return image, label


def _noted(schema: Any) -> dict[str, str]:
    """Column -> kind of feature, where the file was written by `datasets`."""
    try:
        features = parse_json(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: str(feature["_type"]) for name, feature in features.items() if "_type" in feature}
    except DAMAGE:  # another writer's, who noted nothing or something else
        return {}


def _is_file(kind: Any) -> bool:
    """Whether a column of this type can hold encoded files: as bytes, or as `datasets` stores them."""
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_file(kind.field("bytes").type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _chosen(names: Sequence[str], first: Sequence[str]) -> str | None:
    """The first of `first` that is there, or the only name."""
    return next((name for name in first if name in names), names[0] if len(names) == 1 else None)


def _decoded(image: Any, where: str) -> NDArray[np.uint8]:
    """Pixels `[height, width, 1 or 3]` of an encoded file."""
    data = image["bytes"] if isinstance(image, dict) else image
    if data is None:
        raise UserError(f"{where} has no image{' but a path' if image else ''}: save the data set with its images.")
    try:
        pixels = read_picture(bytes(data), _mode)
    except (OSError, *DAMAGE) as error:
        raise UserError(f"the image in {where} cannot be read ({reason(error)}).") from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _mode(own: str) -> str:
    """What a picture is converted to."""
    if own not in GREY | COLOURED:
        raise ValueError(f"it is of mode {own}, and up to 8 bits a channel are needed")
    return "L" if own in GREY else "RGB"


def _check_size(pictures: Sequence[NDArray[np.uint8]], where: str) -> None:
    """Of the last picture."""
    first, last = ("x".join(map(str, picture.shape[:2])) for picture in (pictures[0], pictures[-1]))
    if first != last:
        raise UserError(f"{where} is {last}, and the first image is {first}: images of one size are needed.")
