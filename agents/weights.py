"""A trained agent on disk: `model.zip` as stable-baselines3 writes it, and its policy's weights as safetensors.

The zip is for stable-baselines3's own users; it holds pickles, so nothing here ever reads it. `agent.safetensors` has
in its header what the weights belong to: the algorithm and the columns of the observation table.
"""

import json
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from stable_baselines3.common.base_class import BaseAlgorithm

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
        UserError: there are none, they are damaged, or of another algorithm, table or shape.
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
    if observed != list(NAMES):
        raise UserError(f"the trained agent '{file}' observed another table than this version of autoprune shows.")
    own = model.policy.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        shapes = [tuple(t[name].shape) if name in t else None for t in (tensors, own)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"the trained agent '{file}' does not fit: {name} is {shapes[0]} there and {shapes[1]} here; use the "
                "net_arch, actions and number of levels that it was trained with."
            )
    model.policy.load_state_dict(tensors)
