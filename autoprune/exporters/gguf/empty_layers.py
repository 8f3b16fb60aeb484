"""Layers of zeros in the place of those that were dropped, for an architecture that goes by the number of a layer."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoprune.errors import UserError
from autoprune.policy import Policy

BLOCKS = "model.layers."


def with_empty_layers(
    state: dict[str, Tensor], config: Any, stays: Sequence[int], dense: Any
) -> tuple[dict[str, Tensor], Any]:
    """A network with as many layers as the dense one. A layer of zeros gives on what it reads.

    Args:
        state: of the network, with the layers that stay numbered from 0, all of one shape.
        config: its configuration.
        stays: numbers in the dense network of these layers.
        dense: the dense network's configuration; None where it is not known.

    Returns:
        The state and its configuration.

    Raises:
        UserError: `dense` is None.
    """
    if dense is None:
        raise UserError(
            "whole layers were dropped, which llama.cpp has to find by their number: export the run itself."
        )
    whole = {name: tensor for name, tensor in state.items() if not name.startswith(BLOCKS)}
    first = {
        name.removeprefix(f"{BLOCKS}0."): tensor for name, tensor in state.items() if name.startswith(f"{BLOCKS}0.")
    }
    numbers = {layer: number for number, layer in enumerate(stays)}
    for layer in range(dense.num_hidden_layers):
        for rest, like in first.items():
            kept = state[f"{BLOCKS}{numbers[layer]}.{rest}"] if layer in numbers else torch.zeros_like(like)
            whole[f"{BLOCKS}{layer}.{rest}"] = kept
    known = getattr(config, "layer_configs", None)
    config = copy.deepcopy(config)
    if known is not None:
        config.layer_configs = (known[0],) * dense.num_hidden_layers
    config.num_hidden_layers, config.layer_types = dense.num_hidden_layers, list(dense.layer_types)
    return whole, config


def layers_that_stay(policy: Policy) -> list[int]:
    """Numbers of the layers of which a policy keeps anything."""
    return sorted({unit.block for unit in policy.units if unit.kept})
