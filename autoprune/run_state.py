"""What a search is at, in the run's file `state.json`, for those who watch it. It is there while a process works.

    {"stage": "searching", "share": 0.25, "spent": {"evals": 12, "tokens": 4096, "seconds": 3.5},
     "best": {"levels": [0, 3, ...], "loss": 1.25, "tokens": 2048}}

`spent` and `best` are there once something is scored; of a mask, `"mask": "<hexadecimal>"` replaces the levels. `best`
is the answer that the search would give now, which the journal alone does not tell. The file is written at most once a
second, and for every new stage. What cannot be written is left out: the journal has all that resume needs.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune import stopping
from autoprune.errors import UserError
from autoprune.files.writing import write_atomically
from autoprune.rundir import STATE

if TYPE_CHECKING:
    from autoprune.objective import Objective

EVERY = 1.0  # seconds between two writings of one stage


class RunState:
    """Writes the file.

    Args:
        run: the run's directory.
    """

    def __init__(self, run: Path) -> None:
        self._path, self._stage, self._due = run / STATE, "", 0.0

    def stage(self, name: str, share: float) -> None:
        """A stage of the preparation, and the share of it that is done."""
        self._write(name, lambda: {"share": share})

    def scored(self, objective: "Objective") -> None:
        """The search after a batch."""
        self._write("searching", lambda: _told(objective))

    def _write(self, stage: str, told: Callable[[], dict[str, Any]]) -> None:
        now = time.monotonic()
        if stage == self._stage and now < self._due:
            return
        self._stage, self._due = stage, now + EVERY
        with suppress(UserError):
            write_atomically(self._path, json.dumps({"stage": stage} | told(), allow_nan=False) + "\n")


def preparing(run: Path, stage: Callable[[str, float], None]) -> Callable[[str, float], None]:
    """The callback of a stage of the preparation: it also writes the file, and looks whether the search is to stop."""
    state = RunState(run)

    def told(name: str, share: float) -> None:
        state.stage(name, share)
        stage(name, share)

    return stopping.heeding(run, told)


def _told(objective: "Objective") -> dict[str, Any]:
    from autoprune.mask import Mask

    found: dict[str, Any] = {"share": objective.progress, "spent": vars(objective.spent)}
    if objective.incumbents:
        policy = objective.incumbents[-1].proposal
        loss, tokens = objective.loss(policy)
        if math.isfinite(loss):
            levels = {"mask": policy.bits.hex()} if isinstance(policy, Mask) else {"levels": policy}
            found["best"] = levels | {"loss": loss, "tokens": tokens}
    return found
