"""Losses against another network than the one that is pruned: the original dense network, in later rounds.

Shapes: N sequences, B of a forward pass, T tokens, D hidden, V vocabulary, K losses.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.networks.blocks import BlockView
from autoprune.ports.loss import Loss


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
