"""A causal language model of transformers as `embed -> blocks -> head`.

The forward of transformers is used throughout. During a call, recorders replace the blocks; they record the arguments
of each block, or insert given hidden states. So masks, rotary embeddings, final norms and soft-capping need no code
here.

Shapes: B sequences, T tokens, D hidden, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.cutting.ends import ends_of
from autoprune.cutting.live import LiveWidth
from autoprune.data.text import next_tokens
from autoprune.networks.blocks import BlockCall, BlockView, live_widths
from autoprune.networks.family import Family
from autoprune.networks.slots import cache_slots, layer_types


class _Recorder(nn.Module):
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


class TextView(BlockView):
    """A language model as blocks.

    Args:
        model: a transformers model with a head, in evaluation mode.
        family: says where its blocks are and what their widths are.
        mlp_group: neurons that are removed together.
    """

    def __init__(self, model: nn.Module, family: Family, mlp_group: int = 1) -> None:
        self.model, self.family = model, family
        owner, _, self._name = family.blocks.rpartition(".")
        self._owner = model.get_submodule(owner)
        self.blocks = list(model.get_submodule(family.blocks).children())
        self.widths = live_widths(model, family, self.blocks, mlp_group)
        self.places = [""] * len(self.blocks)
        self._calls: dict[tuple[int, ...], list[BlockCall]] = {}

    @torch.no_grad()
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states at the first block, `[B, T, D]`; remembers how blocks are called at this shape."""
        inner: Any = self.model.base_model  # without the head, whose logits nobody would read
        with self._recorders() as recorders:
            inner(input_ids=tokens_BT, use_cache=False)
            self._calls[tuple(tokens_BT.shape)] = [one.call for one in recorders if one.call is not None]
            assert recorders[0].seen is not None
            return recorders[0].seen

    def forward(self, block: int, hidden_BTD: Tensor) -> Tensor:
        """One block as it stands, `[B, T, D] -> [B, T, D]`."""
        call = self.call(block, hidden_BTD)
        out = self.blocks[block](hidden_BTD, *call.args, **call.kwargs)
        hidden: Tensor = out[0] if isinstance(out, tuple) else out
        return hidden

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Logits `[B, T, V]`."""
        with self._recorders() as recorders:
            recorders[-1].put_in = hidden_BTD
            tokens_BT = torch.zeros(hidden_BTD.shape[:2], dtype=torch.long, device=hidden_BTD.device)
            logits: Tensor = self.model(input_ids=tokens_BT, use_cache=False).logits
            return logits

    def __call__(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the whole network as it stands, `[B, T, V]`."""
        logits: Tensor = self.model(input_ids=tokens_BT, use_cache=False).logits
        return logits

    def labels(self, tokens_BT: Tensor) -> Tensor:
        """The next token, and -100 behind the last."""
        return next_tokens(tokens_BT)

    def state_bytes(self, length: int) -> int:
        """Between blocks all hidden states are of one size."""
        weight_OD = self.widths[0][0].consumer_weight
        return length * weight_OD.shape[0] * weight_OD.element_size()

    def activation_bytes(self, batch: int, length: int) -> int:
        """In a block, or at the head.

        In a block some copies of the residual stream, of both widths' inputs and a mask; at the head the logits, in
        float32 again, and a loss's reference and temporary.
        """
        weight_OD = self.widths[0][0].consumer_weight
        size, hidden = weight_OD.element_size(), weight_OD.shape[0]
        inner = max(sum(width.consumer_weight.shape[1] for width in row) for row in self.widths)
        model: Any = self.model
        vocabulary = model.get_input_embeddings().weight.shape[0]
        in_block = size * (8 * hidden + 4 * inner + length)
        at_head = size * (2 * hidden + vocabulary) + 4 * 4 * vocabulary
        return int(batch * length * max(in_block, at_head))

    def call(self, block: int, hidden_BTD: Tensor) -> BlockCall:
        """How a block is called at this shape, besides the hidden states."""
        shape = tuple(hidden_BTD.shape[:2])
        if shape not in self._calls:
            self.embed(torch.zeros(shape, dtype=torch.long, device=hidden_BTD.device))
        return self._calls[shape][block]

    @property
    def attention_types(self) -> list[str]:
        """As the configuration has them."""
        return layer_types(getattr(self.model, "config"))

    def shape(self) -> list[Any]:
        """The class of the model, and its configuration."""
        config: dict[str, Any] = getattr(self.model, "config").to_dict()
        own = {key: value for key, value in config.items() if not key.startswith(("_", "transformers"))}
        return [type(self.model).__name__, own]

    def number_caches(self) -> None:
        """Give cache slots to the blocks that still attend."""
        attends = [all(width.kept for width in row if width.width.kind == "attention") for row in self.widths]
        slots = cache_slots(attends, self.attention_types)
        for block, attending, slot in zip(self.blocks, attends, slots, strict=True):
            if attending:
                attention: Any = block.get_submodule(self.family.attention)
                attention.layer_idx = slot

    def output_matrix(self) -> nn.Module | None:
        """The output embeddings."""
        model: Any = self.model
        matrix: nn.Module | None = model.get_output_embeddings()
        return matrix

    @cached_property
    def ends(self) -> list[LiveWidth]:
        """Both embeddings; one where they are tied."""
        model: Any = self.model
        return ends_of(self.model, model.get_input_embeddings(), self.output_matrix())

    @contextmanager
    def _recorders(self) -> Iterator[list[_Recorder]]:
        real = getattr(self._owner, self._name)
        recorders = [_Recorder(block) for block in self.blocks]
        setattr(self._owner, self._name, nn.ModuleList(recorders))
        try:
            yield recorders
        finally:
            setattr(self._owner, self._name, real)
