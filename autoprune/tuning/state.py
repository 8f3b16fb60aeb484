"""What an interrupted training goes on with: one safetensors file, replaced as a whole.

Weights that are trained, buffers (statistics of BatchNorm), what the optimizer keeps of each weight, how many steps are
done, and of what training it is.
"""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.errors import UserError
from autoprune.tuning.settings import Tuning


class State:
    """The state of one training.

    Args:
        folder: holds `state.safetensors`; made when there is something to keep.
        student: what is trained.
        optimizer: of its weights that need gradients.
        tuning: the settings, which must not change on the way.
        mark: of what is trained, likewise.
    """

    def __init__(
        self, folder: Path, student: nn.Module, optimizer: torch.optim.Optimizer, tuning: Tuning, mark: str
    ) -> None:
        self._folder, self._file, self._optimizer = folder, folder / "state.safetensors", optimizer
        self._tuning, self._mark = asdict(tuning), mark
        self._weights = {name: p for name, p in student.named_parameters() if p.requires_grad}
        saved = student.state_dict().keys()
        self._buffers = {name: buffer for name, buffer in student.named_buffers() if name in saved}

    def keep(self, step: int) -> None:
        """Save, `step` steps being done; the state before stays until this one is whole.

        Raises:
            UserError: the disk is full or not writable.
        """
        tensors = {f"network.{name}": t.detach() for name, t in (self._weights | self._buffers).items()}
        for name, weight in self._weights.items():
            tensors |= {f"optimizer.{key}.{name}": t for key, t in self._optimizer.state[weight].items()}
        told = {"step": str(step), "tuning": json.dumps(self._tuning), "mark": self._mark}
        new = self._folder / "state.new"
        try:
            self._folder.mkdir(exist_ok=True)
            save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, new, told)
            new.replace(self._file)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise UserError(f"the state of fine-tuning could not be written to '{self._folder}' ({error}).") from error

    def restore(self) -> int:
        """Steps that are done; the state behind them is put in place.

        Raises:
            UserError: the file is damaged, or of another training.
        """
        if not self._file.exists():
            return 0
        try:
            with safe_open(self._file, framework="pt") as state:
                told = state.metadata()
                tensors = {name: state.get_tensor(name) for name in state.keys()}  # noqa: SIM118 (no mapping)
            step, before = int(told["step"]), {"refit": False} | json.loads(told["tuning"])
            changed = [f"{key}={value}" for key, value in before.items() if self._tuning.get(key) != value]
            if not changed:
                self._put(tensors, told["mark"])
        except (OSError, TypeError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"the state in '{self._folder}' is damaged, or of another policy ({reason}): delete it."
            ) from error
        if changed:
            raise UserError(
                f"'{self._folder}' holds a fine-tuning with {', '.join(changed)}: go on with the same settings, or "
                "delete it."
            )
        return step

    @torch.no_grad()
    def _put(self, tensors: dict[str, Tensor], mark: str) -> None:
        own = self._weights | self._buffers
        shapes = {f"network.{name}": tensor.shape for name, tensor in own.items()}
        found = {name: tensor.shape for name, tensor in tensors.items() if name.startswith("network.")}
        if mark != self._mark or shapes != found:
            raise ValueError(f"it is of {mark or 'other weights'}")
        for name, tensor in own.items():
            tensor.copy_(tensors.pop(f"network.{name}"))
        for key, tensor in tensors.items():
            _, kept, name = key.split(".", 2)
            weight = self._weights[name]
            # AdamW's count of steps stays on the CPU
            self._optimizer.state[weight][kept] = tensor.to(weight.device) if tensor.dim() else tensor
