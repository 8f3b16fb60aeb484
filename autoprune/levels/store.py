"""The level store: the order of every unit's groups and its consumer's weights at every level. It is built once.

It is in `<cache>/levels/<key>/`. The key is a hash of model, data, levels and criterion. Each unit has one file
`<unit>.safetensors` (the slug of its name, files/names.py):

- `order` `[G]`: the groups, the most important first;
- `level.<l>`, if the criterion reconstructs: the consumer's weight at level l in the module's own layout, columns in
  `order`;
- `norm.<l>`, if BatchNorm follows the consumer: its mean and variance at level l;
- other names of the form of level l (form.py), and `behind.order`, ... for a width behind.

`manifest.json` is written last. It has the units' statistics and the seals of the files (seal.py). Files are
memory-mapped. Version, units, sizes, shapes and orders are checked before use. Weights are rounded to the checkpoint's
dtype, so that what is scored is what is shipped.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from autoprune.cutting import reading
from autoprune.cutting.counting import weights_of
from autoprune.cutting.live import LevelWeights, LiveWidth
from autoprune.errors import UserError
from autoprune.files.arrays import read_tensors
from autoprune.files.names import slug
from autoprune.files.reading import explained, read_json
from autoprune.files.writing import BUILDING, scratch
from autoprune.levels.criterion import Reconstruction, order_of, workspace_bytes
from autoprune.levels.ends import end_of
from autoprune.levels.evidence import Evidence
from autoprune.levels.form import Building, live_form
from autoprune.levels.matrices import UnitBuilding
from autoprune.levels.measure_unit import measure
from autoprune.levels.seal import SMALL, Seal, check, sealed
from autoprune.levels.tensors import BEHIND, orders_of, owned, weights_by_level
from autoprune.networks.blocks import BlockView
from autoprune.ports.criterion import Criterion
from autoprune.space import Unit
from autoprune.unit_statistics import UnitStatistics

VERSION: Literal[4] = 4


def store_key(units: Sequence[Unit], *parts: str) -> str:
    """The name of a store: a hash of its units' levels and of `parts` (model, data and criterion)."""
    levels = [[unit.name, unit.groups, [level.key for level in unit.levels]] for unit in units]
    described = [VERSION, levels, *parts]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


class _Manifest(BaseModel):
    """`manifest.json`."""

    version: Literal[4]
    units: list[str]
    files: list[Seal]
    statistics: list[UnitStatistics]

    def check(self, units: Sequence[Unit]) -> None:
        """Raise a ValueError where it is of other units."""
        if self.units != [unit.name for unit in units]:
            raise ValueError("it is of other units")
        if [len(one.output_errors) for one in self.statistics] != [len(unit.levels) for unit in units]:
            raise ValueError("its statistics are of other levels")


def _check_unit(unit: Unit, tensors: dict[str, Tensor]) -> None:
    """Raise a ValueError unless the tensors of a unit's file are orders of its groups and weights of its levels."""
    if "order" not in tensors:
        raise ValueError(f"{unit.name} has no order")
    for name, tensor in tensors.items():
        what, _, number = name[len(BEHIND) * name.count(BEHIND) :].partition(".")
        if what == "order":
            fits = tensor.dtype == torch.int64 and tensor.shape == (unit.groups,)
            fits = fits and torch.equal(tensor.sort().values.cpu(), torch.arange(unit.groups))
        else:
            level = unit.levels[int(number)] if number.isdecimal() and int(number) < len(unit.levels) else None
            fits = level is not None and live_form(level).fits(level, what, tensor)
        if not fits:
            raise ValueError(f"{name} of {unit.name} is {tensor.dtype} {tuple(tensor.shape)} and does not fit the unit")


