"""A trained agent on disk: `model.zip` as stable-baselines3 writes it, and its policy's weights as safetensors.

The zip is for users of stable-baselines3. It holds pickles, so nothing here reads it. The header of `agent.safetensors`
names the algorithm and the columns of the observation table.

Columns are identified by name. If the table has new columns since the agent was saved, such as one for a new kind of
unit, they get weights of 0, so that the agent chooses as before.
"""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from autoprune.envs.observation import NAMES
from autoprune.errors import UserError
from autoprune.files.arrays import open_tensors, read_tensors
from autoprune.files.reading import explained, parse_json
from autoprune.files.writing import replacing

FILE = "agent.safetensors"


def save(model: BaseAlgorithm, directory: Path, algorithm: str) -> None:
    """Write both files.

    Raises:
        UserError: the disk is full or not writable.
    """
    tensors = {name: tensor.contiguous().clone() for name, tensor in model.policy.state_dict().items()}
    header = {"algorithm": algorithm, "observation": json.dumps(NAMES)}
    try:
        with replacing(directory / FILE) as path:
            save_file(tensors, path, header)
        with replacing(directory / "model.zip") as path:
            model.save(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the trained agent could not be written to '{directory}' ({error}).") from error


def find(path: Path) -> Path:
    """The weights of a trained agent, in a run's directory or given by themselves; a UserError where there are none."""
    file = path / FILE if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise UserError(f"no trained agent at '{file}': --pretrained takes the directory of a run with an RL agent.")
    return file


def load(model: BaseAlgorithm, path: Path, algorithm: str) -> None:
    """Put saved weights into a model.

    Args:
        path: a run's directory, or the file itself.

    Raises:
        UserError: the weights are missing or damaged, or of another algorithm or shape, or of columns that do not exist
            any more.
    """
    file = find(path)
    with explained("the trained agent", file):
        with open_tensors(file) as opened:
            header = opened.metadata() or {}
        tensors, observed = read_tensors(file), parse_json(header.get("observation", "[]"))
    if header.get("algorithm") != algorithm:
        raise UserError(
            f"the trained agent '{file}' is of {header.get('algorithm')}, and this search is of {algorithm}."
        )
    own = model.policy.state_dict()
    if observed != list(NAMES):
        fits = isinstance(observed, list) and all(name in NAMES for name in observed)
        wide = {name: _widened(tensor, own.get(name), observed) for name, tensor in tensors.items()} if fits else {}
        if all(tensor is None for tensor in wide.values()):
            raise UserError(f"the trained agent '{file}' observed another table than this version of autoprune shows.")
        tensors |= {name: tensor for name, tensor in wide.items() if tensor is not None}
    for name in sorted(own.keys() | tensors.keys()):
        shapes = [tuple(t[name].shape) if name in t else None for t in (tensors, own)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"the trained agent '{file}' does not fit: {name} is {shapes[0]} there and {shapes[1]} here; use the "
                "net_arch, actions and number of levels that it was trained with."
            )
    model.policy.load_state_dict(tensors)


def _widened(tensor: Tensor, own: Tensor | None, observed: list[str]) -> Tensor | None:
    """A layer that reads the table, on today's columns; None for any other tensor.

    Args:
        tensor: saved, `[outputs, columns of its time + others]`; critics read the action behind the table.
        own: the layer that it is for.
        observed: the columns of its time.
    """
    if own is None or tensor.dim() != 2 or own.dim() != 2 or len(tensor) != len(own):
        return None
    others = tensor.shape[1] - len(observed)
    if others < 0 or own.shape[1] != len(NAMES) + others:
        return None
    wide = torch.zeros(own.shape, dtype=tensor.dtype)
    wide[:, [NAMES.index(name) for name in observed]] = tensor[:, : len(observed)]
    wide[:, len(NAMES) :] = tensor[:, len(observed) :]
    return wide
