"""Networks larger than the device: blocks stay in the host's memory and are streamed to the device.

The dense tensors of a block's widths and the consumers' weights of its levels are streamed. All other tensors are small
or always needed, and stay on the device. Blocks are used in a circle, so the block that was just used is needed last
and is dropped first; as many blocks stay as fit. While a block computes, a thread copies the next one, on a CUDA device
in a separate stream.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoprune.cutting.live import LiveWidth
from autoprune.errors import UserError
from autoprune.networks.courier import Courier

HOST_BYTES = 4 * 2**30
"""Of the host's memory for hidden states, where the device has no room for those of one batch."""


@dataclass
class _Copy:
    """Something of a block on the device: the dense tensors of its widths, or one consumer's weight.

    Args:
        nbytes: what it counts for.
        waiting: until the compute stream was told to wait for its arrival.
        state: of dense tensors: what the widths compute with. Ctrl-C can come while they are changed over, and the
            search is finished with the same network: what is not "here" is put there again.
    """

    block: int
    nbytes: int
    host: list[Tensor]
    device: list[Tensor]
    waiting: Future[Any] | None
    dense: bool
    state: Literal["home", "coming", "here"] = "home"


class Streamer:
    """The one owner of where the dense tensors of a network's widths are.

    Args:
        model: the network, in the host's memory; what is outside `widths` is moved to the device here.
        blocks: in order. Calling one brings it to the device first.
        widths: of each block.
        device: where blocks are computed. On a CPU its memory is a fiction, with copies as everywhere.
        memory: bytes of the device that may be used.
        activations: bytes of `memory` that are left for what a forward pass needs besides weights.
        masks: whether widths are cut by copying what they keep, which takes as much again.

    Attributes:
        peak_bytes: of `memory`, what was in use or set aside at most.
        sent_bytes: brought to the device so far.

    Raises:
        UserError: not even one block fits.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[nn.Module],
        widths: Sequence[Sequence[LiveWidth]],
        device: str,
        memory: int,
        activations: int,
        masks: bool = False,
    ) -> None:
        self.device, self.memory, self._widths = torch.device(device), memory, widths
        self._sizes = [sum(dense_bytes(width) + copied_bytes(width, masks) for width in row) for row in widths]
        consumers = [sum(_nbytes(link.consumer_weight) for width in row for link in width.links) for row in widths]
        self.largest = max(size + consumer for size, consumer in zip(self._sizes, consumers, strict=True))
        """Bytes of the largest block with the largest weights that can be put in the place of its consumers'."""
        outside = _outside(model, widths)
        self._check(sum(map(_nbytes, outside)), activations)
        for tensor in outside:  # in place, so that tied ones stay tied
            tensor.data = tensor.data.to(self.device)
        self._set_aside = self.peak_bytes = sum(map(_nbytes, outside)) + activations
        self.sent_bytes = 0
        self._held: dict[tuple[str, int], _Copy] = {}
        self._current: int | None = None
        self._expected: Sequence[Sequence[Tensor]] | None = None
        self._courier = Courier(self.device)
        for index, (block, row) in enumerate(zip(blocks, widths, strict=True)):
            block.register_forward_pre_hook(partial(_enter, self, index))
            for link in (link for width in row for link in width.links):
                link.bring = partial(self._bring, index)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the device that are in use or set aside now."""
        return self._set_aside + sum(copy.nbytes for copy in self._held.values())

    @property
    def spare(self) -> int:
        """Bytes that can still be set aside, the largest block having room."""
        return self.memory - self._set_aside - self.largest

    # -- what is brought, and when -----------------------------------------------------------------------------

    def expect(self, consumers: Sequence[Sequence[Tensor]] | None) -> None:
        """Say which consumers' weights each block will need, in order; None: those that are in place."""
        self._expected = consumers

    def enter(self, block: int) -> None:
        """Bring a block, wait for it, and begin to bring what comes next."""
        copy = self._held.get(("dense", block))
        if block == self._current and copy is not None and copy.state == "here":
            return
        self._current = block
        copy = copy or self._load_dense(block)
        assert copy is not None, "set_aside leaves room for the largest block"
        if copy.state != "here":
            self._arrive(copy)
            copy.state = "coming"
            self._put(block, copy.device)
            copy.state = "here"
        self._load_consumers(block)
        following = (block + 1) % len(self._widths)
        if ("dense", following) in self._held or self._load_dense(following):
            self._load_consumers(following)

    def rest(self) -> None:
        """Put every block back into the host's memory."""
        self._current = None
        while self._held:
            self._drop(next(iter(self._held)))

    def _wanted(self, block: int) -> Sequence[Tensor]:
        if self._expected is not None:
            return self._expected[block]
        return self._placed(block)

    def _placed(self, block: int) -> list[Tensor]:
        """The consumers' weights that are in place."""
        links = (link for width in self._widths[block] for link in width.links)
        return [link.weights.consumer for link in links if link.weights.consumer is not None]

    def _load_dense(self, block: int) -> _Copy | None:
        if not self._make_room(self._sizes[block], block):
            return None
        if self.device.type == "cuda":
            for width in self._widths[block]:  # in place, once: they are the process's own, unlike mapped files
                width.move({key: t if t.is_pinned() else t.pin_memory() for key, t in width.dense.tensors.items()})
        host = [tensor for width in self._widths[block] for tensor in width.dense.tensors.values()]
        return self._load(("dense", block), block, self._sizes[block], host)

    def _load_consumers(self, block: int) -> None:
        for consumer in self._wanted(block):
            if ("consumer", id(consumer)) not in self._held:
                if not self._make_room(_nbytes(consumer), block, among_own=False):
                    return
                self._load(("consumer", id(consumer)), block, _nbytes(consumer), [consumer])

    def _bring(self, block: int, consumer: Tensor) -> Tensor:
        """A consumer's weight where its block is."""
        dense = self._held.get(("dense", block))
        if dense is None or dense.state == "home":
            return consumer
        copy = self._held.get(("consumer", id(consumer)))
        if copy is None:
            fits = self._make_room(_nbytes(consumer), block)
            assert fits, "set_aside leaves room for the largest block and its consumers"
            copy = self._load(("consumer", id(consumer)), block, _nbytes(consumer), [consumer])
        self._arrive(copy)
        return copy.device[0]

    def _load(self, key: tuple[str, int], block: int, nbytes: int, host: list[Tensor]) -> _Copy:
        device, arrival = self._courier.send(host)
        copy = self._held[key] = _Copy(block, nbytes, host, device, arrival, key[0] == "dense")
        self._note_peak()
        self.sent_bytes += sum(map(_nbytes, host))
        return copy

    def _arrive(self, copy: _Copy) -> None:
        if copy.waiting:
            self._courier.wait(copy.waiting)
            copy.waiting = None

    def _put(self, block: int, tensors: Sequence[Tensor]) -> None:
        """Make these the dense tensors of a block; what is kept of it stays as it is."""
        following = iter(tensors)
        for width in self._widths[block]:
            width.move({key: next(following) for key in width.dense.tensors})

    # -- room --------------------------------------------------------------------------------------------------

    def set_aside(self, nbytes: int) -> bool:
        """Keep bytes free for something else, for good; False where that would leave no room for blocks."""
        if nbytes > self.spare:
            return False
        fits = self._make_room(nbytes, self._current or 0)
        assert fits, "all but the block in use can go"
        self._set_aside += nbytes
        self._note_peak()
        return True

    @contextmanager
    def reserve(self, nbytes: int) -> Iterator[bool]:
        """Keep bytes free for a while; yields whether they are."""
        fits = self.set_aside(nbytes)
        try:
            yield fits
        finally:
            if fits:
                self._set_aside -= nbytes

    @contextmanager
    def hold(self, nbytes: int, most: int) -> Iterator[tuple[int, torch.device]]:
        """Keep room for pieces of `nbytes`; yields how many of them, `most` at most, and on which device.

        Every pass over the blocks serves all that is held, so pieces come before blocks that stay; but for one block,
        so that the next can be brought while one is computed.
        """
        nbytes, most = max(1, nbytes), max(1, most)
        pieces = max(self.spare - self.largest, 0) // nbytes or self.spare // nbytes
        if pieces:
            with self.reserve(nbytes * min(pieces, most)):
                yield min(pieces, most), self.device
        else:
            yield max(1, min(HOST_BYTES // nbytes, most)), torch.device("cpu")

    def _note_peak(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self.resident_bytes)

    def _make_room(self, nbytes: int, block: int, among_own: bool = True) -> bool:
        """Let go of what is needed later than `block`, the latest first, until bytes are free.

        Args:
            among_own: of the block in use, consumers that are not in place may go too.
        """
        ahead = [(b - (self._current or 0)) % len(self._widths) for b in range(len(self._widths))]
        while self.resident_bytes + nbytes > self.memory:
            may_go = [
                (ahead[copy.block], not copy.dense, -age, key)
                for age, (key, copy) in enumerate(self._held.items())
                if ahead[copy.block] > ahead[block]
                or (among_own and copy.block == block and not copy.dense and not self._in_place(copy))
            ]
            if not may_go:
                return False
            self._drop(max(may_go)[-1])
        return True

    def _in_place(self, copy: _Copy) -> bool:
        return any(weight is copy.host[0] for weight in self._placed(copy.block))

    def _drop(self, key: tuple[str, int]) -> None:
        copy = self._held[key]
        if not copy.dense and self._in_place(copy) and ("dense", copy.block) in self._held:
            self._drop(("dense", copy.block))
        if copy.dense and not copy.waiting:
            there = [tensor for width in self._widths[copy.block] for tensor in width.dense.tensors.values()]
            ours = zip(there, copy.device, copy.host, strict=True)
            assert all(t is a or t is b for t, a, b in ours), "dense tensors are changed in the host's memory only"
            copy.state = "home"
            self._put(copy.block, copy.host)
        self._arrive(copy)  # whoever gets this memory next must not be overtaken by the copy into it
        del self._held[key]

    def _check(self, outside: int, activations: int) -> None:
        smallest = outside + activations + self.largest
        if self.memory < smallest:
            raise UserError(
                f"device_memory={self.memory} is too small: embedding, head and norms take {outside} bytes, "
                f"activations {activations}, the largest block and its levels {self.largest}. The smallest that works "
                f"is {smallest}; a smaller batch or sequence_length needs less."
            )


def _enter(streamer: Streamer, block: int, *_: Any) -> None:
    streamer.enter(block)


def dense_bytes(width: LiveWidth) -> int:
    """Bytes of the dense tensors of a width."""
    return sum(map(_nbytes, width.dense.tensors.values()))


def copied_bytes(width: LiveWidth, masks: bool) -> int:
    """Bytes at most that keeping something copies: with masks everything, otherwise only fused projections."""
    fused = {cut.key[0] for link in width.links for cut in link.cuts if masks or len(cut.segments.segments) > 1}
    return sum(_nbytes(tensor) for (path, _), tensor in width.dense.tensors.items() if path in fused)


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _outside(model: nn.Module, widths: Sequence[Sequence[LiveWidth]]) -> list[Tensor]:
    """Parameters and buffers that are always on the device, tied ones once."""
    inside = {id(parameter) for row in widths for width in row for parameter in width.dense.parameters()}
    return [t for t in (*model.parameters(), *model.buffers()) if id(t) not in inside]
