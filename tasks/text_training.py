"""Training of language models on sequences of a text.

Shapes: N sequences, B of a forward pass, T tokens, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.calibration.losses import CrossEntropy, KullbackLeibler
from autoprune.networks.blocks import BlockView
from autoprune.ports.loss import Loss
from autoprune.ports.training import LossSettings, Measurement, TrainingSet
from autoprune.tasks.causal_lm import CausalLM
from autoprune.training.blending import blended
from autoprune.training.settings import LAYERNORM

MEASURED = 4  # sequences at a time
DEFAULTS: dict[str, Any] = LAYERNORM | {"batch": 8, "at_once": 4, "temperature": 1.0, "augment": False}


@dataclass(frozen=True)
class TextMeasurement(Measurement):
    """Means over tokens.

    Args:
        ce: cross-entropy, nats.
        perplexity: `exp(ce)`.
        kl: divergence from the dense network, nats.
    """

    words = CausalLM.words
    ce: float
    perplexity: float
    kl: float


class TextTraining(TrainingSet):
    """Training sequences. Dropout is off: training is short, and the dense network answers without dropout, too.

    If the dense network computes in half precision, the student uses autocast with bfloat16, unless `dtype` says which.

    Args:
        view: the view of the dense network.
        tokens_NT: the training sequences.
        held_out_NT: the validation split.
    """

    defaults = DEFAULTS

    def __init__(self, view: BlockView, tokens_NT: Tensor, held_out_NT: Tensor) -> None:
        self.view, self.dense, self.count = view, view.model, len(tokens_NT)
        self.tokens = tokens_NT.shape[1]
        self._tokens_NT, self._held_out_NT = tokens_NT, held_out_NT
        first = next(view.model.parameters())
        self._device, self._half = first.device, first.dtype != torch.float32

    def loss(self, student: nn.Module, some: Tensor, settings: LossSettings, draw: torch.Generator) -> Tensor:
        """Mean over predictions."""
        tokens_BT = self._tokens_NT[some].to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=settings.in_bfloat16(self._half)):
            own_BTV = logits(student, tokens_BT)
        labels_BT = self.view.labels(tokens_BT)
        return blended(
            own_BTV.flatten(0, 1), lambda: logits(self.dense, tokens_BT).flatten(0, 1), labels_BT.flatten(), settings
        )

    @torch.no_grad()
    def measured(self, network: nn.Module, progress: Callable[[float], None] = lambda share: None) -> TextMeasurement:
        """Means over sequences, as in a search."""
        losses: list[Loss] = [CrossEntropy(), KullbackLeibler()]
        sums = [0.0, 0.0]
        for part, tokens_BT in enumerate(torch.split(self._held_out_NT, MEASURED)):
            progress(part * MEASURED / len(self._held_out_NT))
            tokens_BT = tokens_BT.to(self._device)
            labels_BT, dense_BTV = self.view.labels(tokens_BT), logits(self.dense, tokens_BT)
            own_BTV = dense_BTV if network is self.dense else logits(network, tokens_BT)
            for i, loss in enumerate(losses):
                loss_B = loss.measure(own_BTV, loss.prepare(dense_BTV, labels_BT))
                sums[i] += float(loss_B.double().sum())
        ce, kl = (total / len(self._held_out_NT) for total in sums)
        kl = 0.0 if network is self.dense else max(0.0, kl)  # but for rounding
        return TextMeasurement(ce, math.exp(ce) if ce < 700 else math.inf, kl)


def logits(network: nn.Module, tokens_BT: Tensor) -> Tensor:
    """`[B, T, V]`."""
    out: Tensor = network(input_ids=tokens_BT, use_cache=False).logits
    return out
