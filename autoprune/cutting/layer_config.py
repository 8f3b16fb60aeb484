"""Module attributes that hold a number of groups, and configurations that differ by layer."""

from typing import Any

from torch import nn

from autoprune.cutting.widths import Width

CONFIG = "config"
"""The attribute of a module that holds the configuration which all layers share."""


class LayerConfig:
    """The configuration of one layer: it has some values of its own and takes all others from the shared one.

    Some layers (Phi-3) read the number of heads from the configuration in their forward. After cutting, this number
    differs by layer.

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
        block: whole, so that the modules that own the attributes are there. A module whose configuration is among the
            paths gets a `LayerConfig` in its place.
        width: names the attributes.
    """

    def __init__(self, block: nn.Module, width: Width) -> None:
        self._width = width
        self._owners: dict[str, tuple[Any, str]] = {}
        for path in width.attributes_of(width.groups):
            owner, _, attribute = path.rpartition(".")
            before, _, last = owner.rpartition(".")
            module: Any = block.get_submodule(before if last == CONFIG else owner)
            if last == CONFIG:
                shared = module.config
                module.config = shared if isinstance(shared, LayerConfig) else LayerConfig(shared)
            self._owners[path] = (module.config if last == CONFIG else module), attribute

    def set(self, groups: int) -> None:
        """Set the attributes to a number of groups, at least one."""
        for path, value in self._width.attributes_of(groups).items():
            owner, attribute = self._owners[path]
            if getattr(owner, attribute, None) != value:
                setattr(owner, attribute, value)
