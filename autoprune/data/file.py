"""A file of data: its first bytes, all of them, and the text in them, each read once and when it is asked for.

A text is decoded by its byte order mark. What is compressed with gzip is read as what is in it.
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from autoprune.errors import UserError
from autoprune.files.arrays import EXPANSION, UNPACKED
from autoprune.files.reading import read_bytes, read_head

BYTES = 2**33  # of a file, at most
HEAD = 64
CHUNK = 2**24
GZIP = b"\x1f\x8b"
MARKS = (  # the longer ones first: that of UTF-32 begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
MAGIC = {
    GZIP: "compressed with gzip twice", b"PK\x03\x04": "an archive (zip, or an office document)", b"%PDF": "a PDF",
    b"BZh": "compressed (bzip2)", b"\xfd7zXZ": "compressed (xz)", b"\x28\xb5\x2f\xfd": "compressed (zstd)",
    b"SQLite format 3": "a SQLite database",
    b"\x93NUMPY": "an array of NumPy", b"GGUF": "a GGUF model", b"\x89PNG": "an image", b"\xff\xd8\xff": "an image",
}  # fmt: skip
WAY_OUT = "write what is to be read to a text file, and give that"


class File:
    """Args:
    path: of a regular file. Every member raises a UserError where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.called = path, str(path)

    @cached_property
    def packed(self) -> bool:
        """Whether it is compressed with gzip."""
        return self._told(lambda: read_head(self.path, len(GZIP))) == GZIP

    @property
    def suffix(self) -> str:
        """Of the name, in small letters, without `.gz`."""
        name = self.path.name.lower()
        return Path(name.removesuffix(".gz") if self.packed else name).suffix

    @cached_property
    def head(self) -> bytes:
        """The first bytes."""
        return self.raw[:HEAD] if self.packed else self._told(lambda: read_head(self.path, HEAD))

    @cached_property
    def raw(self) -> bytes:
        """All bytes."""
        raw = self._told(lambda: read_bytes(self.path, BYTES))
        return self._told(lambda: _unpacked(raw)) if self.packed else raw

    @cached_property
    def text(self) -> str:
        """The text, without byte order marks and with `\\n` at the end of lines.

        Raises:
            UserError: it is no text in UTF-8, UTF-16 or UTF-32, or it is empty.
        """
        for magic, what in MAGIC.items():
            if self.head.startswith(magic):
                raise UserError(f"'{self.called}' is {what} and no text: {WAY_OUT}.")
        text = _decoded(self.raw, self.called)
        if not text.strip():
            raise UserError(f"the calibration text '{self.called}' is empty.")
        return text

    def _told(self, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except (ValueError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            way = ": give a part of it, as by `head -c 100M`" if "at most" in str(error) else ""
            raise UserError(f"the calibration text '{self.called}' cannot be read: {error}{way}.") from error
        except OSError as error:
            raise UserError(f"the calibration text '{self.called}' cannot be read ({error.strerror}).") from error


def _unpacked(packed: bytes) -> bytes:
    most, out = max(UNPACKED, EXPANSION * len(packed)), bytearray()
    with gzip.open(io.BytesIO(packed)) as stream:
        while chunk := stream.read(CHUNK):
            out += chunk
            if len(out) > min(most, BYTES):
                raise ValueError(f"it unpacks {len(packed):,} bytes to more than {min(most, BYTES):,}")
    return bytes(out)


def _decoded(raw: bytes, called: str) -> str:
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), "utf-8")
    maybe = " It may be UTF-16 without a byte order mark." if b"\0" in raw[:HEAD] else ""
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        told = f"'{called}' is no {encoding.removesuffix('-sig').upper()} text ({where}): convert it to UTF-8.{maybe}"
        raise UserError(told) from error
    if "\0" in text:
        raise UserError(f"'{called}' is no text: it holds a zero byte at character {text.index(chr(0))}.{maybe}")
    return re.sub("^\ufeff+", "", text.replace("\r\n", "\n").replace("\r", "\n"), flags=re.MULTILINE)
