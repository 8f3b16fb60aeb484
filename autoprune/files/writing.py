"""Files and folders that appear whole or not at all; no link that somebody has planted is followed.

What is being made lies in a scratch folder that only its owner may enter. The owner holds a lock in it: a folder whose
lock is free was left by a process that was killed, and goes when the next one is made beside it.
"""

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from autoprune.errors import UserError

LOCK = "lock"
DAY = 86400.0  # seconds; a younger folder without a lock may be of a process that is about to make one
BUILDING = ".building-"
OLD = "old"
"""In a scratch folder, what a new one was about to replace: a folder that holds it is not cleaned away."""


def write_atomically(path: Path, text: str) -> None:
    """Write a file through a temporary neighbour; a link in its place is replaced, not followed.

    Raises:
        UserError: the disk is full or not writable, or a device, a pipe or a folder is in its place.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        _check_regular(path)
        with open_unlinked(temporary, "x") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"'{path}' could not be written ({error.strerror}).") from error


def open_unlinked(path: Path, mode: str) -> IO[str]:
    """`open` in UTF-8, but an OSError where the file is a symbolic link."""
    return open(path, mode, encoding="utf-8", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `path` at the end if nothing goes wrong.

    Raises:
        OSError: the disk is full or not writable, or a device, a pipe or a folder is in its place; likewise whatever
            the body raises.
    """
    _check_regular(path)
    with scratch(path.parent, BUILDING) as folder:
        yield folder / path.name
        os.replace(folder / path.name, path)


def _check_regular(path: Path) -> None:
    """Raise an OSError where a new file would take the place of a device or a pipe, as `/dev/null` or `/dev/stdout`."""
    home = os.path.realpath(path.parent)
    if home == "/dev" or home.startswith("/proc/") or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "no regular file can be there")


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, 0700, that is gone afterwards; those that killed processes have left go first.

    What shall stay is renamed to where it belongs before the end.

    Raises:
        OSError: it cannot be made.
    """
    _clean(parent, prefix)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    new = os.open(folder / f"{LOCK}.new", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        with suppress(OSError):  # a file system without locks; nothing is cleaned there
            fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(folder / f"{LOCK}.new", folder / LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(new)


def own_folder(path: Path) -> None:
    """Make a folder in a run where there is none.

    Raises:
        UserError: it is a link, which would lead what is written or deleted elsewhere, or it cannot be made.
    """
    if path.is_symlink():
        raise UserError(f"'{path}' is a symbolic link, and nothing is written through it: remove it.")
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder '{path}' cannot be made ({error.strerror}).") from error


def _clean(parent: Path, prefix: str) -> None:
    """Remove this user's scratch folders whose owner is dead, however it ended."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # gone meanwhile
            status = folder.lstat()
            if folder.is_symlink() or not folder.is_dir() or status.st_uid != os.getuid():
                continue
            # what was moved aside is the user's own
            if not (folder / OLD).exists() and _is_free(folder / LOCK, status.st_mtime):
                shutil.rmtree(folder, ignore_errors=True)


def _is_free(lock: Path, made: float) -> bool:
    """Whether nobody holds a scratch folder's lock."""
    try:
        file = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return time.time() - made > DAY
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True
