"""Follows the files of one run while another process writes them. A journal that grows is read once."""

import math
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoprune import rundir
from autoprune.config import SearchConfig, load_config
from autoprune.errors import UserError
from autoprune.files.reading import DAMAGE, explained, read_json, read_tail
from autoprune.journal import FILE as JOURNAL
from autoprune.limits_of_runs import SPENT
from autoprune.reports.gathering import Gathering
from autoprune.reports.record import Run
from autoprune.reports.run import record_of, space_of
from autoprune.space import SearchSpace
from autoprune.unit_statistics import UnitStatistics

State = Literal["preparing", "searching", "finished", "stopped", "ended", "damaged"]
"""`stopped` in order, as by Ctrl-C; `ended` without a result, as a killed run."""

SPEED_OVER = 20.0  # seconds of which the speed is a mean
MOST = 2**26  # bytes of a journal that are read at once


@dataclass(frozen=True)
class Seen:
    """What is known of a run at one moment.

    Args:
        state: what the run is at.
        config: its configuration; None where that cannot be read.
        run: its record; None before its space is known.
        problem: what is wrong with its files, in a sentence.
        speed: tokens that are scored in a second now; None where nothing is scored.
        failed: the number of scores that failed.
    """

    state: State
    config: SearchConfig | None = None
    run: Run | None = None
    problem: str | None = None
    speed: float | None = None
    failed: int = 0

    @property
    def share(self) -> float:
        """Share of the tightest limit that is spent, in [0, 1]; 0 without limits."""
        if self.run is None:
            return 0.0
        pairs = [(getattr(self.run.spent, spent), getattr(self.run.config, limit)) for limit, spent in SPENT.items()]
        return min(1.0, max((spent / limit for spent, limit in pairs if limit), default=0.0))

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the tightest limit is reached; None where that is not known."""
        if self.run is None or self.state != "searching" or not self.share:
            return None
        return self.run.spent.seconds * (1 - self.share) / self.share


class RunReader:
    """Reads a run again and again.

    Args:
        path: the run's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps: dict[str, object] = {}
        self._config: SearchConfig | None = None
        self._space: tuple[SearchSpace, list[UnitStatistics]] | None = None
        self._forget_journal()

    def read(self) -> Seen:
        """What is known of the run now. Files that are damaged become a sentence."""
        busy = rundir.is_in_use(self.path)
        try:
            rundir.check_links(self.path)
            self._read_settings()
            if self._config is None or self._space is None:
                return Seen("preparing" if busy else "ended", self._config)
            self._read_journal()
            run = record_of(self.path, self._config, *self._space, self._gathering, busy)
        except UserError as error:
            self._stamps.clear()  # it is read again
            return Seen("damaged", self._config, problem=str(error))
        except OSError as error:  # the run was removed
            return Seen("damaged", self._config, problem=f"'{self.path}' cannot be read ({error.strerror}).")
        state: State = "searching" if run.scored or self._gathering.spent.evals else "preparing"
        if not busy:
            state = "ended" if run.result is None else "stopped" if self._was_interrupted() else "finished"
        speed = self._speed(run.spent.tokens) if busy else None
        return Seen(state, self._config, run, self._damage, speed, self._gathering.failed)

    def _read_settings(self) -> None:
        """Read the configuration and the space if they have changed."""
        if self._changed("config.yaml"):
            rundir.check_is_run(self.path)
            self._config = load_config(self.path / "config.yaml")
            self._forget_journal()
        if self._changed("space.json"):
            self._space = space_of(self.path) if (self.path / "space.json").exists() else None
            self._forget_journal()

    def _changed(self, name: str) -> bool:
        """Whether a file has changed since it was last asked about."""
        now = stamp(self.path / name)
        changed = self._stamps.get(name, "never") != now
        self._stamps[name] = now
        return changed

    def _forget_journal(self) -> None:
        self._offset, self._lines = 0, 0
        self._file: tuple[int, int, int] | None = None
        self._damage: str | None = None
        self._speeds: deque[tuple[float, int]] = deque()
        self._gathering: Gathering
        if self._config is not None and self._space is not None:
            self._gathering = Gathering(self._space[0], self._config.sequence_length)

    def _read_journal(self) -> None:
        path = self.path / JOURNAL
        now = stamp(path)
        if now is None:
            return
        replaced = self._file is not None and (now[0] != self._file[0] or now[1] < self._offset)
        if replaced or (self._damage and now != self._file):
            self._forget_journal()
        self._file = now
        for line in self._new_lines(path) if self._damage is None else ():
            self._lines += 1
            try:
                self._gathering.read(line)
            except (UserError, *DAMAGE) as error:
                self._damage = (
                    f"line {self._lines} of the journal '{path}' is damaged ({error}). What is shown was read before "
                    "it. Restore the file, or delete that line and those after it."
                )
                return

    def _new_lines(self, path: Path) -> Iterator[str]:
        """Whole lines that were not read yet; what is half written waits."""
        while True:
            with explained("the journal", path):
                raw = read_tail(path, self._offset, MOST)
            whole = raw[: raw.rfind(b"\n") + 1]
            if not whole:
                return
            self._offset += len(whole)
            yield from whole.decode("utf-8", "replace").splitlines()

    def _was_interrupted(self) -> bool:
        with explained("the result", self.path / "result.json"):
            return bool(read_json(self.path / "result.json").get("interrupted", False))

    def _speed(self, tokens: int) -> float | None:
        """The speed over the last seconds."""
        now = time.monotonic()
        self._speeds.append((now, tokens))
        while len(self._speeds) > 2 and now - self._speeds[0][0] > SPEED_OVER:
            self._speeds.popleft()
        since, known = self._speeds[0]
        return (tokens - known) / (now - since) if now > since and math.isfinite(tokens) else None


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does: its number, size and time; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
