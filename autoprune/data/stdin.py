"""Data from stdin, kept in the cache under a name of its content, so that a run can be resumed."""

import sys
from functools import cache

from autoprune.data.file import BYTES
from autoprune.data.keeping import keep
from autoprune.data_names import STDIN, Names
from autoprune.errors import UserError


def without_stdin(names: Names | None) -> Names | None:
    """Names of which `-` is replaced by the file that keeps what stdin gave.

    Raises:
        UserError: as `kept`.
    """
    if names == STDIN:
        return kept()
    if isinstance(names, list):
        return [kept() if name == STDIN else name for name in names]
    if isinstance(names, dict):
        return {kept() if name == STDIN else name: weight for name, weight in names.items()}
    return names


@cache
def kept() -> str:
    """The file of what stdin gave; it is read once.

    Raises:
        UserError: stdin is a terminal, closed, empty or too large, or the cache cannot be written.
    """
    stream = sys.stdin
    if stream is None or stream.closed:
        raise UserError("--data - reads stdin, and it is closed: pipe data in, as `cat text.txt | autoprune ...`.")
    if stream.isatty():
        raise UserError(
            "--data - reads stdin, and that is a terminal: pipe data in, as `cat text.txt | autoprune ...`."
        )
    raw = stream.buffer.read(BYTES + 1)
    if len(raw) > BYTES:
        raise UserError(f"stdin gives more than {BYTES:,} bytes: give a part of it, as by `head -c 100M`.")
    if not raw.strip():
        raise UserError("--data - reads stdin, and it gave nothing: pipe data in, as `cat text.txt | autoprune ...`.")
    return keep(raw, "")
