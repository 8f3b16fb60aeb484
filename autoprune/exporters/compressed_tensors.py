"""A directory whose weights of few bits are packed, in the layout `pack-quantized` of compressed-tensors.

transformers loads it where compressed-tensors is installed, and multiplies weights out when they are needed. It does so
for symmetric grids alone: compressed-tensors 0.20 builds a network with unpacked zero points, which those of a file do
not fit. If no group of any unit was removed, it is a stock model of the original type. Otherwise its layers have
widths of their own, and it is loaded after `import autoprune`.

Embeddings, tied ones too, are written in the checkpoint's dtype, because transformers builds no packed embedding. The
rows of a matrix are the module's outputs, so networks of other linear layers (GPT-2's `Conv1D`) are refused.

Shapes: O rows, D columns, N groups of columns.
"""

import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.assembly import Assembly
from autoprune.cards import loading
from autoprune.cards.card import write_card
from autoprune.config import SearchConfig, is_module
from autoprune.cutting.ends import EMBEDDING
from autoprune.cutting.live import LiveWidth
from autoprune.cutting.matrices import Matrix, matrices_of
from autoprune.errors import UserError
from autoprune.exporters import huggingface
from autoprune.exporters.directory import check_target, neighbour
from autoprune.exporters.source import Source
from autoprune.level import Level, form_of
from autoprune.levels.quantising.setting import grid_of
from autoprune.levels.quantising.storage import group_of
from autoprune.levels.quantising.unit import columns_of
from autoprune.networks.quiet import without_bars
from autoprune.ports.exporter import Exporter

INSTALL = "pip install 'autoprune[quantized]'"


@dataclass(frozen=True)
class Packed:
    """A matrix as it is written.

    Args:
        module: its path in the network that is written.
        tensors: by their names in the module.
        scheme: bits, columns of a group, and whether grids are symmetric.
    """

    module: str
    tensors: dict[str, Tensor]
    scheme: tuple[int, int, bool]


class CompressedTensors(Exporter):
    """Packed weights."""

    packs = True

    def refuses(self, config: SearchConfig) -> str | None:
        """A plain module has no such form."""
        if is_module(config.model):
            return f"'{config.model}' is a plain module: compressed-tensors is a form of transformers' networks."
        if "bits" not in config.forms:
            return f"no level of this run has few bits (its forms are {config.forms}): export it with --to hf."
        return None

    def check(self, path: Path) -> None:
        """See that `path` is free, and that the package is there that loads what is written."""
        if importlib.util.find_spec("compressed_tensors") is None:
            raise UserError(f"compressed-tensors is not installed: {INSTALL}.")
        check_target(path)

    def write(self, source: Source, path: Path) -> None:
        """Write the directory.

        Raises:
            UserError: no unit has few bits, the layout has no such matrix, or it cannot be written.
        """
        from huggingface_hub import save_torch_state_dict

        assembly = source.assembly
        with source.pruned() as live:
            packed = list(_packed(assembly, source))
            if not packed:
                raise UserError("every unit of this policy has its dense weights: export it with --to hf.")
            whole = all(width.kept == width.width.groups for row in assembly.view.widths for width in row)
            network = huggingface._uniform(assembly) if whole else huggingface._pruned(assembly, live)
            state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        for one in packed:
            del state[f"{one.module}.weight"]
            state |= {f"{one.module}.{name}": tensor for name, tensor in one.tensors.items()}
        _warn_of_embeddings(assembly, source)
        network.config.quantization_config = quantization_config(packed)
        with neighbour(path) as directory, without_bars():
            network.config.save_pretrained(directory)
            save_torch_state_dict(state, directory)
            if getattr(assembly.loaded.model, "generation_config", None) is not None:
                huggingface._save_generation_config(network, assembly.loaded.model, directory)
            assembly.task.save_preprocessing(assembly, directory)
            source.policy.save(directory / "policy.json")
            write_card(
                directory, loading.PACKED if whole else loading.PACKED_WIDTHS, source.config, source.policy,
                assembly.task.words, base=type(assembly.loaded.model).__name__, auto=assembly.task.auto_class,
                parameters=network.num_parameters(), dense=assembly.loaded.n_params, recovery=source.recovery,
            )  # fmt: skip