class LevelStore:
    """A store on disk, opened read-only and mapped.

    Args:
        directory: where `build` put it.
        device: tensors are handed out on this device; on a CPU they are views of the mapped files.

    Attributes:
        units: with all levels that are stored.
        chosen: the numbers of the levels that are handed out, of each unit; None is all.

    Raises:
        UserError: the store is incomplete or damaged.
    """

    def __init__(self, directory: Path, units: Sequence[Unit], device: str = "cpu") -> None:
        self.directory, self.device = directory, device
        self.units = tuple(units)
        self.chosen: list[list[int]] | None = None
        self._tensors: list[dict[str, Tensor]] = []
        self.statistics: tuple[UnitStatistics, ...] = ()
        with explained("the level store", directory, "delete that folder"):
            manifest = _Manifest.model_validate(read_json(directory / "manifest.json"))
            manifest.check(units)
            self.statistics = tuple(manifest.statistics)
            small = sum(seal.size for seal in manifest.files) <= SMALL
            for unit, seal in zip(units, manifest.files, strict=True):
                check(directory / file_of(unit), seal, whole=small)
                self._tensors.append(read_tensors(directory / file_of(unit), device))
                _check_unit(unit, self._tensors[-1])
        tables = list(zip(self._tensors, units, strict=True))
        self._weights = [weights_by_level(tensors, len(unit.levels)) for tensors, unit in tables]
        self._own = [owned(tensors, unit.levels) for tensors, unit in tables]

    def choosing(self, chosen: Sequence[Sequence[int]]) -> "LevelStore":
        """The same store with some levels of each unit, by their numbers. They are numbered anew."""
        own = copy.copy(self)
        own.chosen = [list(some) for some in chosen]
        own._weights = [[row[number] for number in some] for row, some in zip(self._weights, chosen, strict=True)]
        own._own = [[row[number] for number in some] for row, some in zip(self._own, chosen, strict=True)]
        own.statistics = tuple(
            replace(one, output_errors=tuple(one.output_errors[number] for number in some))
            for one, some in zip(self.statistics, chosen, strict=True)
        )
        return own

    def order(self, u: int) -> Tensor:
        """Groups of unit `u`, most important first, `[G]`."""
        return self._tensors[u]["order"]

    def orders(self, u: int) -> list[Tensor]:
        """The same of its width and of those behind."""
        return orders_of(self._tensors[u])

    def consumer(self, u: int, level: int) -> Tensor | None:
        """The reconstructed weight of unit `u`'s consumer, or None where the dense weight's prefix serves."""
        return self._weights[u][level].consumer

    def weights(self, u: int, level: int) -> LevelWeights:
        """The weights that a level of unit `u` puts in place."""
        return self._weights[u][level]

    def own(self, u: int, level: int) -> Mapping[str, Tensor]:
        """What the form of a level of unit `u` keeps besides weights."""
        return self._own[u][level]

    def kept_groups(self, u: int, kept: int) -> list[int]:
        """The numbers of the `kept` most important groups in the original network, ascending."""
        return sorted(int(g) for g in self.order(u)[:kept])


def file_of(unit: Unit) -> str:
    """The name of a unit's file."""
    return f"{slug(unit.name)}.safetensors"


def is_complete(directory: Path) -> bool:
    """Whether a store was finished there."""
    return (directory / "manifest.json").is_file()


def build(
    directory: Path,
    view: BlockView,
    units: Sequence[Unit],
    moments: Iterable[Sequence[Tensor]],
    criterion: Criterion,
    dtype: torch.dtype,
    progress: Callable[[float], None] | None = None,
    evidence: Sequence[Sequence[Evidence]] | None = None,
    inputs: Iterable[Mapping[str, Tensor]] | None = None,
) -> None:
    """Compute every level of every unit and put the finished store in `directory` in one step.

    Args:
        moments: per block and width, and those behind it, `[D, D]`; a block's are let go of when its levels are done.
        dtype: the checkpoint's, which weights are rounded to.
        evidence: what the criterion needs besides, in the order of the moments; None: nothing.
        inputs: per block, what producers read (calibration/inputs.py); None where no form needs it.

    Raises:
        UserError: the disk is full or not writable.
    """
    widths = [width for row in view.widths for width in row]
    widths += view.ends[: len(units) - len(widths)]
    known: Iterable[Evidence] = chain.from_iterable(evidence) if evidence else repeat({})
    of_link = zip(chain.from_iterable(moments), known, strict=False)
    statistics: list[dict[str, Any]] = []
    read, at_block = iter(inputs or ()), -1
    of_block: Mapping[str, Tensor] = {}
    with _building(directory) as temporary:
        for done, (unit, width) in enumerate(zip(units, widths, strict=True)):
            with view.bench(_workspace(width)) as device:
                if unit.block == len(view.blocks):
                    levels, measured = end_of(unit, width, dtype)
                else:
                    if device.type == "cpu":
                        view.rest()
                    else:
                        view.enter(unit.block)
                    of_links = [next(of_link) for _ in width.links]
                    while inputs is not None and at_block < unit.block:  # some blocks have no units
                        at_block, of_block = at_block + 1, next(read)
                    levels, measured = _unit(unit, width, of_links, criterion, dtype, of_block)
                statistics.append(asdict(measured))
            save_file(levels, temporary / file_of(unit))
            if progress:
                progress((done + 1) / len(units))
        files = [sealed(temporary / file_of(unit)) for unit in units]
        manifest = {"version": VERSION, "units": [unit.name for unit in units], "files": files}
        (temporary / "manifest.json").write_text(json.dumps(manifest | {"statistics": statistics}))


