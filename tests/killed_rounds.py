"""A run of rounds that is killed by SIGKILL in every stage and resumed, beside one that is not.

A script, run by test_rounds.py in a process of its own: `killed_rounds.py SETTINGS FOLDER`.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from autoprune import rounds
from autoprune.callbacks import SILENT, Callback
from autoprune.config import load_config
from autoprune.networks import starting
from autoprune.training import loop

STAGES = (
    "loading the model", "round 1 of 2: loading the model", "scores", "round 1 of 2: timing", "steps", "start",
    "building levels", "last scores", "timing",
)  # fmt: skip
"""Where it is killed, in order; each names a stage, or an event of `Deadly`."""


class Deadly(Callback):
    """Kills its process in a stage."""

    def __init__(self, stage: str, run: Path) -> None:
        self._stage, self._run, self._scores = stage, run, 0

    def on_stage(self, stage: str, share: float) -> None:
        self._die(stage == self._stage)

    def on_scores(self, objective: Any) -> None:
        self._scores += objective.computed > 0
        first = objective.run != self._run
        self._die(self._scores == 3 and self._stage == ("scores" if first else "last scores"))

    def on_step(self, step: int, measures: Mapping[str, float]) -> None:
        self._die(self._stage == "steps" and step == 3)

    @staticmethod
    def _die(now: bool) -> None:
        if now:
            os.kill(os.getpid(), signal.SIGKILL)


def dying(save: Callable[..., None]) -> Callable[..., None]:
    """A function that kills its process when it has done its work."""

    def saved(*given: Any) -> None:
        save(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    return saved


def killed(stage: str, settings: dict[str, Any], run: Path) -> None:
    """The run, begun or resumed, in a process that dies in a stage."""
    child = os.fork()
    if not child:
        try:
            loop.SAVE_SECONDS = 0.0
            if stage == "start":  # the weights are there, and nothing says so yet
                starting.save_start = dying(starting.save_start)
            go(settings, run, Deadly(stage, run))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it was not killed in {stage}"


def go(settings: dict[str, Any], run: Path, callbacks: Callback) -> None:
    if (run / "config.yaml").is_file():
        rounds.resume(run, callbacks)
    else:
        rounds.start(load_config(None, settings), run, callbacks)


def main() -> None:
    settings, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    go(settings, folder / "whole", SILENT)
    for stage in STAGES:
        os.environ["AUTOPRUNE_CACHE"] = str(folder / "cache")
        killed(stage, settings, folder / "killed")
    go(settings, folder / "killed", SILENT)


if __name__ == "__main__":
    main()
