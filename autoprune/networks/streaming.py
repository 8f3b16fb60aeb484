"""A wrapper that streams the blocks of any network to the device. Its results are those of the network."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.networks.blocks import BlockCall, BlockView
from autoprune.networks.streamer import Streamer


class StreamedView(BlockView):
    """A network that is larger than the device (streamer.py).

    Args:
        view: the network, whole in the host's memory.
        device: gets what is outside the blocks at once, and one block after another.
        memory: bytes of it that may be used.
        batch: sequences a forward pass.
        length: positions of a sequence.
        masks: whether any groups will be kept, not only levels.

    Attributes:
        streamer: brings blocks. Calling a block brings it, too, also within a forward pass of the model.

    Raises:
        UserError: `memory` does not even hold one block.
    """

    streamed = True

    def __init__(self, view: BlockView, device: str, memory: int, batch: int, length: int, masks: bool = False) -> None:
        self._view = view
        self.model, self.family, self.blocks, self.widths = view.model, view.family, view.blocks, view.widths
        self.places, self.keeps_shape, self.items_apart = view.places, view.keeps_shape, view.items_apart
        activations = view.activation_bytes(batch, length)
        self.streamer = Streamer(self.model, self.blocks, self.widths, device, memory, activations, masks)

    # -- what it computes: as the network does ---------------------------------------------------------------------

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states at the first block."""
        return self._view.embed(tokens_BT)

    def forward(self, block: int, hidden_BTD: Tensor) -> Tensor:
        """One block, without derivatives of its weights: they are elsewhere when these would be taken."""
        return self._view.forward(block, hidden_BTD)

    def run(self, block: int, hidden_BTD: Tensor) -> Tensor:
        """One block."""
        return self._view.run(block, hidden_BTD)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Logits."""
        return self._view.logits(hidden_BTD)

    def labels(self, tokens_BT: Tensor) -> Tensor:
        """What each position should predict."""
        return self._view.labels(tokens_BT)

    def state_bytes(self, length: int) -> int:
        """Bytes of the hidden states of a sequence."""
        return self._view.state_bytes(length)

    def activation_bytes(self, batch: int, length: int) -> int:
        """Bytes that a forward pass may need at once besides weights."""
        return self._view.activation_bytes(batch, length)

    def call(self, block: int, hidden_BTD: Tensor) -> BlockCall:
        """How a block is called."""
        return self._view.call(block, hidden_BTD)

    def output_matrix(self) -> nn.Module | None:
        """The module that gives the logits."""
        return self._view.output_matrix()

    def left_out(self, path: str, module: nn.Module) -> str:
        """Why a module is in no unit."""
        return self._view.left_out(path, module)

    @property
    def attention_types(self) -> list[str]:
        """The attention type of every block."""
        return self._view.attention_types

    def shape(self) -> list[Any]:
        """What tells the network's shapes from those of others."""
        return self._view.shape()

    def number_caches(self) -> None:
        """Give cache slots to the blocks that still attend."""
        self._view.number_caches()

    @contextmanager
    def as_given(self) -> Iterator[None]:
        """The network as it is when it is in use."""
        with self._view.as_given():
            yield

    def copied(self, memo: dict[int, Any]) -> nn.Module:
        """A deep copy of the model as it stands, whose blocks are not brought."""
        memo[id(self.streamer)] = self.streamer
        model = copy.deepcopy(self.model, memo)
        for block in self.blocks:
            if id(block) in memo:
                memo[id(block)]._forward_pre_hooks.clear()
        return model

    # -- where its weights are -------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.streamer.device

    def enter(self, block: int) -> None:
        """Have a block's weights on the device."""
        self.streamer.enter(block)

    def rest(self) -> None:
        """Have all weights in the host's memory."""
        self.streamer.rest()

    def expect(self, consumers: Sequence[Sequence[Tensor]] | None) -> None:
        """Say which consumers' weights will be put in place in each block; None: those that are there."""
        self.streamer.expect(consumers)

    def set_aside(self, nbytes: int) -> torch.device | None:
        """Keep bytes of the device free for good, if there is room; else the host's memory serves."""
        return self.device if self.streamer.set_aside(nbytes) else torch.device("cpu")

    @contextmanager
    def hold(self, sequences: int, batch: int, states: int, length: int) -> Iterator[tuple[int, torch.device]]:
        """As many batches as have room, and where their hidden states wait."""
        nbytes = batch * states * self.state_bytes(length)
        with self.streamer.hold(nbytes, -(-sequences // batch)) as (batches, where):
            yield batch * batches, where

    @contextmanager
    def bench(self, nbytes: int) -> Iterator[torch.device]:
        """The device if it has room, else the host's memory."""
        with self.streamer.reserve(nbytes) as fits:
            yield self.device if fits else torch.device("cpu")
