"""TensorBoard: event files in the run, `tensorboard --logdir RUN/tracking/tensorboard`."""

import importlib.util
import json
from collections.abc import Mapping
from typing import Any

from autoprune.errors import UserError
from autoprune.ports.tracker import TrackedRun, Tracker


class TensorBoard(Tracker):
    """Scalars, and the settings as a text. A run that goes on has one more file in the same folder."""

    _writer: Any

    @classmethod
    def check(cls) -> None:
        """Look for the package.

        Raises:
            UserError: it is not installed.
        """
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("track=tensorboard needs the package tensorboard: pip install 'autoprune[track]'.")

    def start(self, run: TrackedRun) -> str:
        """Open an event file."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard" / run.kind))
        if run.id is None:
            text = json.dumps(run.settings, indent=1, default=str)
            self._writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()))
        return run.kind

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars, and hand them to the operating system."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()
