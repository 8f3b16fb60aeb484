"""Milliseconds of one forward pass, computed for a device from its data sheet, including embedding and head.

The time of a matrix is the larger of FLOPs / peak and bytes / bandwidth (Williams et al. 2009). The same holds for
attention with its cache of keys and values. Each kernel adds a launch. `workload.hardware` names a device in
`devices.yaml` or in a user's file. `workload.dtype` is the data type; the default is the search's own.

Assumptions: weights and cache are read once, activations between kernels stay on the chip, and attention reads the
whole
context, as in `macs`. A real network is slower. The model is meant to compare the parts of a network correctly.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from autoprune.errors import UserError
from autoprune.files.reading import explained, read_yaml
from autoprune.level import Level, form_of
from autoprune.ports.metric import Metric, Network, of_network
from autoprune.space import Unit
from autoprune.workload import Workload

DEVICES = Path(__file__).with_name("devices.yaml")
SUFFIXES = (".yaml", ".yml")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Device(BaseModel):
    """Numbers of a device: FLOP/s by dtype, bytes/s, seconds of a kernel at least."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flops: dict[str, Positive] = Field(min_length=1)
    bandwidth: Positive
    launch: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


@dataclass(frozen=True)
class Roofline(Metric):
    """The metric for one device.

    Args:
        device: its numbers.
        dtype: as torch names it, one of `device.flops`.
        outside: shape of the head's matrix, vocabulary and hidden size; zeros where there is none.
        workload: what the network will be run on.
    """

    device: Device
    dtype: str
    outside: tuple[int, int]
    workload: Workload

    measure = "ms"
    described = "'roofline'"
    whole = True

    @property
    def fixed(self) -> float:
        """Milliseconds of the head, its logits written, and of the embedding's rows."""
        vocabulary, hidden = self.outside
        tokens, size = self.workload.tokens, self._itemsize
        if not vocabulary:
            return 0.0
        head = self._seconds(tokens * vocabulary * hidden, (vocabulary * hidden + tokens * vocabulary) * size)
        embedding = self._seconds(0, tokens * hidden * size)
        return 1e3 * (head + embedding + 2 * self.device.launch)

    def __call__(self, unit: Unit, level: Level, workload: Workload) -> float:
        """Milliseconds of `unit` at a level: its matrices, and where it attends, the attention."""
        form = form_of(level)
        if form.drops(level):
            return 0.0
        tokens, positions = workload.tokens, workload.batch * workload.context
        # a unit's matrices have the same FLOPs for each byte, so the larger bound is the same for all: one sum
        macs = form.macs(unit, level, 0)
        seconds = self._seconds(tokens * macs, macs * self._itemsize)
        attention = tokens * (form.macs(unit, level, workload.context) - macs)
        seconds += self._seconds(attention, positions * form.cache(unit, level) * self._itemsize)
        return 1e3 * (seconds + form.kernels(unit, level) * self.device.launch)

    def _seconds(self, macs: float, nbytes: float) -> float:
        return max(2 * macs / self.device.flops[self.dtype], nbytes / self.device.bandwidth)

    @property
    def _itemsize(self) -> int:
        return int(getattr(torch, self.dtype).itemsize)


@of_network
def roofline(network: Network) -> Roofline:
    """The metric for the workload's hardware and dtype.

    Raises:
        UserError: the task does not support it, the hardware is not named or unknown, its file is not valid, or it has
            no peak for the dtype.
    """
    network.task.require("roofline")
    workload, model = network.workload, network.view.model
    device = device_of(workload.hardware)
    dtype = workload.dtype or str(next(model.parameters()).dtype).removeprefix("torch.")
    if dtype not in device.flops:
        known = ", ".join(device.flops)
        raise UserError(f"the device '{workload.hardware}' has no FLOP/s for {dtype}: set workload.dtype to {known}.")
    embeddings: Callable[[], Any] = getattr(model, "get_output_embeddings")
    head = embeddings()
    vocabulary, hidden = (0, 0) if head is None else head.weight.shape
    return Roofline(device, dtype, (int(vocabulary), int(hidden)), workload)


def device_of(hardware: str | None) -> Device:
    """A device by its name in `devices.yaml`, or of a file: `FILE.yaml`, or `FILE.yaml:NAME` where it has several.

    Raises:
        UserError: there is no such device (with near misses) or file, or the file is not of the form; names the key.
    """
    if not hardware:
        raise UserError(
            f"the budget roofline needs a device: workload.hardware={next(iter(read_devices(DEVICES)))}. "
            f"Known: {', '.join(read_devices(DEVICES))}; your own as FILE.yaml."
        )
    file, _, name = hardware.rpartition(":") if not hardware.endswith(SUFFIXES) else (hardware, "", "")
    if file and not file.endswith(SUFFIXES):
        file, name = "", hardware
    path = Path(file).expanduser() if file else DEVICES
    devices = read_devices(path)
    if not name and len(devices) == 1:
        return next(iter(devices.values()))
    if name in devices:
        return devices[name]
    near = difflib.get_close_matches(name, devices, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    wanted = f"no device is called '{name}'" if name else f"'{path}' has several devices: name one, as {path}:NAME"
    raise UserError(f"{wanted}.{hint} Known: {', '.join(devices)}; your own is given as FILE.yaml or FILE.yaml:NAME.")


def read_devices(path: Path) -> dict[str, Device]:
    """The devices of a YAML file by name.

    Raises:
        UserError: it cannot be read, is no YAML, or is not of the form; names the key.
    """
    with explained("the file of devices", path):
        devices = TypeAdapter(dict[str, Device]).validate_python(read_yaml(path))
    unknown = [(name, dtype) for name, one in devices.items() for dtype in one.flops if not _is_dtype(dtype)]
    if unknown:
        raise UserError(
            f"the file of devices '{path}': {unknown[0][0]}.flops.{unknown[0][1]}: torch has no such dtype."
        )
    if not devices:
        raise UserError(f"the file of devices '{path}': the file names none.")
    return devices


def _is_dtype(name: str) -> bool:
    return isinstance(getattr(torch, name, None), torch.dtype)
