"""Weights that a search starts from in the place of the dense network's: those that an earlier round has trained.

A network that was pruned and trained is written at the shapes of the dense network, with zeros in the place of what is
gone: `start.safetensors` in the directory of the run that starts from it. It computes what the small network computes,
so that a round is a search of the dense network's own units and levels.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.cutting.cuts import Cut
from autoprune.cutting.live import LiveWidth
from autoprune.errors import UserError
from autoprune.files.arrays import open_tensors, read_tensors
from autoprune.files.reading import explained, parse_json
from autoprune.files.writing import replacing
from autoprune.networks.blocks import BlockView
from autoprune.ports.task import Prepared
from autoprune.space import Levels, Unit

WAY = "delete it, and `autoprune resume` of the whole run makes it anew"
FILE = "start.safetensors"
VARIANCE = "running_var"
"""Of a BatchNorm; that of a channel that is gone is 1, so that nothing is divided by 0."""


def start_of(run: Path | None) -> Path | None:
    """The weights that a run starts from; None if it starts from the dense network."""
    file = None if run is None else run / FILE
    return file if file is not None and file.is_file() else None


# -- writing ---------------------------------------------------------------------------------------------------------


def save_start(
    path: Path, view: BlockView, student: nn.Module, kept: Sequence[Sequence[Tensor]], left: Mapping[str, int]
) -> None:
    """Write a pruned network at the shapes of the dense one.

    Args:
        path: the file.
        view: the live network with all of its groups in place.
        student: a copy of it that was cut and trained.
        kept: for each width, and those behind it, the groups that are left by their number in the original network, in
            the order in which the student has them.
        left: name of each unit -> number of its groups that are left.

    Raises:
        UserError: the disk is full or not writable.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in padded(view, student, kept)}
    try:
        with replacing(path) as new:
            save_file(tensors, new, {"left": json.dumps(dict(left))})
    except (OSError, SafetensorError) as error:
        raise UserError(f"the weights of the next round could not be written to '{path}' ({error}).") from error


def padded(view: BlockView, student: nn.Module, kept: Sequence[Sequence[Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a student at the dense network's shape, by name. Arguments are as in `save_start`."""
    names = {id(tensor): name for name, tensor in _tensors(view.model)}
    cuts: dict[str, list[tuple[Cut, Tensor]]] = {}
    silent: set[str] = set()  # a dropped sub-block writes nothing, not even a bias
    for width, indices in zip((width for row in view.widths for width in row), kept, strict=True):
        for link, index in zip(width.links, indices, strict=True):
            for cut in link.cuts:
                cuts.setdefault(names[id(link.dense.live(cut.key))], []).append((cut, index))
            if not len(index):
                silent |= {names[id(link.dense.live(key))] for key in _unchanged(link)}
    own = dict(_tensors(student))
    for name, dense in _tensors(view.model):
        if name in silent or (name not in own and name in cuts):
            yield name, _gone(dense.shape, dense, name)
        elif name not in own:
            yield name, dense.data.clone()
        else:
            piece = own[name].data.to(dense.dtype)
            for cut, index in cuts.get(name, ()):
                piece = _spread(piece, cut, index, name)
            yield name, piece


def _unchanged(link: LiveWidth) -> Iterator[tuple[str, str]]:
    return (key for key in link.width.unchanged_keys if key in link.dense.tensors)


def _spread(piece: Tensor, cut: Cut, index: Tensor, name: str) -> Tensor:
    """Put the entries of the groups that are left where the dense network has them."""
    shape = list(piece.shape)
    shape[cut.dim] = cut.segments.length(cut.segments.groups)
    index = index.to(piece.device)
    return _gone(shape, piece, name).index_copy(cut.dim, cut.segments.entries(index), piece)


def _gone(shape: Sequence[int], like: Tensor, name: str) -> Tensor:
    return like.new_full(tuple(shape), 1.0 if name.endswith(VARIANCE) else 0.0)


# -- reading ---------------------------------------------------------------------------------------------------------


def started(prepared: Prepared, again: Callable[[str], Prepared], file: Path | None) -> tuple[Prepared, Prepared]:
    """The network that a search starts from, and the dense network that it is measured against.

    Args:
        prepared: the dense network and its data.
        again: loads both once more, for data of a known hash.
        file: the weights to start from. None starts from the dense network, which is then both.

    Raises:
        UserError: the file is damaged, or of another network.
    """
    if file is None:
        return prepared, prepared
    start = again(prepared.splits.digest)
    with explained("the file of weights to start from", file, WAY):
        tensors = read_tensors(file)
        own = dict(_tensors(start.view.model))
        if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in own.items()}:
            raise ValueError("it is of another network")
        for name, tensor in own.items():
            tensor.data = tensors[name].to(tensor.device, tensor.dtype, copy=True)
        with file.open("rb") as stream:
            weights = hashlib.file_digest(stream, "sha256").hexdigest()
    for width in (width for row in start.view.widths for width in row):
        width.move({key: width.dense.live(key).data for key in width.dense.tensors})
    digest = hashlib.sha256(f"{prepared.loaded.digest} {weights}".encode()).hexdigest()[:16]
    return replace(start, loaded=replace(start.loaded, digest=digest), read=prepared.read), prepared


def floor_of(file: Path, units: Sequence[Unit]) -> Levels:
    """The densest level of each unit that is not another name for what is left in the weights of a file.

    Raises:
        UserError: the file is damaged, or of other units.
    """
    with explained("the file of weights to start from", file, WAY), open_tensors(file) as opened:
        left = dict(parse_json(opened.metadata()["left"]))
        return tuple(
            max(number for number, level in enumerate(unit.levels) if level.kept >= left[unit.name]) for unit in units
        )


def _tensors(network: nn.Module) -> Iterator[tuple[str, torch.nn.Parameter | Tensor]]:
    """Parameters and saved buffers by name, tied ones once."""
    yield from network.named_parameters()
    saved = network.state_dict().keys()
    yield from ((name, buffer) for name, buffer in network.named_buffers() if name in saved)
