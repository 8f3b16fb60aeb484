"""Parquet and Arrow files (also Feather), column by column, with pyarrow (`.parquet`, `.arrow`)."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from autoprune.data.file import File
from autoprune.data.reader import Reader
from autoprune.data.records import SAMPLES, Records
from autoprune.errors import UserError
from autoprune.files.reading import DAMAGE, reason

ROWS = 1000  # in memory at a time


class Columnar(Reader):
    """Recognised by the first bytes; a stream of Arrow, which has none of its own, by the name."""

    def recognises(self, file: File) -> bool:
        """By content or name."""
        return file.head.startswith((b"PAR1", b"ARROW1")) or file.suffix in (".arrow", ".parquet")

    def read(self, file: File) -> Records:
        """The columns, of which only the chosen one is read to the end."""
        form = "Parquet" if file.head.startswith(b"PAR1") or file.suffix == ".parquet" else "Arrow"
        with _told(file):
            names = _names(file)
            first = next(iter(_batches(file, names)), None)
            if first is None or not first.num_rows:
                raise UserError(f"'{file.called}' has no rows.")
            head = {name: first.column(name).slice(0, SAMPLES).to_pylist() for name in names}
        samples = {name: [value for value in values if value not in (None, [])] for name, values in head.items()}
        return Records(form, samples, lambda column: _values(file, column))


def _values(file: File, column: str) -> Iterator[Any]:
    with _told(file):
        for batch in _batches(file, [column]):
            batch.validate(full=True)  # offsets of a damaged file would lead outside of it
            yield from batch.column(column).to_pylist()


def _names(file: File) -> list[str]:
    """Of the columns; those of encoded files, which are large, are left out."""
    from pyarrow import types

    with _opened(file) as source:
        schema = source.schema_arrow if hasattr(source, "schema_arrow") else source.schema
        return [one.name for one in schema if not (types.is_binary(one.type) or types.is_large_binary(one.type))]


def _batches(file: File, columns: list[str]) -> Iterator[Any]:
    with _opened(file) as source:
        if hasattr(source, "iter_batches"):
            yield from source.iter_batches(ROWS, columns=columns)
            return
        stream: Iterable[Any] = (
            (source.get_batch(i) for i in range(source.num_record_batches)) if hasattr(source, "get_batch") else source
        )
        yield from (batch.select(columns) for batch in stream)


@contextmanager
def _opened(file: File) -> Iterator[Any]:
    """A ParquetFile, or a reader of an Arrow file or stream."""
    import pyarrow
    from pyarrow import parquet

    if file.head.startswith(b"PAR1") or file.suffix == ".parquet":
        with parquet.ParquetFile(io.BytesIO(file.raw) if file.packed else str(file.path)) as source:
            yield source
        return
    opener = pyarrow.ipc.open_file if file.head.startswith(b"ARROW1") else pyarrow.ipc.open_stream
    source_of_bytes = pyarrow.BufferReader(file.raw) if file.packed else pyarrow.memory_map(str(file.path))
    with source_of_bytes as stream, opener(stream) as source:
        yield source


@contextmanager
def _told(file: File) -> Iterator[None]:
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(f"'{file.called}' needs pyarrow: pip install 'autoprune[data]'.") from error
    try:
        yield
    except (pyarrow.ArrowException, OSError, *DAMAGE) as error:
        raise UserError(f"'{file.called}' cannot be read ({reason(error)}).") from error
