"""Zero-padding of live layers to one shape that a stock model of their type can have."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from autoprune.cutting import zeros
from autoprune.cutting.live import LiveWidth
from autoprune.errors import UserError

Columns = Mapping[str, Sequence[LiveWidth]]
"""Kind of unit -> its widths, one a layer."""


def pad(model_class: Any, config: Any, layers: Sequence[Sequence[LiveWidth]]) -> Any:
    """Pad all layers, in place, to the smallest shape that holds them and that the model class can have.

    Zeros change nothing: what a padded group computes meets zeros in the consumer.

    Args:
        model_class: a stock class of transformers.
        config: its configuration; everything but the widths is right.
        layers: the widths of each layer.

    Returns:
        The configuration with the widths.

    Raises:
        UserError: the class has no such shape.
    """
    widths = [width for layer in layers for width in layer]
    if not all(hasattr(config, name) for width in widths for name in width.width.config):
        # inner widths follow from the residual stream's, as in convolutional networks: there is one shape alone
        for width in widths:
            zeros.pad(width, width.width.groups)
        return config
    columns: dict[str, list[LiveWidth]] = {}
    for width in widths:
        columns.setdefault(width.width.kind, []).append(width)
    shape = {kind: max(1, *(width.kept for width in column)) for kind, column in columns.items()}
    for groups in _attention_groups(config, columns, shape):
        candidate = shape | ({"attention": groups} if "attention" in shape else {})
        padded = _config(config, columns, candidate)
        for kind, column in columns.items():
            for width in column:
                zeros.pad(width, candidate[kind])
        if padded is not None and _fits(model_class, padded, [row[0].block for row in layers if row]):
            return padded
    raise UserError(f"a {model_class.__name__} with equal layers cannot have this shape: export without uniform.")


def _attention_groups(config: Any, columns: Columns, shape: Mapping[str, int]) -> list[int]:
    """The fewest groups of heads that the configuration takes, and all of them: some classes can have no less."""
    if "attention" not in shape:
        return [0]
    width = columns["attention"][0].width
    possible = (g for g in range(shape["attention"], width.groups) if width.can_keep(g))
    accepted = (g for g in possible if _config(config, columns, {**shape, "attention": g}))
    return [*([fewest] if (fewest := next(accepted, None)) else []), width.groups]


def _config(config: Any, columns: Columns, shape: Mapping[str, int]) -> Any | None:
    """The configuration of a shape, or None where its own checks refuse it (heads that do not divide the width)."""
    padded = copy.deepcopy(config)
    for kind, column in columns.items():
        width = column[0].width
        for name, value in width.config_of(shape[kind]).items():
            setattr(padded, name, value)
        if kind == "attention" and shape[kind] < width.groups and not getattr(config, "head_dim", None):
            # fewer heads are not to be taken for wider ones
            padded.head_dim = config.hidden_size // config.num_attention_heads
    try:
        return type(padded).from_dict(padded.to_dict())
    except (ValueError, StrictDataclassError):
        return None


def _fits(model_class: Any, config: Any, blocks: Sequence[nn.Module]) -> bool:
    """Whether the class builds blocks of the shapes that these have now."""
    if not blocks:
        return True
    try:
        with torch.device("meta"):
            model: nn.Module = model_class(config)
    except ValueError:  # GPT-2 and OPT check their heads here
        return False
    stock = [module for module in model.modules() if type(module) is type(blocks[0])]
    return [_shapes(block) for block in stock] == [_shapes(block) for block in blocks]


def _shapes(block: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in block.named_parameters()}
