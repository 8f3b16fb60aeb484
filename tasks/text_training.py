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
from autoprune.data.layout import Layout
from autoprune.data.text import NOTHING
from autoprune.errors import UserError
from autoprune.networks.blocks import BlockView
from autoprune.networks.loading import digest
from autoprune.ports.loss import Loss
from autoprune.ports.training import LossSettings, Measurement, TrainingSet
from autoprune.tasks.causal_lm import CausalLM
from autoprune.tasks.text_teaching import check_layout, check_separation, counted, digest_of, positions_of
from autoprune.training.blending import blended, compares_blocks
from autoprune.training.logit_cache import LogitCache
from autoprune.training.recording import block_names, recorded
from autoprune.training.settings import LAYERNORM
from autoprune.training.top_k import TopK, check_k, top_of

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
        layout: returns where the documents of the training sequences begin and, if asked, what the assistant says.
        digest: a hash of the dense network, if it is known.
    """

    defaults = DEFAULTS

    def __init__(
        self,
        view: BlockView,
        tokens_NT: Tensor,
        held_out_NT: Tensor,
        layout: Callable[[bool], Layout] | None = None,
        digest: str = "",
    ) -> None:
        self.view, self.dense, self.count = view, view.model, len(tokens_NT)
        self.tokens, self.validation_count = tokens_NT.shape[1], len(held_out_NT)
        self._tokens_NT, self._held_out_NT = tokens_NT, held_out_NT
        self._layout_of, self._digest = layout, digest
        self._layouts: dict[tuple[bool, bool], Layout] = {}
        self._caches: dict[tuple[int, float, bool], LogitCache] = {}
        first = next(view.model.parameters())
        self._device, self._half = first.device, first.dtype != torch.float32

    def loss(self, student: nn.Module, some: Tensor, settings: LossSettings, draw: torch.Generator) -> Tensor:
        """Mean over predictions."""
        tokens_BT, given = self._tokens_NT[some].to(self._device), self._given(some, settings)
        names = block_names(self.view) if compares_blocks(settings) else []
        half = settings.in_bfloat16(self._half)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half), recorded(student, names) as own:
            own_BTV = logits(student, tokens_BT, **given)
        labels_BT = self.view.labels(tokens_BT)
        keep = None
        if settings.separate_documents or settings.answers_only:
            layout = self._layout(settings)
            some_of = Layout(layout.documents[some].to(self._device), layout.answers[some].to(self._device))
            labels_BT = counted(labels_BT, some_of, settings)
            keep = (labels_BT != NOTHING).flatten()
            if not bool(keep.any()):
                return own_BTV.float().sum() * 0
        dense_hidden: list[Tensor] = []

        def taught() -> Tensor | TopK:
            if settings.cached:
                found = self._cache(settings).read(some)
                found = TopK(found.which.to(self._device), found.log.to(self._device))
                return found if keep is None else found.rows(keep)
            with recorded(self.dense, names) as hidden:
                dense_BTV = logits(self.dense, tokens_BT, **given)
            dense_hidden.extend(_kept(one, keep) for one in hidden)
            return _kept(dense_BTV, keep)

        return blended(
            _kept(own_BTV, keep), taught, labels_BT.flatten() if keep is None else labels_BT.flatten()[keep], settings,
            ([_kept(one, keep) for one in own], dense_hidden),
        )  # fmt: skip

    def _given(self, some: Tensor, settings: LossSettings) -> dict[str, Tensor]:
        """What a network is given beside the tokens of some sequences."""
        if not settings.separate_documents:
            return {}
        return {"position_ids": positions_of(self._layout(settings).documents[some]).to(self._device)}

    def _layout(self, settings: LossSettings) -> Layout:
        """The layout of all sequences, which is read and checked once."""
        asked = settings.separate_documents, settings.answers_only
        if asked not in self._layouts:
            if self._layout_of is None:
                raise UserError("separate_documents and answers_only need the run's data, and these are tokens alone.")
            layout = self._layout_of(settings.answers_only)
            check_layout(layout, settings)
            if settings.separate_documents:
                check_separation(self.dense, self._tokens_NT, layout.documents)
            self._layouts[asked] = layout
        return self._layouts[asked]

    @torch.no_grad()
    def _cache(self, settings: LossSettings) -> LogitCache:
        """The dense network's most likely classes on disk, which are written once."""
        k, heat, apart = settings.top_k, settings.temperature, settings.separate_documents
        if (k, heat, apart) not in self._caches:
            one = torch.zeros(1, dtype=torch.long)
            classes = logits(self.dense, self._tokens_NT[one][:, :1].to(self._device)).shape[-1]
            check_k(k, classes)
            documents = [self._layout(settings).documents] if apart else []
            sequences = digest_of(self._tokens_NT, *documents)
            key = f"{self._digest or digest(self.dense)} {sequences} {k} {heat} {self._half}"
            cache = LogitCache(key, self.count, (self.tokens, k), k < classes)

            def answers(some: Tensor) -> TopK:
                return top_of(logits(self.dense, self._tokens_NT[some].to(self._device), **self._given(some, settings)),
                              k, heat)  # fmt: skip

            cache.fill(answers, MEASURED)
            self._caches[k, heat, apart] = cache
        return self._caches[k, heat, apart]

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


def logits(network: nn.Module, tokens_BT: Tensor, **given: Tensor) -> Tensor:
    """`[B, T, V]`; `given` is what the network gets beside the tokens."""
    out: Tensor = network(input_ids=tokens_BT, use_cache=False, **given).logits
    return out


def _kept(values_BTK: Tensor, keep_N: Tensor | None) -> Tensor:
    """A row for each prediction, of those that count."""
    values_NK = values_BTK.flatten(0, 1)
    return values_NK if keep_N is None else values_NK[keep_N]