@contextmanager
def _building(directory: Path) -> Iterator[Path]:
    """A folder that becomes the store in one step, if nothing goes wrong."""
    with ExitStack() as stack:
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(scratch(directory.parent, BUILDING)) / "store"
            temporary.mkdir()
        except OSError as error:
            raise UserError(
                f"the cache '{directory.parent}' cannot be written ({error.strerror}): set AUTOPRUNE_CACHE."
            ) from error
        try:
            yield temporary
            if not is_complete(directory):
                shutil.rmtree(directory, ignore_errors=True)
                temporary.rename(directory)
        except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
            raise UserError(f"the level store could not be written to '{directory}' ({error}).") from error


def _workspace(width: LiveWidth) -> int:
    """Bytes that computing the levels and the statistics of a unit may need at once."""
    statistics = 4 * sum(weight.numel() for weight in weights_of(width)) + width.consumer_weight.shape[1] ** 2
    return max(workspace_bytes(width.consumer_weight), 8 * (statistics + width.consumer_weight.numel()))


def _unit(
    unit: Unit,
    width: LiveWidth,
    of_links: Sequence[tuple[Tensor, Evidence]],
    criterion: Criterion,
    dtype: torch.dtype,
    inputs: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], UnitStatistics]:
    """The file of a unit, and its statistics, which are of the last width behind."""
    tensors: dict[str, Tensor] = {}
    orders: list[Tensor] = []
    for behind, (link, (h_DD, evidence)) in reversed(list(enumerate(zip(width.links, of_links, strict=True)))):
        levels = _levels(unit, link, h_DD, evidence, criterion, dtype, inputs)
        if orders:  # of the consumer: the width behind puts its rows into an order
            levels = {name: _in_order(tensor, name, orders[0]) for name, tensor in levels.items()}
        tensors |= {BEHIND * behind + name: tensor for name, tensor in levels.items()}
        orders.insert(0, levels["order"])
    of = UnitBuilding(unit, width, orders, inputs, [h_DD for h_DD, _ in of_links], criterion, dtype)
    for form in dict.fromkeys(live_form(level) for level in unit.levels):
        if form.whole:
            own = {number: level for number, level in enumerate(unit.levels) if live_form(level) is form}
            tensors |= form.build_unit(own, of)
    last, prefix = width.links[-1], BEHIND * (len(orders) - 1)
    of_last = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return tensors, measure(unit, last, reading.moments(last, of_links[-1][0])[0], of_last, owned(of_last, unit.levels))


def _in_order(tensor: Tensor, name: str, rows_O: Tensor) -> Tensor:
    if name == "order":
        return tensor
    return tensor[rows_O] if name.startswith("level.") else tensor[:, rows_O].contiguous()


def _levels(
    unit: Unit,
    width: LiveWidth,
    h_DD: Tensor,
    evidence: Evidence,
    criterion: Criterion,
    dtype: torch.dtype,
    read: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    weight_OD = width.consumer_weight
    h_DD, mean_D = reading.moments(width, h_DD.to(weight_OD.device))
    evidence = {name: tensor.to(weight_OD.device) for name, tensor in evidence.items()}
    order = _order(unit, weight_OD, h_DD, evidence, criterion)
    tensors = {"order": order.cpu()}
    size = weight_OD.shape[1] // unit.groups
    inputs_D = (order[:, None] * size + torch.arange(size, device=order.device)).flatten()
    reconstruction = cache(lambda: Reconstruction(weight_OD, h_DD))
    of = Building(unit, width, h_DD, mean_D, inputs_D, criterion.reconstructs, reconstruction, dtype, read)
    for number, level in enumerate(unit.levels):
        form = live_form(level)
        if not form.whole:
            tensors |= {f"{name}.{number}": tensor for name, tensor in form.build(level, of).items()}
    return tensors


def _order(unit: Unit, weight_OD: Tensor, h_DD: Tensor, evidence: Evidence, criterion: Criterion) -> Tensor:
    """Groups by their importance; in their own order where no level needs one and a form changes whole matrices."""
    whole = any(live_form(level).whole for level in unit.levels)
    if whole and all(level.kept in (0, unit.groups) for level in unit.levels):
        return torch.arange(unit.groups, device=weight_OD.device)
    return order_of(criterion, weight_OD, h_DD, unit.groups, unit.bundle, evidence)
