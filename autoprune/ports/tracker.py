"""The port of a tracker, which writes the numbers of a run where people follow experiments."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autoprune.ports.adapting import part_class


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of the run that it is to follow.

    Args:
        folder: a folder of the run for files of trackers. It exists.
        name: of the run.
        kind: what is followed. A search counts steps in tokens or images spent, a recovery in training steps, and a
            comparison in searches that have ended.
        group: name of the comparison that the search belongs to; None where it belongs to none.
        settings: of the search or of the training. Values are texts, numbers, lists and mappings of them.
        id: what `start` returned when the run was begun; None for a run that begins.
    """

    folder: Path
    name: str
    kind: Literal["search", "comparison", "recovery"]
    group: str | None
    settings: Mapping[str, Any]
    id: str | None = None


class Tracker(ABC):
    """Writes the numbers of one run. A new object is made for every run, and for every time that one goes on.

    All methods but `check` are called by one thread, which is not the search's.

    What a tracker raises never ends a search. It is told as one warning, and the tracker is left out from then on.
    """

    @classmethod
    def check(cls) -> None:
        """Check that the tracker can be used, before the search begins. The default checks nothing.

        Raises:
            UserError: a package or a login is missing. The message says how to get it.
        """
        return None

    @abstractmethod
    def start(self, run: TrackedRun) -> str | None:
        """Begin with a run, or go on with it where `run.id` is given.

        Returns:
            A name by which the tracker finds the run again, or None.
        """

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers. They are finite.

        Args:
            step: never less than that of an earlier call, also before the run was interrupted.
            values: name -> number. Names are of the form `incumbent/loss`.
        """

    def finish(self) -> None:
        """The run has ended. The default does nothing."""
        return None


def load_tracker(name: str) -> type[Tracker]:
    """The tracker called `name`: registered, plugged in, `package.module:Object` or `file.py:Object`.

    Raises:
        UserError: it does not exist, cannot be imported, or lacks a method.
    """
    found: type[Tracker] = part_class(Tracker, "trackers", name)
    return found
