"""Losses against another network than the one that is pruned: the original dense network, in later rounds.

Shapes: N tokens, T tokens of a sequence, D hidden, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.networks.blocks import BlockView
from autoprune.networks.head import LinearHead
from autoprune.ports.loss import Loss


@dataclass(frozen=True)
class TaughtHead(LinearHead):
    """The linear head of a network whose reference is another network with the same vocabulary.

    Args:
        teacher: the reference's head. `read` gives what its matrix takes.
    """

    teacher: LinearHead | None = None

    def read(self, hidden_BTD: Tensor) -> Tensor:
        """What the teacher's matrix takes, `[B, T, D]`, from hidden states of the teacher."""
        assert self.teacher is not None
        return self.teacher.read(hidden_BTD)

    @torch.no_grad()
    def expected(
        self, read_ND: Tensor, look: Callable[[Tensor], None] = lambda p_NV: None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As of a `LinearHead`, for the teacher's softmax and this head's logits."""
        assert self.teacher is not None
        target_ND = torch.zeros((len(read_ND), self.matrix.weight.shape[1]), device=read_ND.device)
        offset_N, seen = target_ND.new_zeros(len(read_ND)), 0

        def mix(p_NV: Tensor) -> None:
            nonlocal seen
            piece = slice(seen, seen + p_NV.shape[1])
            target_ND.add_(self._mixed(p_NV, self.matrix.weight[piece]), alpha=self.factor)
            if self.matrix.bias is not None:
                offset_N.add_(p_NV @ self.matrix.bias[piece].float(), alpha=self.factor)
            seen = piece.stop
            look(p_NV)

        _, _, negentropy_N = self.teacher.expected(read_ND, mix)
        return target_ND, offset_N, negentropy_N


@torch.no_grad()
def hidden_behind(view: BlockView, tokens_1T: Tensor) -> Tensor:
    """Hidden states behind the last block of a network as it stands."""
    hidden_1TD = view.embed(tokens_1T)
    for block in range(len(view.blocks)):
        hidden_1TD = view.run(block, hidden_1TD)
    return hidden_1TD


@torch.no_grad()
def own_losses(view: BlockView, tokens_NT: Tensor, losses: Sequence[Loss], batch: int) -> NDArray[np.float64]:
    """Losses of a network against itself and the labels, `[K, N]`.

    Args:
        view: the network as it stands.
        tokens_NT: sequences.
        losses: what is measured.
        batch: sequences in a forward pass.
    """
    rows = []
    for tokens_BT in torch.split(tokens_NT.to(view.device), batch):
        logits_BTV, labels_BT = view(tokens_BT), view.labels(tokens_BT)
        measured = [loss.measure(logits_BTV, loss.prepare(logits_BTV, labels_BT)).double() for loss in losses]
        rows.append(torch.stack(measured).cpu().numpy())
    return np.concatenate(rows, axis=1)
