"""Keeps data that have no file of their own, from stdin or Python, in `<cache>/data/`, named by a hash of the content.

Runs name these files, so that resuming, workers and fine-tuning read them as any others.
"""

import hashlib
from pathlib import Path

from autoprune.errors import UserError
from autoprune.files.cache import cache_directory
from autoprune.files.writing import replacing


def is_kept(name: str) -> bool:
    """Whether a name is that of a file that `keep` made, there or not."""
    return Path(name).parent == (cache_directory() / "data").absolute()


def keep(content: bytes, suffix: str) -> str:
    """The path of a file with this content.

    Args:
        content: what it holds.
        suffix: of its name, as `.jsonl`.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = cache_directory() / "data"
    path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    try:
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write_bytes(content)
    except OSError as error:
        raise UserError(f"the data could not be kept in '{folder}' ({error.strerror}).") from error
    return str(Path(path).absolute())
