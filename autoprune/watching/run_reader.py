"""Follows the files of one run while another process writes them. A journal that grows is read once."""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from autoprune import rundir
from autoprune.config import SearchConfig, load_config
from autoprune.drawing.scales import thin
from autoprune.errors import UserError
from autoprune.files.reading import DAMAGE, explained, read_json, read_tail, reason
from autoprune.journal import FILE as JOURNAL
from autoprune.journal import decode_proposal
from autoprune.limits_of_runs import SPENT
from autoprune.reports.gathering import Gathering
from autoprune.reports.record import Best, Run, Spent
from autoprune.reports.run import record_of, space_of
from autoprune.space import SearchSpace
from autoprune.unit_statistics import UnitStatistics

State = Literal["preparing", "searching", "finished", "stopped", "ended", "damaged"]
"""`stopped` with a result that is not the last word, as after Ctrl-C or where a resume with other limits was killed;
`ended` without a result, as a killed run."""

SEARCHING = "searching"  # the stage that is none of the preparation
SPEED_OVER = 20.0  # seconds of which the speed is a mean
CHUNK = 2**20  # bytes of a journal that are read at once; more only for a line that is longer
PATIENCE = 1.0  # seconds after which a long journal is read on when the page asks again
OF_AN_END = ("config.yaml", "space.json", "policy.json", "result.json", "finetuned/result.json")
"""What is read of a run that has ended, beside its journal."""
POINTS = 4000  # of a curve, at most


@dataclass(frozen=True)
class Seen:
    """What is known of a run at one moment.

    Args:
        state: what the run is at.
        config: its configuration; None where that cannot be read.
        run: its record; None before its space is known.
        problem: what is wrong with its files, in a sentence.
        stage: what the preparation is at; None where that is not told.
        speed: tokens that are scored in a second now; None where nothing is scored.
        failed: the number of scores that failed.
    """

    state: State
    config: SearchConfig | None = None
    run: Run | None = None
    problem: str | None = None
    stage: str | None = None
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
    """Reads a run again and again. Several threads may ask at once: each waits for the others.

    Args:
        path: the run's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self._stamps: dict[str, object] = {}
        self._config: SearchConfig | None = None
        self._space: tuple[SearchSpace, list[UnitStatistics]] | None = None
        self._brief: tuple[list[tuple[int, int, int] | None], Seen] | None = None
        self._forget_journal()

    def read(self, brief: bool = False) -> Seen:
        """What is known of the run now. Files that are damaged become a sentence.

        Args:
            brief: leaves out the journal of a run that has ended; its result is enough for a table. What was known is
                given again while its files are the same: a folder may hold hundreds of runs, and is asked every second.
        """
        with self._lock:
            return self._known_or_read(brief)

    def _known_or_read(self, brief: bool) -> Seen:
        now = [stamp(self.path / name) for name in OF_AN_END]
        if brief and self._brief is not None and self._brief[0] == now and not rundir.is_in_use(self.path):
            return self._brief[1]
        seen = self._read(brief)
        self._brief = (now, seen) if brief and seen.state in ("finished", "stopped") else None
        return seen

    def _read(self, brief: bool) -> Seen:
        busy = rundir.is_in_use(self.path)
        told = self._told() if busy else None
        stage = None if told is None or told.stage == SEARCHING else f"{told.stage}, {told.share:.0%}"
        try:
            rundir.check_links(self.path)
            self._read_settings()
            if self._config is None or self._space is None:
                return Seen("preparing" if busy else "ended", self._config, stage=stage)
            if busy or not (brief and (self.path / "result.json").exists()):
                self._read_journal()
            run = record_of(self.path, self._config, *self._space, self._gathering, busy)
            run = replace(run, history=steps(run.history))
        except UserError as error:
            self._stamps.clear()  # it is read again
            return Seen("damaged", self._config, problem=str(error))
        except OSError as error:  # the run was removed
            return Seen("damaged", self._config, problem=f"'{self.path}' cannot be read ({error.strerror}).")
        if told is not None:
            run = told.applied(run)
        state: State = "searching" if stage is None and run.spent.evals else "preparing"
        if not busy:
            state = "ended" if run.result is None else "stopped" if self._was_interrupted() else "finished"
        speed = self._speed(run.spent.tokens) if busy else None
        return Seen(state, self._config, run, self._behind, stage, speed, self._gathering.failed)

    def _told(self) -> "_Told | None":
        """What the process tells of itself; None where it does not, as one of an earlier version."""
        try:
            return _Told.model_validate(read_json(self.path / rundir.STATE))
        except (OSError, *DAMAGE):
            return None

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
        end = time.monotonic() + PATIENCE
        while self._damage is None and self._read_chunk(path) and time.monotonic() < end:
            pass

    def _read_chunk(self, path: Path) -> bool:
        """Read some whole lines. What is half written waits. Returns whether there may be more."""
        size = CHUNK
        while True:
            with explained("the journal", path):
                raw = read_tail(path, self._offset, size)
            whole = raw[: raw.rfind(b"\n") + 1]
            if whole or len(raw) < size:
                break
            size *= 2
        for line in whole.decode("utf-8", "replace").splitlines():
            self._lines += 1
            try:
                self._gathering.read(line)
            except (UserError, *DAMAGE) as error:
                self._damage = (
                    f"line {self._lines} of the journal '{path}' is damaged ({reason(error)}). "
                    "What is shown was read before it. Restore the file, or delete that line and those after it."
                )
                return False
        self._offset += len(whole)
        return bool(whole)

    @property
    def _behind(self) -> str | None:
        """A sentence while the journal is not read to its end."""
        size = self._file[1] if self._file else 0
        if self._damage or size - self._offset <= CHUNK:  # the rest may be half written
            return self._damage
        return f"The journal is long and is still being read: {self._offset / size:.0%}."

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


class _Told(BaseModel):
    """`state.json` of a run."""

    stage: str
    share: float = Field(ge=0, le=1)
    spent: Spent | None = None
    best: dict[str, Any] | None = None

    def applied(self, run: Run) -> Run:
        """The record with what the search says that it has spent and found."""
        run = run if self.spent is None else replace(run, spent=self.spent)
        try:
            if self.best is None:
                return run
            proposal = decode_proposal(self.best)
            run.space.check(proposal)
            numbers = proposal if isinstance(proposal, tuple) else None
            sequences = max(1, int(self.best["tokens"]) // run.config.sequence_length)
            found = Best(tuple(run.space.levels_of(proposal)), numbers, float(self.best["loss"]), sequences)
        except (UserError, *DAMAGE):
            return run
        return replace(run, best=found)


def steps(history: Sequence[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    """The points of a curve at which the loss changes, and the last one: the same line in steps."""
    kept = [one for before, one in pairwise(history) if one[2] != before[2]]
    found = [*history[:1], *kept, *history[-1:]]
    return [found[i] for i in thin(len(found), POINTS)]


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does: its number, size and time; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
