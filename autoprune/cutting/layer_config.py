"""Integers that a block's modules keep of how many groups there are, and configurations that differ by layer."""

from typing import Any

from torch import nn

from autoprune.cutting.widths import Width

CONFIG = "config"
"""The attribute of a module that holds the configuration which all layers share."""


class LayerConfig:
    """The configuration of one layer: some values of its own, and for everything else the one that layers share.

    Some layers read numbers of heads from the configuration in their forward (Phi-3), which must differ by layer once
    layers are cut.

    Args:
        shared: the configuration of the network, which is never changed.
    """

    def __init__(self, shared: Any) -> None:
        vars(self)["_shared"], vars(self)["_own"] = shared, {}

    def __getattr__(self, name: str) -> Any:
        own = vars(self).get("_own")
        if own is None:  # a copy is being made, which has nothing yet
            raise AttributeError(name)
        return own[name] if name in own else getattr(vars(self)["_shared"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        vars(self)["_own"][name] = value


class Counts:
    """The integer attributes of a block that follow one width.

    Args:
        block: a module whose configuration is among the paths gets a `LayerConfig` in its place.
        width: names the attributes.
    """

    def __init__(self, block: nn.Module, width: Width) -> None:
        self._block, self._width = block, width
        for path in width.attributes_of(width.groups):
            owner, _, last = path.rpartition(".")[0].rpartition(".")
            if last == CONFIG:
                module: Any = block.get_submodule(owner)
                shared = module.config
                module.config = shared if isinstance(shared, LayerConfig) else LayerConfig(shared)

    def set(self, groups: int) -> None:
        """Have the modules say that there are so many groups, at least one."""
        for path, value in self._width.attributes_of(groups).items():
            owner, _, attribute = path.rpartition(".")
            before, _, last = owner.rpartition(".")
            config = last == CONFIG
            module: Any = self._block.get_submodule(before if config else owner)
            setattr(module.config if config else module, attribute, value)
