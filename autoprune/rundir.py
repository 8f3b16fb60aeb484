"""A run's directory: `runs/<name>/`, used by one process at a time.

It holds `config.yaml`, `journal.jsonl`, and once finished `policy.json` and `result.json` (runs/README.md).
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from autoprune import stopping
from autoprune.errors import UserError
from autoprune.files.names import slug
from autoprune.files.near import did_you_mean
from autoprune.files.writing import open_unlinked

FOLDERS = ("front", "finetuned", "tracking", "rounds")
"""Of a run, that it writes to."""

OPTUNA_LOCK = "study.log.lock"
STATE = "state.json"  # what the process at work tells of itself (run_state.py)
ATTEMPTS, PAUSE = 10, 0.02  # seconds; whoever asks `is_in_use` holds the lock for a moment


def new_run_path(agent: str, seed: int) -> Path:
    """A new path `runs/<date>-<agent>-s<seed>`, with a number if that exists."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{slug(agent.rpartition(':')[2])}-s{seed}"
    candidates = [Path("runs") / stem, *(Path("runs") / f"{stem}-{i}" for i in range(2, 1000))]
    return next(path for path in candidates if not path.exists())


def create(path: Path) -> None:
    """Make a new run's directory.

    Raises:
        UserError: it holds a run already, or cannot be made.
    """
    if (path / "config.yaml").exists():
        raise UserError(
            f"'{path}' holds a run already: `autoprune resume {path}` goes on with it, or choose another --out."
        )
    if (path / "config.json").exists():
        raise UserError(f"'{path}' holds a network, whose files a run would lie among: choose another --out.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # a probe
            pass
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        why = getattr(error, "strerror", None) or error
        raise UserError(f"the run directory '{path}' cannot be written ({why}): choose another --out.") from error


def discard(path: Path) -> None:
    """Undo `create` for a run that never began, so that the corrected command can use the same path."""
    _forget_process(path)
    for name in ("config.yaml", ".lock"):
        (path / name).unlink(missing_ok=True)
    with suppress(OSError):  # the user's own folder may hold other things
        path.rmdir()


def policy_path(path: Path) -> Path:
    """The policy of a finished run.

    Raises:
        UserError: the run has no policy yet, there is no run, or it is a comparison of several.
    """
    policy = path / "policy.json"
    if not policy.is_file():
        check_is_run(path)
        runs = [one.parent for one in sorted(path.glob("*/policy.json")) if (one.parent / "config.yaml").is_file()]
        if runs:
            raise UserError(
                f"'{path}' is a comparison, which has no policy of its own: give one of its runs, as {runs[0]}."
            )
        raise UserError(f"the run '{path}' has no policy yet: `autoprune resume {path}` goes on with it.")
    return policy


def check_is_run(path: Path) -> None:
    """Raise a UserError unless a run was started there."""
    if not (path / "config.yaml").is_file():
        why = "it has no config.yaml" if path.exists() else "there is nothing of that name"
        if (path / "config.json").is_file():
            why += ". It holds a network: give the directory that `autoprune search` named as the run"
        raise UserError(f"'{path}' is no run: {why}.{'' if path.exists() else did_you_mean(path)}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the run for this process. The lock ends with the process.

    Raises:
        UserError: another process holds it, the directory is read-only, or a link stands where the run writes.
    """
    check_links(path)
    try:
        file = open_unlinked(path / ".lock", "a+")
    except OSError as error:
        raise UserError(f"the run directory '{path}' cannot be written ({error.strerror}).") from error
    with file:
        if not _take(file):
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise UserError(f"the run '{path}' is in use by another process (pid {owner}).")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _forget_process(path)
        try:
            yield
        finally:
            _forget_process(path)


def _forget_process(path: Path) -> None:
    """Remove what was asked of a process and what it told of itself."""
    stopping.withdraw(path)
    (path / STATE).unlink(missing_ok=True)


def _take(file: IO[str]) -> bool:
    for attempt in range(ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(PAUSE * (attempt < ATTEMPTS - 1))
    return False


def is_in_use(path: Path) -> bool:
    """Whether a process works on the run. The answer is of this moment."""
    try:
        with (path / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def check_links(path: Path) -> None:
    """Raise a UserError where a symbolic link stands for a file of a run, or for a folder that it writes to.

    Someone else may have put it there to redirect what is written or deleted. Optuna's lock is also such a link, which
    a killed process leaves behind; it is removed before the study is opened (records/storage.py).
    """
    for entry in path.iterdir() if path.is_dir() else ():
        if entry.name.startswith(OPTUNA_LOCK):
            continue
        if entry.is_symlink() and (entry.name in FOLDERS or not entry.is_dir()):
            raise UserError(f"'{entry}' is a symbolic link, and a run writes through none: remove it.")
