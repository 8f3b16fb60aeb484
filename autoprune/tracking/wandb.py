"""Weights & Biases: a run of the project `autoprune`, or of WANDB_PROJECT; WANDB_MODE=offline keeps it in the run."""

import contextlib
import importlib.util
import os
import uuid
from collections.abc import Mapping
from typing import Any

from autoprune.errors import UserError
from autoprune.ports.tracker import TrackedRun, Tracker

SECONDS = 30.0
"""How long the beginning of a run may take; its end may take twice as long."""


class WeightsAndBiases(Tracker):
    """Numbers and settings. Nothing else of this machine is sent: no code, no output, no statistics of the system."""

    _run: Any

    @classmethod
    def check(cls) -> None:
        """Look for the package and, unless it is offline, for a login. Nothing is asked for.

        Raises:
            UserError: one of them is missing.
        """
        if importlib.util.find_spec("wandb") is None:
            raise UserError("track=wandb needs the package wandb: pip install 'autoprune[track]'.")
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        if _mode() not in ("offline", "disabled") and not _logged_in(wandb):
            raise UserError(
                "track=wandb has no login here: `wandb login` makes one, and WANDB_MODE=offline needs none and keeps "
                "everything in the run (`wandb sync` sends it later)."
            )

    def start(self, run: TrackedRun) -> str:
        """Begin a run, or go on with the one of this name."""
        import wandb

        name = run.id or uuid.uuid4().hex[:12]
        online: dict[str, Any] = {} if _mode() == "offline" else {"resume": "allow"}
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "autoprune"), name=run.name, group=run.group, job_type=run.kind,
            id=name, dir=str(run.folder), config=dict(run.settings), **online,
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, save_code=False,
                x_disable_stats=True, x_disable_meta=True, x_save_requirements=False, reinit="create_new",
                init_timeout=SECONDS, finish_timeout=2 * SECONDS,
            ),
        )  # fmt: skip
        return name

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step become one row."""
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        """Send or write what is left."""
        self._run.finish()


def _mode() -> str:
    """`online`, or what WANDB_MODE or `wandb offline` says."""
    import wandb

    settings: Any = wandb.setup().settings
    return os.environ.get("WANDB_MODE") or str(settings.mode)


def _logged_in(wandb: Any) -> bool:
    with contextlib.suppress(Exception):  # it is offline, or the key is refused: the beginning of the run tells
        return bool(wandb.login(prompt=False))
    return True
