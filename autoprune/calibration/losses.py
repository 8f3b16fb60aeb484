"""Calibration losses: how far a pruned network's predictions are from the dense network's, or from the labels.

Labels are the text's own next tokens or the classes of images, -100 where nothing is predicted (the end of a text).

Shapes: B sequences, T tokens (or images), V vocabulary (or classes). A loss is a small object: `prepare` keeps
what it needs of the dense logits once, `measure` compares a candidate's logits with it. Nats per token, one number a
sequence.

Cross-entropies to any distribution are linear in the logits but for their logarithm of summed exponentials. Such a loss
says so with a `target`, and behind a linear head it is measured without logits, with the same result: the mean of
`constant + logsumexp(z) - embedding . read` (networks/head.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.networks.head import LinearHead
from autoprune.ports.loss import Loss


@dataclass(frozen=True)
class Target:
    """What a loss keeps of a sequence behind a linear head.

    Args:
        embedding: `[T, D]` float32, of the scalar product with what the head's matrix reads.
        constant: `[T]` float32, added to it.
        counted: predictions that count, the first.
    """

    embedding: Tensor
    constant: Tensor
    counted: int

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return 4 * (self.embedding.numel() + self.constant.numel())


def is_linear(loss: Loss) -> bool:
    """Whether a loss has a `target` that is of what it measures: a subclass that measures otherwise inherits none."""
    definer = {
        name: next(c for c in type(loss).__mro__ if name in vars(c)) for name in ("measure", "target", "prepare")
    }
    own = all(issubclass(definer["target"], definer[name]) for name in ("measure", "prepare"))
    return own and definer["target"] is not Loss


class KullbackLeibler(Loss):
    """KL(dense || pruned) over the next token, or over classes."""

    zero_at_dense = True

    def prepare(self, logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, ...]:
        """Dense probabilities `[B, T, V]` and their negative entropy `[B, T]`."""
        logp_BTV = logits_BTV.float().log_softmax(-1)
        p_BTV = logp_BTV.exp()
        return p_BTV, (p_BTV * logp_BTV).sum(-1)

    def target(self, head: LinearHead, read_TD: Tensor, labels_T: Tensor) -> Target:
        """The output embedding that the dense network expects, and its negative entropy."""
        target_TD, offset_T, negentropy_T = head.expected(read_TD)
        return Target(target_TD, negentropy_T - offset_T, len(read_TD))

    def measure(self, logits_BTV: Tensor, reference: tuple[Tensor, ...]) -> Tensor:
        """Divergence averaged over the tokens of each sequence, `[B]`."""
        p_BTV, negentropy_BT = reference
        z_BTV = logits_BTV.float()
        # sum p (log p - z + lse z), with one pass over the vocabulary for each term
        cross_BT = torch.linalg.vecdot(p_BTV, z_BTV) - z_BTV.logsumexp(-1)
        loss_B: Tensor = (negentropy_BT - cross_BT).mean(-1)
        return loss_B


class CrossEntropy(Loss):
    """Negative log-likelihood of the labels; of a text, `exp` of its mean is the perplexity."""

    def prepare(self, logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, ...]:
        """The labels `[B, T]`; the dense logits are not needed."""
        return (labels_BT,)

    def target(self, head: LinearHead, read_TD: Tensor, labels_T: Tensor) -> Target:
        """The output embedding of the label; what has none stands at the end and does not count."""
        target_TD, offset_T = head.chosen(labels_T.clamp_min(0))
        return Target(target_TD, -offset_T, int((labels_T >= 0).sum()))

    def measure(self, logits_BTV: Tensor, reference: tuple[Tensor, ...]) -> Tensor:
        """Negative log-likelihood averaged over the labels of each sequence, `[B]`."""
        (labels_BT,) = reference
        z_BTV = logits_BTV.float()
        chosen_BT = z_BTV.gather(-1, labels_BT.clamp_min(0)[..., None]).squeeze(-1)
        return _mean(z_BTV.logsumexp(-1) - chosen_BT, labels_BT)


class ErrorRate(Loss):
    """The share of positions whose label is not the most likely answer: 1 - top-1 accuracy."""

    def prepare(self, logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, ...]:
        """The labels `[B, T]`; the dense logits are not needed."""
        return (labels_BT,)

    def measure(self, logits_BTV: Tensor, reference: tuple[Tensor, ...]) -> Tensor:
        """Of the labels of each sequence, `[B]`."""
        (labels_BT,) = reference
        return _mean((logits_BTV.argmax(-1) != labels_BT).float(), labels_BT)


def _mean(values_BT: Tensor, labels_BT: Tensor) -> Tensor:
    """Over positions that have a label, `[B]`."""
    counted_BT = labels_BT >= 0
    return values_BT.where(counted_BT, 0.0).sum(-1) / counted_BT.sum(-1)
