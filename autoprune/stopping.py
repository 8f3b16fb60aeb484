"""How another process stops a search in order: a file `stop` in the run's directory, which the search looks for.

The search looks after every batch of scores and at every stage of its preparation. It removes the file and ends with
the best policy so far, as a callback ends it (`Objective.stop`); `autoprune resume` goes on. A file is safer than a
signal, because a process number that was read from a file may meanwhile be that of another process.
"""

from collections.abc import Callable
from pathlib import Path

FILE = "stop"


def ask(run: Path) -> None:
    """Ask the search of a run, or of a comparison, to stop.

    Raises:
        OSError: the directory is not writable.
    """
    (run / FILE).touch()


def is_asked(run: Path) -> bool:
    """Whether the search was asked to stop and has not seen it yet."""
    return (run / FILE).exists()


def withdraw(run: Path) -> None:
    """Remove the request, if there is one."""
    (run / FILE).unlink(missing_ok=True)


def heard(run: Path) -> bool:
    """Whether the search was asked to stop. The request is then removed: the search is about to stop."""
    asked = is_asked(run)
    if asked:
        withdraw(run)
    return asked


def heeding(run: Path, stage: Callable[[str, float], None]) -> Callable[[str, float], None]:
    """The callback of a stage, which raises KeyboardInterrupt if the search was asked to stop."""

    def told(name: str, share: float) -> None:
        if heard(run):
            raise KeyboardInterrupt
        stage(name, share)

    return told
