"""The most bytes of tensors that are alive at once while code runs, whatever the device.

Every operation is seen (torch dispatch), so functions, shortcuts and slices count like modules. Memory that views share
is counted once. Memory that an operation takes and frees inside itself, such as a convolution's workspace, is not seen,
and neither is what an allocator reserves in addition.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which tensors that are made are counted until the last reference to their memory is gone.

    Attributes:
        now: bytes alive.
        peak: the most so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and count what none of its arguments holds."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        held = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in held:
                held.add(tensor.untyped_storage()._cdata)
                self._made(tensor.untyped_storage())
        return out

    def _made(self, storage: torch.UntypedStorage) -> None:
        nbytes = storage.nbytes()
        self.now += nbytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, nbytes)

    def _gone(self, nbytes: int) -> None:
        self.now -= nbytes


@torch.no_grad()
def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes of what `run` makes that are alive at once, its result included."""
    alive = Alive()
    with alive:
        run()
    return alive.peak
