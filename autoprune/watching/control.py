"""Stops and resumes searches for the page. A search is stopped by a file, and resumed by a process of its own."""

import os
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
        self._lock = threading.Lock()

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
            log = tempfile.TemporaryFile()  # noqa: SIM115 it is read as long as the page lives
            process = subprocess.Popen(command(run, limits), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env={**os.environ, "PYTHONUNBUFFERED": "1"}, start_new_session=True)  # fmt: skip
            self._started[run] = process, log
        end = time.monotonic() + SOON
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)

    def notice(self, run: Path) -> str | None:
        """What is to be told of the last command: that a search starts or stops, or why it could not go on."""
        if self._is_starting(run) and not rundir.is_in_use(run):
            return "The search is being resumed."
        if rundir.is_in_use(run):
            return "The search was asked to stop, and stops after the batch at work." if stopping.is_asked(run) else None
        process, log = self._started.get(run, (None, None))
        if process is None or log is None or process.returncode in (0, 130):
            return None
        log.seek(0)
        lines = log.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
        return f"The search could not go on: {lines[-1].removeprefix('autoprune: error: ')}" if lines else None

    def _is_starting(self, run: Path) -> bool:
        return run in self._started and self._started[run][0].poll() is None


def command(run: Path, limits: Limits) -> list[str]:
    """The command line that resumes a run."""
    given: Mapping[str, Any] = limits.model_dump(exclude_none=True)
    options = [f"--{name.replace('_', '-')}={given[name]}" for name in LIMITS if name in given]
    return [sys.executable, "-m", "autoprune", "resume", *options, "--", str(run.resolve())]
