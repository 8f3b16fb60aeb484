"""What a family file in `search_spaces/` declares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from autoprune.models.surgery import Width


@dataclass(frozen=True)
class Family:
    """How the networks of a family are cut into units.

    Args:
        name: the family's name in the registry.
        model_types: transformers' `config.model_type`s that it covers, each tested.
        blocks: path of the ModuleList of blocks in the model.
        widths: (block, config, neurons per MLP group) -> the block's widths.
        attention: path of the module in a block that owns `layer_idx`.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    widths: Callable[[nn.Module, Any, int], list[Width]]
    attention: str
