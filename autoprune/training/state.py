"""The saved state of a training: one safetensors file, which is always replaced as a whole.

It has the trained weights, the buffers (statistics of BatchNorm), the optimizer's state, the number of steps done, and
the settings and the mark of the training.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.errors import UserError
from autoprune.files.arrays import open_tensors, read_tensors
from autoprune.files.reading import DAMAGE, parse_json, reason
from autoprune.files.writing import own_folder, replacing
from autoprune.training.settings import TrainingSettings
from autoprune.training.team import ALONE, Team

FILE = "state.safetensors"
OF_EARLIER_FILES = {field.name: field.default for field in fields(TrainingSettings)} | {"refit": False}
"""What settings that a file does not name were when it was written."""
SIZES = ("batch", "accumulate", "workers")
"""A training goes on with other values of these if their product is the same. It then ends the same up to rounding."""


class State:
    """The state of one training.

    Args:
        folder: folder of `state.safetensors`. It is made when a state is saved.
        student: the network that is trained.
        optimizer: the optimizer of its trainable weights.
        settings: the settings, which must not change.
        mark: the mark of what is trained, which must not change.
        team: the processes that train together. The first one writes, and all of them restore.
    """

    def __init__(
        self,
        folder: Path,
        student: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: TrainingSettings,
        mark: str,
        team: Team = ALONE,
    ) -> None:
        self._folder, self._optimizer, self._team = folder, optimizer, team
        self._settings, self._mark = asdict(settings), mark
        self._weights = {name: p for name, p in student.named_parameters() if p.requires_grad}
        saved = student.state_dict().keys()
        self._buffers = {name: buffer for name, buffer in student.named_buffers() if name in saved}

    def keep(self, step: int, seconds: float) -> None:
        """Save the state after `step` steps and `seconds` seconds. The earlier state stays until this one is complete.

        Raises:
            UserError: the disk is full or not writable.
        """
        tensors = {f"network.{name}": t for name, t in (self._weights | self._buffers).items()}
        for name, weight in self._weights.items():
            tensors |= {f"optimizer.{key}.{name}": t for key, t in self._optimizer.state[weight].items()}
        tensors = {name: self._team.whole(tensor).contiguous() for name, tensor in tensors.items()}
        if self._team.rank:
            return
        told = {"step": str(step), "seconds": repr(seconds), "tuning": json.dumps(self._settings), "mark": self._mark}
        own_folder(self._folder)
        try:
            with replacing(self._folder / FILE) as new:
                save_file(tensors, new, told)
        except (OSError, SafetensorError) as error:
            raise UserError(f"the state of fine-tuning could not be written to '{self._folder}' ({error}).") from error

    def restore(self) -> tuple[int, float]:
        """Restore the state. Returns the number of steps done and the seconds that they took.

        Raises:
            UserError: the file is damaged, or of another training.
        """
        step, seconds = done(self._folder, self._settings, self._mark)
        if step:
            with _explained(self._folder):
                self._put(read_tensors(self._folder / FILE))
        return step, seconds

    @torch.no_grad()
    def _put(self, tensors: dict[str, Tensor]) -> None:
        own = self._weights | self._buffers
        shapes = {f"network.{name}": tensor.shape for name, tensor in own.items()}
        found = {name: tensor.shape for name, tensor in tensors.items() if name.startswith("network.")}
        if shapes != found:
            raise ValueError("it is of other weights")
        for name, tensor in own.items():
            self._team.put(tensors.pop(f"network.{name}"), tensor)
        for key, tensor in tensors.items():
            _, kept, name = key.split(".", 2)
            weight = self._weights[name]
            self._optimizer.state[weight][kept] = self._team.as_state(tensor, weight)


def done(folder: Path, settings: Mapping[str, Any], mark: str) -> tuple[int, float]:
    """Steps and seconds of the state in a folder; 0 if there is none. Weights are not read.

    Args:
        folder: as in `State`.
        settings: all settings of the training that would continue, by name.
        mark: the mark of what would be trained.

    Raises:
        UserError: the file is damaged, or of another training.
    """
    if not (folder / FILE).exists():
        return 0, 0.0
    with _explained(folder):
        with open_tensors(folder / FILE) as state:
            told = state.metadata()
        step, seconds = int(told["step"]), float(told.get("seconds", 0))
        before = OF_EARLIER_FILES | parse_json(told["tuning"])
        if told["mark"] != mark:
            raise ValueError(f"it is of {told['mark'] or 'other weights'}")
    free = {"save_every", "save_adapters", "sharding", "law"}
    examples = _examples(before)
    if examples is not None and examples == _examples(settings):
        free |= set(SIZES)
    changed = [f"{key}={value}" for key, value in before.items() if key not in free and settings.get(key) != value]
    if changed:
        raise UserError(
            f"'{folder}' holds a fine-tuning with {', '.join(changed)}: go on with the same settings, or delete it."
        )
    return step, seconds


def _examples(settings: Mapping[str, Any]) -> int | None:
    """Number of examples in a step, however they are spread over workers and parts of it; None if it is not said."""
    sizes = [size for name in SIZES if isinstance(size := settings.get(name), int)]
    return math.prod(sizes) if len(sizes) == len(SIZES) else None


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, *DAMAGE) as error:
        raise UserError(
            f"the state in '{folder}' is damaged, or of another policy ({reason(error)}): delete it."
        ) from error
