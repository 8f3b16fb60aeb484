"""A network as `embed -> blocks -> head`, whatever its family.

transformers' own forward is used throughout: while a call runs, the blocks are replaced by ghosts that record how
each block is called, or put given hidden states in. So masks, rotary embeddings, final norms and soft-capping need
no code of ours.

Shapes: B sequences, T tokens, D hidden, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.models.family import Family
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
    """

    def __init__(self, model: nn.Module, family: Family, mlp_group: int = 1) -> None:
        self.model, self.family = model, family
        owner, _, self._name = family.blocks.rpartition(".")
        self._owner = model.get_submodule(owner)
        self.blocks = list(model.get_submodule(family.blocks).children())
        config: Any = model.config
        self.widths = [[LiveWidth(block, w) for w in family.widths(block, config, mlp_group)] for block in self.blocks]
        self._calls: dict[tuple[int, ...], list[BlockCall]] = {}

    @torch.no_grad()
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states at the first block, `[B, T, D]`; remembers how blocks are called at this shape."""
        with self._ghosts() as ghosts:
            self.model(input_ids=tokens_BT, use_cache=False)
            self._calls[tuple(tokens_BT.shape)] = [ghost.call for ghost in ghosts if ghost.call is not None]
            assert ghosts[0].seen is not None
            return ghosts[0].seen

    @torch.no_grad()
    def run(self, block: int, hidden_BTD: Tensor) -> Tensor:
        """One block as it stands, `[B, T, D] -> [B, T, D]`. `embed` must have seen the shape."""
        call = self._calls[tuple(hidden_BTD.shape[:2])][block]
        out = self.blocks[block](hidden_BTD, *call.args, **call.kwargs)
        hidden: Tensor = out[0] if isinstance(out, tuple) else out
        return hidden

    @torch.no_grad()
    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Logits `[B, T, V]` from the hidden states behind the last block."""
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
