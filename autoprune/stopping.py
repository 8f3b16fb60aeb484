"""How another process stops a search in order: a file `stop` in the run's directory, which the search looks for.

The search looks after every batch of scores and at every stage of its preparation. It removes the file and ends as by
Ctrl-C: with the best policy so far, and `autoprune resume` goes on. A file is safer than a signal, because a process
number that was read from a file may meanwhile be that of another process.
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


def obey(run: Path) -> None:
    """Raise KeyboardInterrupt if the search was asked to stop."""
    if is_asked(run):
        withdraw(run)
        raise KeyboardInterrupt


def heeding(run: Path, stage: Callable[[str, float], None]) -> Callable[[str, float], None]:
    """The callback of a stage, which also looks for the request."""

    def heard(name: str, share: float) -> None:
        obey(run)
        stage(name, share)

    return heard
