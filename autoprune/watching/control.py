"""Stops and resumes searches for the page. A search is stopped by a file, and resumed by a process of its own."""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field

from autoprune import rundir, stopping
from autoprune.config import LIMITS
from autoprune.errors import UserError

SOON = 0.5  # seconds in which a command that cannot begin has often ended


class Limits(BaseModel):
    """New limits of a search; None leaves one as it is."""

    model_config = ConfigDict(extra="forbid")

    max_evals: int | None = Field(None, gt=0)
    max_tokens: int | None = Field(None, gt=0)
    max_time: float | None = Field(None, gt=0, allow_inf_nan=False)


class Control:
    """The commands of one page, and the processes that it has started. They go on when the page ends."""

    def __init__(self) -> None:
        self._started: dict[Path, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        self._ended: dict[Path, str] = {}
        self._lock = threading.RLock()  # a page asks in one thread while another waits for a command

    def stop(self, run: Path) -> None:
        """Ask the search of a run or of a comparison to stop.

        Raises:
            UserError: no process works on it, or its directory is not writable.
        """
        if not rundir.is_in_use(run):
            raise UserError(f"no process works on '{run}'.")
        try:
            stopping.ask(run)
        except OSError as error:
            raise UserError(f"the run directory '{run}' cannot be written ({error.strerror}).") from error

    def resume(self, run: Path, limits: Limits) -> None:
        """Begin `autoprune resume` in a process of its own, perhaps with other limits.

        Raises:
            UserError: a process works on the run, or the command ended at once.
        """
        with self._lock:
            if rundir.is_in_use(run) or self._is_starting(run):
                raise UserError(f"a process works on '{run}' already.")
            self._ended.pop(run, None)
            log = tempfile.TemporaryFile()  # noqa: SIM115 it is read when the process has ended
            process = subprocess.Popen(  # noqa: S603 no shell reads it
                command(run, limits), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            self._started[run] = process, log
        end = time.monotonic() + SOON
        while time.monotonic() < end and self._is_starting(run):
            time.sleep(0.05)

    def notice(self, run: Path) -> str | None:
        """What is to be told of the last command: that a search starts or stops, or why it could not go on."""
        starting = self._is_starting(run)
        if rundir.is_in_use(run):
            return (
                "The search was asked to stop, and stops after the batch at work." if stopping.is_asked(run) else None
            )
        return "The search is being resumed." if starting else self._ended.get(run)

    def _is_starting(self, run: Path) -> bool:
        """Whether a process that was started here is at work; what one that has ended said is kept."""
        with self._lock:
            if run not in self._started:
                return False
            process, log = self._started[run]
            if process.poll() is None:
                return True
            with self._started.pop(run)[1]:
                log.seek(0)
                lines = log.read().decode("utf-8", "replace").strip().splitlines()
            if process.returncode not in (0, 130) and lines:
                self._ended[run] = f"The search could not go on: {lines[-1].removeprefix('autoprune: error: ')}"
            return False


def command(run: Path, limits: Limits) -> list[str]:
    """The command line that resumes a run."""
    given: Mapping[str, Any] = limits.model_dump(exclude_none=True)
    options = [f"--{name.replace('_', '-')}={given[name]}" for name in LIMITS if name in given]
    return [sys.executable, "-m", "autoprune", "resume", *options, "--", str(run.resolve())]