def quantization_config(packed: list[Packed]) -> dict[str, Any]:
    """What `config.json` says of the packed matrices."""
    groups: dict[tuple[int, int, bool], list[str]] = {}
    for one in packed:
        groups.setdefault(one.scheme, []).append(one.module)
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{n}": {
                "targets": modules,
                "weights": {
                    "num_bits": bits, "type": "int", "strategy": "group", "group_size": group,
                    "symmetric": symmetric, "dynamic": False,
                },
            }
            for n, ((bits, group, symmetric), modules) in enumerate(sorted(groups.items()))
        },
        "ignore": [],
    }  # fmt: skip


def _packed(assembly: Assembly, source: Source) -> Iterator[Packed]:
    """The matrices of all units of few bits, in the order of the units."""
    stays = huggingface._layers_that_stay(assembly)
    widths = [(b, width) for b, row in enumerate(assembly.view.widths) for width in row]
    numbers = source.proposal
    assert isinstance(numbers, tuple)
    for u, (block, width) in enumerate(widths):
        level = assembly.space.units[u].levels[numbers[u]]
        if level.form == "bits":
            prefix = f"{assembly.loaded.family.blocks}.{stays.index(block)}."
            yield from _of_unit(prefix, level, width, assembly.store.own(u, numbers[u]))
    for u, end in enumerate(assembly.view.ends[: len(numbers) - len(widths)], len(widths)):
        level = assembly.space.units[u].levels[numbers[u]]
        if level.form == "bits" and isinstance(end.consumer, nn.Linear):
            yield from _of_unit("", level, end, assembly.store.own(u, numbers[u]))


def _warn_of_embeddings(assembly: Assembly, source: Source) -> None:
    """Tell how much larger the file is than the metric `memory` says."""
    numbers, itemsize, more = source.proposal, assembly.loaded.checkpoint_dtype.itemsize, 0.0
    assert isinstance(numbers, tuple)
    for u, unit in enumerate(assembly.space.units):
        if unit.kind == EMBEDDING:
            level = unit.levels[numbers[u]]
            more += itemsize * unit.fixed_params - form_of(level).nbytes(unit, level, itemsize)
    if more:
        told = (
            f"transformers loads no packed embeddings: they are written multiplied out, {more / 1e6:,.1f} MB more than"
        )
        warnings.warn(f"{told} the policy's memory.", UserWarning, stacklevel=5)


def _of_unit(prefix: str, level: Level, width: LiveWidth, own: Any) -> Iterator[Packed]:
    grid = grid_of(level)
    for i, matrix in enumerate(matrices_of(width) or ()):
        module, name = width.dense.modules[matrix.cut.key[0]], prefix + matrix.cut.key[0]
        columns = columns_of(level, width, matrix)
        group = group_of(columns, grid.group)
        if not isinstance(module, nn.Linear):
            raise UserError(
                f"{name} is a {type(module).__name__}, and compressed-tensors packs linear layers alone: export it "
                "with --to hf, where its weights are multiplied out."
            )
        if not grid.symmetric:
            raise UserError(
                f"{name} is rounded to a grid with zero points, and transformers does not load these from "
                "compressed-tensors: search with --forms bits:symmetric, or export it with --to hf."
            )
        if columns % group:
            raise UserError(
                f"{name} reads {columns:,} inputs, which groups of {group} do not divide, as compressed-tensors "
                "needs: search with bits:.../group=N and a divisor, or export it with --to hf."
            )
        tensors = {
            "weight_packed": _rows(matrix, own[f"codes{i}"], level),
            "weight_scale": _rows(matrix, own[f"scales{i}"], level),
        }
        tensors["weight_shape"] = torch.tensor([len(tensors["weight_packed"]), columns])
        yield Packed(name, tensors, (grid.bits, group, grid.symmetric))


def _rows(matrix: Matrix, tensor: Tensor, level: Level) -> Tensor:
    """The rows of a matrix that a level keeps."""
    kept = matrix.cut.segments.prefix(tensor, 0, level.kept) if matrix.rows_follow else tensor
    return kept.cpu().clone().contiguous()
