"""Drops sub-blocks: their modules leave the block, and stand-ins take their places."""

from collections.abc import Iterator, Mapping

from torch import nn

from autoprune.cutting.stand_ins import STAND_INS


class Dropping:
    """The modules that leave with one width.

    Args:
        block: they are modules of it.
        on_drop: path of each -> the name of its stand-in.

    Attributes:
        replacement: what is in the place of a stand-in, where something is (replacing.py).
    """

    def __init__(self, block: nn.Module, on_drop: Mapping[str, str]) -> None:
        self._block, self._on_drop = block, on_drop
        self.modules = {path: block.get_submodule(path) for path in on_drop}
        self._gone = False
        self._host = ""
        self.replacement: nn.Module | None = None

    def drop(self, gone: bool) -> None:
        """Replace the modules by stand-ins, or put the modules back."""
        if gone == self._gone:
            return
        for path, stand_in in self._on_drop.items():
            module = self.modules[path]
            self._set(path, STAND_INS[stand_in](module) if gone else module)
        self._gone, self.replacement = gone, None

    def replace(self, path: str, module: nn.Module) -> None:
        """Put a module in the place of a stand-in, until `restore`. The modules are dropped."""
        assert self._gone
        self._host, self.replacement = path, module
        self._set(path, module)

    def restore(self) -> None:
        """Put the stand-in back."""
        if self.replacement is not None and self._gone:
            self._set(self._host, STAND_INS[self._on_drop[self._host]](self.modules[self._host]))
        self.replacement = None

    def inside(self) -> Iterator[nn.Module]:
        """The modules and all modules in them."""
        for module in self.modules.values():
            yield from module.modules()

    def _set(self, path: str, module: nn.Module) -> None:
        owner, _, name = path.rpartition(".")
        setattr(self._block.get_submodule(owner), name, module)
