"""The one reader of arrays: safetensors, `.npz` and pictures. What a file claims to hold is checked before it is made.

Pickles are never read. A ValueError says what is wrong; `reading.explained` makes a sentence of it.
"""

import io
import lzma
import math
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.files.reading import check_regular

UNPACKED = 2**28  # bytes that may be behind however few
EXPANSION = 100  # times its size on disk that a larger array may have
PIXELS = 2**26  # of a picture
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of pictures. Pillow has readers of other formats that start programs."""
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@contextmanager
def open_tensors(path: Path, device: str = "cpu") -> Iterator[Any]:
    """A safetensors file, mapped: an object of `safetensors.safe_open`.

    safetensors itself checks that the header fits the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(os.stat(path))
    try:
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def read_tensors(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Every tensor of a safetensors file by name, views of the mapped file on a CPU; raises as `open_tensors`."""
    with open_tensors(path, device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def names_of_npz(path: Path) -> list[str]:
    """Names of the arrays of a `.npz` file, sorted; raises as `read_npz`."""
    check_regular(os.stat(path))
    try:
        with zipfile.ZipFile(path) as file:
            return sorted(name.removesuffix(".npy") for name in file.namelist())
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error


def read_npz(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Named arrays of a `.npz` file; what else is in it is not looked at.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged or lacks one, one holds objects, or far more is behind it than the file's size lets
            expect.
    """
    check_regular(os.stat(path))
    try:
        with zipfile.ZipFile(path) as file:
            members = {info.filename: info for info in file.infolist()}
            lacking = [name for name in names if f"{name}.npy" not in members]
            if lacking:
                held = sorted(name.removesuffix(".npy") for name in members)[:10]
                raise ValueError(f"it holds {held}, and {' and '.join(f'`{name}`' for name in names)} are needed")
            return [_array(file, members[f"{name}.npy"]) for name in names]
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, SyntaxError) as error:
        raise ValueError(str(error)) from error


def _array(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    name = member.filename.removesuffix(".npy")
    if member.file_size > UNPACKED and member.file_size > EXPANSION * member.compress_size:
        raise ValueError(f"`{name}` unpacks {member.compress_size:,} bytes to {member.file_size:,}")
    with file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise ValueError(f"`{name}` is of version {version} of the format")
        shape, _, dtype = HEADERS[version](stream)
        if dtype.hasobject or dtype.fields is not None:
            raise ValueError(f"`{name}` holds no numbers but {dtype}")
        if any(not isinstance(size, int) or size < 0 for size in shape):
            raise ValueError(f"`{name}` has the shape {shape}")
        claimed = math.prod(shape) * dtype.itemsize
        if claimed != member.file_size - stream.tell():
            raise ValueError(f"`{name}` is to have {claimed:,} bytes and has {member.file_size - stream.tell():,}")
    with file.open(member) as stream:
        read: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return read


def read_picture(source: Path | bytes, mode: Callable[[str], str]) -> NDArray[np.uint8]:
    """Pixels `[height, width]` or `[height, width, channels]` of a picture of one of `FORMATS`.

    Args:
        source: the file, or what is in it.
        mode: Pillow's name of the mode to convert to, of the picture's own; raises a ValueError where there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, no picture, or has more than `PIXELS`.
    """
    from PIL import Image

    if isinstance(source, Path):
        check_regular(os.stat(source))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > PIXELS:
                    raise ValueError(f"it is {width} x {height}, and at most {PIXELS:,} pixels are read")
                return np.asarray(picture.convert(mode(picture.mode)), dtype=np.uint8)
    except OSError as error:
        raise error if error.errno else ValueError(str(error)) from error
    except (MemoryError, ValueError):
        raise
    except Exception as error:  # Pillow lets through whatever its readers stumble over
        raise ValueError(str(error) or type(error).__name__) from error
