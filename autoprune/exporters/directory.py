"""The common part of exporters that write a directory, which appears completely or not at all.

A directory has a list of its files, `export.json`: `{"format": "autoprune.export/1", "files": ["README.md", ...]}`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from autoprune.errors import UserError
from autoprune.files.writing import BUILDING, OLD, scratch

MANIFEST = "export.json"
"""Of a directory, the names of the files that an export wrote: nothing else in it is given on."""
FORMAT = "autoprune.export/1"


def check_target(path: Path) -> None:
    """Raise a UserError where `path` is a file, or holds what no export wrote."""
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        if names and not {"config.json", "policy.json"} <= names:
            raise UserError(
                f"'{path}' holds files that no export wrote, as {min(names)}: choose an empty or a new directory."
            )
    elif path.exists():
        raise UserError(f"'{path}' is a file: an export is a directory, choose another name.")


@contextmanager
def neighbour(path: Path) -> Iterator[Path]:
    """A new directory beside `path` that takes its place at the end, if nothing goes wrong.

    Raises:
        UserError: the disk is full or not writable.
    """
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch(path.parent, BUILDING) as root:
            new = root / "new"
            new.mkdir()
            yield new
            names = sorted([MANIFEST, *(file.name for file in new.iterdir())])
            listed = json.dumps({"format": FORMAT, "files": names}, indent=1)
            (new / MANIFEST).write_text(listed + "\n", encoding="utf-8")
            _readable(new)
            if path.exists():
                path.rename(root / OLD)
            new.rename(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"the network could not be written to '{path}' ({reason}).") from error


def _readable(directory: Path) -> None:
    """Give every file the permissions of any new file of this user's: safetensors hides what it writes from others."""
    usual = directory.stat().st_mode & 0o666  # those of a new folder, without the right to enter
    for file in directory.iterdir():
        file.chmod(usual)
