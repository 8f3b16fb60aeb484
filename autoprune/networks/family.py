"""The declaration that a file in `search_spaces/` makes for a model family."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from autoprune.cutting.widths import Width


@dataclass(frozen=True)
class Family:
    """How the networks of a family are cut into units.

    Args:
        name: the family's name in the registry.
        model_types: transformers' `config.model_type`s that it covers, each tested.
        blocks: path of the ModuleList of blocks in the model; of images a pattern of their paths, as `layer*.*`.
        widths: (block, config, neurons per MLP group) -> the block's widths.
        attention: path of the module in a block that owns `layer_idx`.
        before: of images: name, beside a list of blocks, of the modules that are run before its first block.
        task: name of the task whose networks these are.
        fits: of networks that are no transformers models: whether a module is of the family.
        cut: in the place of paths: a module's `Trace` -> the `Stretch`es of it that are blocks (networks/tracing.py).
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    widths: Callable[[nn.Module, Any, int], list[Width]]
    attention: str = ""
    before: str = ""
    task: str = "text"
    fits: Callable[[nn.Module], bool] | None = None
    cut: Callable[[Any], list[Any]] | None = None

    @property
    def numbered(self) -> bool:
        """Whether the blocks are one list whose length the configuration has, so that some can be left out."""
        return bool(self.blocks) and "*" not in self.blocks

    def paths(self, model: nn.Module) -> list[str]:
        """Where a network's blocks are, in order."""
        pattern = self.blocks if "*" in self.blocks else f"{self.blocks}.*"
        alike = (path for path, _ in model.named_modules() if path.count(".") == pattern.count("."))
        return [path for path in alike if fnmatch.fnmatchcase(path, pattern)]

    def widths_of(self, block: nn.Module, config: Any, mlp_group: int = 1) -> list[Width]:
        """The widths of a block that are no empty ones: transformers builds an MLP of no neurons."""
        return [width for width in self.widths(block, config, mlp_group) if width.groups]
