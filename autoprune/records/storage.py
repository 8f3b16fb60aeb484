"""Where Optuna studies are kept: a journal file in the run's directory, or a database by its URL.

Errors of a database's driver become one sentence without a password.
"""

import random
import re
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from autoprune.config import STORAGE
from autoprune.errors import UserError
from autoprune.written import without_password

FILE = "study.log"
RACES = 5  # processes that make a new database's tables at the same time stumble over each other


def open_storage(run: Path, storage: str | None) -> BaseStorage:
    """The storage of a run's study.

    Args:
        run: the run's directory.
        storage: an Optuna URL; None is the file in the run's directory.

    Raises:
        UserError: the database cannot be opened, or the file is damaged.
        OSError: the file cannot be read or written.
    """
    if storage is not None:
        if "***" in storage:
            raise UserError(
                f"the Optuna storage '{storage}' needs its password, which no file keeps: give the whole URL again, "
                f"with --storage or in the environment variable {STORAGE}."
            )
        with explained(storage):
            return _database(storage)
    try:
        return JournalStorage(JournalFileBackend(str(run / FILE)))
    except OSError:
        raise
    except Exception as error:
        raise UserError(
            f"the study '{run / FILE}' is damaged ({reason(error)}): delete it, it is written again from the journal."
        ) from error


def check_storage(storage: str | None) -> None:
    """Raise a UserError unless the storage can be opened."""
    if storage is not None:
        release(open_storage(Path(), storage))


def _database(url: str) -> RDBStorage:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import DBAPIError

    try:
        host = make_url(url).host or ""
    except Exception:
        host = "@"  # the reason may hold a password
    if "@" in host:
        raise ValueError(
            "it must be as sqlite:///studies.db or postgresql+psycopg://user:password@host/name, "
            "special characters in a password as %40"
        )
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for _ in range(RACES):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except DBAPIError as error:
            if not re.search("already exists|unique", str(error), re.IGNORECASE):
                raise
            time.sleep(random.uniform(0.05, 0.2))
    return RDBStorage(url, engine_kwargs=options)


def release(storage: BaseStorage) -> None:
    """Close a database's connections."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def mend(path: Path) -> None:
    """Remove an incomplete last line and a lock that a killed process left behind. The run is locked by us."""
    for lock in path.parent.glob(path.name + ".lock*"):
        lock.unlink(missing_ok=True)
    if path.is_symlink():
        raise UserError(f"'{path}' is a symbolic link, and a run writes through none: remove it.")
    if path.is_file():
        raw = path.read_bytes()
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):
            with path.open("r+b") as file:
                file.truncate(whole)


@contextmanager
def explained(url: str | None) -> Iterator[None]:
    """Turn errors of a database's driver into one sentence; errors of a run's own file pass."""
    try:
        yield
    except Exception as error:
        if url is None:
            raise
        raise UserError(f"the Optuna storage '{without_password(url)}' cannot be used ({reason(error)}).") from error


class _Quiet:
    """Counts who wants it: what is set belongs to the whole process, and searches may be threads."""

    def __init__(self) -> None:
        self._lock, self._wanted, self._undo = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._wanted += 1
            if self._wanted == 1:
                self._undo.callback(optuna.logging.set_verbosity, optuna.logging.get_verbosity())
                optuna.logging.set_verbosity(optuna.logging.WARNING)
                self._undo.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore", ExperimentalWarning)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._wanted -= 1
            if not self._wanted:
                self._undo.close()


_QUIET = _Quiet()


def quiet() -> AbstractContextManager[None]:
    """Suppress Optuna's messages about new studies and about its own interface."""
    return _QUIET


def reason(error: BaseException) -> str:
    """The first line of what was at the bottom of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
