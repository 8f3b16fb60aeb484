"""The largest logits of the dense network: its k most likely classes, and all others together as one more class.

The class of the others keeps both distributions whole. Without it the student would learn probabilities that are too
high for the k (Anshumann et al. 2025, "Sparse logit sampling", sec. 3).

Shapes: N predictions, V vocabulary, K largest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.errors import UserError


@dataclass(frozen=True)
class TopK:
    """Predictions of the dense network.

    Args:
        which: numbers of its most likely classes.
        log: their log-probabilities and, behind them, that of all others together: `[N, K + 1]`. With K = V there
            are no others, and it is `[N, K]`.
    """

    which: Tensor
    log: Tensor

    def rows(self, keep_N: Tensor) -> "TopK":
        """Some of the predictions."""
        return TopK(self.which[keep_N], self.log[keep_N])


def check_k(k: int, classes: int) -> None:
    """Refuse more classes than there are.

    Raises:
        UserError: there are fewer.
    """
    if k > classes:
        raise UserError(f"top_k={k} is more than the network's {classes:,} outputs: give fewer, or 0 for all of them.")


def top_of(logits_NV: Tensor, k: int, temperature: float) -> TopK:
    """The k most likely classes of predictions at a temperature.

    Raises:
        UserError: there are fewer classes.
    """
    check_k(k, logits_NV.shape[-1])
    which_NK = logits_NV.topk(k, dim=-1).indices
    return TopK(which_NK, log_probabilities(logits_NV, which_NK, temperature))


def log_probabilities(logits_NV: Tensor, which_NK: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of some classes and of all others together, `[N, K + 1]`; `[N, K]` if there are no others."""
    scaled_NV = logits_NV.float() / temperature
    all_N1 = scaled_NV.logsumexp(-1, keepdim=True)
    own_NK = scaled_NV.gather(-1, which_NK) - all_N1
    if which_NK.shape[-1] == logits_NV.shape[-1]:
        return own_NK
    others_N1 = scaled_NV.scatter(-1, which_NK, -torch.inf).logsumexp(-1, keepdim=True) - all_N1
    return torch.cat([own_NK, others_N1], dim=-1)
