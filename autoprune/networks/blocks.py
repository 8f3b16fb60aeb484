"""A network as `embed -> blocks -> head`: the protocol for every kind of network.

A sequence is a row of integers: tokens of a text, or numbers of images. The first dimensions of hidden states are
sequence and position.

Shapes: B sequences, T positions (tokens or images), D hidden, V vocabulary or classes.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.cutting.live import LiveWidth
from autoprune.networks.family import Family


def live_widths(
    model: nn.Module, family: Family, blocks: Sequence[nn.Module], mlp_group: int = 1
) -> list[list[LiveWidth]]:
    """The widths of each block of a network."""
    config: Any = getattr(model, "config", None)
    return [[LiveWidth(block, width) for width in family.widths_of(block, config, mlp_group)] for block in blocks]


@dataclass(frozen=True)
class BlockCall:
    """The arguments of a block besides its hidden states: positions, masks, rotary embeddings."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class BlockView(ABC):
    """A live network.

    `embed`, `forward`, `logits`, `labels`, `state_bytes` and `activation_bytes` are required; the others have defaults.

    Attributes:
        model: the network.
        family: says where its blocks are and what their widths are.
        blocks: in order.
        widths: of each block.
        places: for each block, what else about it sets what any of its units costs.
        streamed: whether blocks are streamed to the device one after another (streaming.py).
        keeps_shape: whether every block returns hidden states of the shape of its input.
        items_apart: whether the items of a sample are independent, so that each is an example.
    """

    model: nn.Module
    family: Family
    blocks: list[nn.Module]
    widths: list[list[LiveWidth]]
    places: list[str]
    streamed: bool = False
    keeps_shape: bool = True
    items_apart: bool = False

    # -- what it computes ------------------------------------------------------------------------------------------

    @abstractmethod
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states at the first block, `[B, T, ...]`, without derivatives."""

    @abstractmethod
    def forward(self, block: int, hidden_BTD: Tensor) -> Tensor:
        """One block as it stands, `[B, T, ...] -> [B, T, ...]`, with derivatives where the caller has them on."""

    @abstractmethod
    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Logits `[B, T, V]` from the hidden states behind the last block, with derivatives as above."""

    @abstractmethod
    def labels(self, tokens_BT: Tensor) -> Tensor:
        """The labels of every position, `[B, T]`; -100 where nothing is predicted."""

    @abstractmethod
    def state_bytes(self, length: int) -> int:
        """Bytes of the hidden states of a sequence of so many positions: the most between any two blocks."""

    @abstractmethod
    def activation_bytes(self, batch: int, length: int) -> int:
        """An upper estimate of the bytes that a forward pass of `[batch, length]` needs besides weights."""

    @torch.no_grad()
    def run(self, block: int, hidden_BTD: Tensor) -> Tensor:
        """`forward` without derivatives."""
        return self.forward(block, hidden_BTD)

    @torch.no_grad()
    def head(self, hidden_BTD: Tensor) -> Tensor:
        """`logits` without derivatives."""
        return self.logits(hidden_BTD)

    @torch.no_grad()
    def __call__(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the whole network at its present levels, `[B, T, V]`."""
        hidden_BTD = self.embed(tokens_BT)
        for block in range(len(self.blocks)):
            hidden_BTD = self.run(block, hidden_BTD)
        return self.head(hidden_BTD)

    # -- what it is ------------------------------------------------------------------------------------------------

    def call(self, block: int, hidden_BTD: Tensor) -> BlockCall:
        """How a block is called at this shape, besides the hidden states."""
        return BlockCall((), {})

    def output_matrix(self) -> nn.Module | None:
        """The module that gives the logits, where that is known."""
        return None

    def left_out(self, path: str, module: nn.Module) -> str:
        """Why a module is in no unit, behind "layers"."""
        if "norm" in type(module).__name__.lower():
            return "of norms"
        inside = any(module is one for block in self.blocks for one in block.modules())
        return "that no width of the blocks goes through" if inside else "outside of the blocks"

    @property
    def ends(self) -> list[LiveWidth]:
        """Embeddings and head as widths of one group, where they can have fewer bits; by default there are none."""
        return []

    @property
    def attention_types(self) -> list[str]:
        """The attention type of every block, which sets what an attention costs; by default there is one type."""
        return [""] * len(self.blocks)

    def shape(self) -> list[Any]:
        """What tells the network's shapes from those of others, not its weights; by default its modules."""
        return [str(self.model)]

    def number_caches(self) -> None:  # noqa: B027 (nothing to do)
        """Give cache slots to the blocks that still attend, as the network is cut now; by default there are none."""

    @contextmanager
    def as_given(self) -> Iterator[None]:
        """The network as it is when it is in use, for measurements; by default that is how it always is."""
        yield

    def copied(self, memo: dict[int, Any]) -> nn.Module:
        """A deep copy of the model as it stands; `memo` is what counts as copied already (`copy.deepcopy`)."""
        return copy.deepcopy(self.model, memo)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device

    # -- where its weights are: all on the device, unless it is streamed -------------------------------------------

    def enter(self, block: int) -> None:  # noqa: B027 (nothing to do)
        """Bring a block's weights to the device. Calling the block does that, too."""

    def rest(self) -> None:  # noqa: B027 (nothing to do)
        """Move all weights to their home, which is needed to permute them."""

    def expect(self, consumers: Sequence[Sequence[Tensor]] | None) -> None:  # noqa: B027
        """Say which consumers' weights will be put in place in each block; None: those that are there."""

    def set_aside(self, nbytes: int) -> torch.device | None:
        """Keep memory free for good; returns where that is. None: weights and what is computed are in one place."""
        return None

    @contextmanager
    def hold(self, sequences: int, batch: int, states: int, length: int) -> Iterator[tuple[int, torch.device]]:
        """The number of sequences that go through the blocks together, and the device of their hidden states.

        It is one batch if all blocks are on the device, and as many as fit if blocks are streamed.

        Args:
            sequences: all of them.
            batch: sequences a forward pass; the answer is a multiple.
            states: hidden states of a sequence that are held at a time.
            length: positions of a sequence.
        """
        yield batch, self.device

    @contextmanager
    def bench(self, nbytes: int) -> Iterator[torch.device]:
        """The device for a computation of this size besides forward passes: the CPU if it does not fit."""
        yield self.device
