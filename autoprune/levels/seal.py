"""Checks that the files of a level store are those that were built.

The manifest has a seal of each file: its size, a hash of its header (names, types and shapes of its tensors) and a hash
of the whole file. Size and header are checked whenever a store is opened, which reads only a few kilobytes of each
file. The whole file is checked once in a process if the store has at most `SMALL` bytes. Damaged weights of a larger
store are not detected. A seal protects against damage and mixed-up files, not against someone who can write to the
cache.
"""

import functools
import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from autoprune.files.reading import read_head

SMALL = 2**26
"""Bytes of a store that is hashed whole: a tenth of a second."""


class Seal(BaseModel):
    """What a file was when it was built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=8, alias="bytes")
    header: str
    whole: str


def sealed(path: Path) -> dict[str, int | str]:
    """The seal of a safetensors file, as the manifest has it."""
    return {"bytes": path.stat().st_size, "header": _header(path), "whole": _whole(path)}


def check(path: Path, seal: Seal, whole: bool) -> None:
    """Raise a ValueError where a file is not the one that was sealed; `whole` reads all of it."""
    status = path.stat()
    if status.st_size != seal.size:
        raise ValueError(f"{path.name} has {status.st_size:,} bytes, and {seal.size:,} were written")
    if _header(path) != seal.header:
        raise ValueError(f"{path.name} holds other tensors than were written")
    if whole and _known_whole(path, status.st_size, status.st_mtime_ns) != seal.whole:
        raise ValueError(f"{path.name} has changed since it was written")


def _header(path: Path) -> str:
    length = int.from_bytes(read_head(path, 8), "little")  # a damaged one may say anything
    return hashlib.sha256(read_head(path, 8 + min(length, path.stat().st_size))).hexdigest()


@functools.lru_cache(4096)
def _known_whole(path: Path, size: int, changed: int) -> str:
    return _whole(path)


def _whole(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
