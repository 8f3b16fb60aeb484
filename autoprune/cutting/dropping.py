"""Drops sub-blocks: their modules leave the block, and stand-ins take their places."""

from collections.abc import Iterator, Mapping

from torch import nn

from autoprune.cutting.stand_ins import STAND_INS


class Dropping:
    """The modules that leave with one width.

    Args:
        block: they are modules of it.
        on_drop: path of each -> the name of its stand-in.
    """

    def __init__(self, block: nn.Module, on_drop: Mapping[str, str]) -> None:
        self._block, self._on_drop = block, on_drop
        self.modules = {path: block.get_submodule(path) for path in on_drop}
        self._gone = False

    def drop(self, gone: bool) -> None:
        """Replace the modules by stand-ins, or put the modules back."""
        if gone == self._gone:
            return
        for path, stand_in in self._on_drop.items():
            owner, _, name = path.rpartition(".")
            module = self.modules[path]
            setattr(self._block.get_submodule(owner), name, STAND_INS[stand_in](module) if gone else module)
        self._gone = gone

    def inside(self) -> Iterator[nn.Module]:
        """The modules and all modules in them."""
        for module in self.modules.values():
            yield from module.modules()
