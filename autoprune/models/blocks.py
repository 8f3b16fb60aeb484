"""A network as `embed -> blocks -> head`, whatever its family.

transformers' own forward is used throughout: while a call runs, the blocks are replaced by ghosts that record how
each block is called, or put given hidden states in. So masks, rotary embeddings, final norms and soft-capping need
no code of ours.

Shapes: B sequences, T tokens, D hidden, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.calibration.text import next_tokens
from autoprune.models.family import Family
from autoprune.models.slots import cache_slots, layer_types
from autoprune.models.streaming import Streamer, activation_bytes
from autoprune.models.surgery import LiveWidth


@dataclass(frozen=True)
class BlockCall:
    """What a block is called with besides its hidden states: positions, masks, rotary embeddings."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Ghost(nn.Module):
    """Stands where a block stands: records the call, and passes on the hidden states or others put in."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._real = (block,)  # in a tuple, so that it is no submodule
        self.call: BlockCall | None = None
        self.seen: Tensor | None = None
        self.put_in: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_real"][0], name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.call = BlockCall(args, kwargs)
        self.seen = hidden_states
        return hidden_states if self.put_in is None else self.put_in


class BlockView:
    """`embed`, `run` one block, `head`: the three steps that the evaluator and the moments are made of.

    Args:
        model: a transformers model with a head, in evaluation mode.
        family: says where its blocks are and what their widths are.
        mlp_group: neurons that are removed together.

    Attributes:
        streamer: what brings blocks to the device, after `stream`; None where all of them are there.
        places: for each block, what else about it sets what any of its units costs.
    """

    keeps_shape = True
    """Whether every block gives hidden states of the shape that it takes."""
    items_apart = False
    """Whether the items of a sample do not look at each other, so that each is an example of its own."""

    def __init__(self, model: nn.Module, family: Family, mlp_group: int = 1) -> None:
        self.model, self.family = model, family
        self.blocks = self._found()
        config: Any = getattr(model, "config", None)
        self.widths = [
            [LiveWidth(block, w) for w in family.widths_of(block, config, mlp_group)] for block in self.blocks
        ]
        self._calls: dict[tuple[int, ...], list[BlockCall]] = {}
        self.places = [""] * len(self.blocks)
        self.streamer: Streamer | None = None

    def _found(self) -> list[nn.Module]:
        owner, _, self._name = self.family.blocks.rpartition(".")
        self._owner = self.model.get_submodule(owner)
        return list(self.model.get_submodule(self.family.blocks).children())

    def left_out(self, path: str, module: nn.Module) -> str:
        """Why a module is in no unit, behind "layers"."""
        if "norm" in type(module).__name__.lower():
            return "of norms"
        inside = any(module is one for block in self.blocks for one in block.modules())
        return "that no width of the blocks goes through" if inside else "outside of the blocks"

    @property
    def attention_types(self) -> list[str]:
        """The attention type of every block, which sets what an attention costs."""
        return layer_types(getattr(self.model, "config"))

    def number_caches(self) -> None:
        """Give cache slots to the blocks that still attend, as the network is cut now."""
        attends = [all(width.kept for width in row if width.width.kind == "attention") for row in self.widths]
        slots = cache_slots(attends, self.attention_types)
        for block, attending, slot in zip(self.blocks, attends, slots, strict=True):
            if attending:
                attention: Any = block.get_submodule(self.family.attention)
                attention.layer_idx = slot

    @contextmanager
    def as_given(self) -> Iterator[None]:
        """The network as it is when it is in use, for measurements; here that is how it always is."""
        yield

    def shape(self) -> list[Any]:
        """What tells the network's shapes from those of others: its class and configuration, not its weights."""
        config: dict[str, Any] = getattr(self.model, "config").to_dict()
        own = {key: value for key, value in config.items() if not key.startswith(("_", "transformers"))}
        return [type(self.model).__name__, own]

    def labels(self, tokens_BT: Tensor) -> Tensor:
        """What each position should predict, `[B, T]`: the next token, and -100 behind the last."""
        return next_tokens(tokens_BT)

    def state_bytes(self, length: int) -> int:
        """Of the hidden states of a sequence, the largest of any block."""
        weight_OD = self.widths[0][0].consumer_weight
        return length * weight_OD.shape[0] * weight_OD.element_size()

    def __call__(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the whole network as it stands, `[B, T, V]`."""
        model: Any = self.model
        logits: Tensor = model(input_ids=tokens_BT, use_cache=False).logits
        return logits

    def stream(self, device: str, memory: int, batch: int, length: int, masks: bool = False) -> None:
        """Leave the blocks in the host's memory, where the whole network is now, and bring them to `device` in turn.

        Args:
            device: gets what is outside the blocks at once.
            memory: bytes of it that may be used.
            batch: sequences a forward pass.
            length: tokens of a sequence.
            masks: whether any groups will be kept, not only levels.

        Raises:
            UserError: `memory` does not even hold one block.
        """
        activations = activation_bytes(self.model, self.widths, batch, length)
        self.streamer = Streamer(self.model, self.blocks, self.widths, device, memory, activations, masks)

    def enter(self, block: int) -> None:
        """Have a block's weights on the device; calling the block does that too."""
        if self.streamer is not None:
            self.streamer.enter(block)

    def rest(self) -> None:
        """Have all weights where they stay, which they must be to be permuted."""
        if self.streamer is not None:
            self.streamer.rest()

    def expect(self, consumers: Sequence[Sequence[Tensor]] | None) -> None:
        """Say which consumers' weights will be put in place in each block; None: those that are there."""
        if self.streamer is not None:
            self.streamer.expect(consumers)

    @contextmanager
    def hold(self, sequences: int, batch: int, states: int, length: int) -> Iterator[tuple[int, torch.device]]:
        """How many sequences go through the blocks together, and where their hidden states wait between blocks.

        That is one batch where all blocks are on the device; where they are brought in turn, as many as have room.

        Args:
            sequences: all of them.
            batch: sequences a forward pass; the answer is a multiple.
            states: hidden states of a sequence that are held at a time.
            length: tokens of a sequence.
        """
        if self.streamer is None:
            yield batch, next(self.model.parameters()).device
            return
        weight_OD = self.widths[0][0].consumer_weight
        nbytes = batch * states * length * weight_OD.shape[0] * weight_OD.element_size()
        with self.streamer.hold(nbytes, -(-sequences // batch)) as (batches, where):
            yield batch * batches, where

    @contextmanager
    def bench(self, nbytes: int) -> Iterator[torch.device]:
        """Where to compute something of this size besides forward passes: in the host's memory if it does not fit."""
        if self.streamer is None:
            yield next(self.model.parameters()).device
            return
        with self.streamer.reserve(nbytes) as fits:
            yield self.streamer.device if fits else torch.device("cpu")

    @torch.no_grad()
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states at the first block, `[B, T, D]`; remembers how blocks are called at this shape."""
        inner: Any = self.model.base_model  # without the head, whose logits nobody would read
        with self._ghosts() as ghosts:
            inner(input_ids=tokens_BT, use_cache=False)
            self._calls[tuple(tokens_BT.shape)] = [ghost.call for ghost in ghosts if ghost.call is not None]
            assert ghosts[0].seen is not None
            return ghosts[0].seen

    @torch.no_grad()
    def run(self, block: int, hidden_BTD: Tensor) -> Tensor:
        """One block as it stands, `[B, T, D] -> [B, T, D]`."""
        return self.forward(block, hidden_BTD)

    def forward(self, block: int, hidden_BTD: Tensor) -> Tensor:
        """The same with derivatives where the caller has them on."""
        call = self.call(block, hidden_BTD)
        out = self.blocks[block](hidden_BTD, *call.args, **call.kwargs)
        hidden: Tensor = out[0] if isinstance(out, tuple) else out
        return hidden

    def call(self, block: int, hidden_BTD: Tensor) -> BlockCall:
        """How a block is called at this shape, besides the hidden states."""
        shape = tuple(hidden_BTD.shape[:2])
        if shape not in self._calls:
            self.embed(torch.zeros(shape, dtype=torch.long, device=hidden_BTD.device))
        return self._calls[shape][block]

    @torch.no_grad()
    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Logits `[B, T, V]` from the hidden states behind the last block."""
        return self.logits(hidden_BTD)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """The same with derivatives where the caller has them on."""
        with self._ghosts() as ghosts:
            ghosts[-1].put_in = hidden_BTD
            tokens_BT = torch.zeros(hidden_BTD.shape[:2], dtype=torch.long, device=hidden_BTD.device)
            logits: Tensor = self.model(input_ids=tokens_BT, use_cache=False).logits
            return logits

    @contextmanager
    def _ghosts(self) -> Iterator[list[_Ghost]]:
        real = getattr(self._owner, self._name)
        ghosts = [_Ghost(block) for block in self.blocks]
        setattr(self._owner, self._name, nn.ModuleList(ghosts))
        try:
            yield ghosts
        finally:
            setattr(self._owner, self._name, real)
