"""The evaluator: per-sequence losses of policies on one split, blocks outermost, shared prefixes run once.

Policies that agree on the first blocks share the hidden states there. A pruned block is computed at its pruned size
(levels/placing.py). Policies never meet in one matrix product, so a policy's loss does not depend on the batch it came
in.

Shapes: P policies, S sequences, B sequences a forward pass, T tokens, D hidden.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.calibration.losses import Loss
from autoprune.levels.placing import Choice, Placer
from autoprune.levels.store import LevelStore
from autoprune.models.blocks import BlockView
from autoprune.space import Proposal

REFERENCE_BYTES = 256 * 2**20


class Evaluator:
    """Scores policies on a fixed set of sequences.

    Args:
        placer: puts proposals in place on the network, whose groups are in the store's order (see `sort_groups`).
        tokens_NT: the split.
        losses: what is measured; agents see the first.
        batch: sequences a forward pass.
        reference_bytes: memory for what the losses keep of the dense network; beyond it, that is computed again.
    """

    def __init__(
        self,
        placer: Placer,
        tokens_NT: Tensor,
        losses: Sequence[Loss],
        batch: int = 1,
        reference_bytes: int = REFERENCE_BYTES,
    ) -> None:
        self.placer, self.view, self.space = placer, placer.view, placer.space
        self.losses, self.batch, self.tokens_NT = tuple(losses), batch, tokens_NT
        self._dense_hidden: dict[int, Tensor] = {}
        self._references: dict[int, list[tuple[Tensor, ...]]] = {}
        self._reference_bytes_left = reference_bytes

    @property
    def n_sequences(self) -> int:
        """Sequences in the split."""
        return len(self.tokens_NT)

    @property
    def tokens_per_sequence(self) -> int:
        """Their length."""
        return self.tokens_NT.shape[1]

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """The first loss of policies on some sequences, `[P, S]`, nats per token. NaN where a network overflows."""
        return np.asarray(self.score_each(policies, sequences)[0])

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """The first loss of the dense network, `[S]`; nothing is run for a loss that is 0 there."""
        if getattr(self.losses[0], "zero_at_dense", False):
            return np.zeros(len(sequences))
        return np.asarray(self.score([self.space.dense], sequences)[0])

    def score_each(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """Every loss, `[number of losses, P, S]`."""
        losses_KPS = np.empty((len(self.losses), len(policies), len(sequences)))
        for start in range(0, len(sequences), self.batch):
            chunk = list(sequences[start : start + self.batch])
            references = self._references_of(chunk)
            for p, hidden in self._walk(policies, self.view.embed(self.tokens_NT[chunk])):
                logits_BTV = self.view.head(hidden)
                for k, loss in enumerate(self.losses):
                    loss_B = loss.measure(logits_BTV, references[k])
                    losses_KPS[k, p, start : start + len(chunk)] = loss_B.double().cpu().numpy()[None]
        return losses_KPS

    def _walk(self, policies: Sequence[Proposal], hidden: Tensor) -> list[tuple[list[int], Tensor]]:
        """Hidden states behind the last block for each distinct policy: (indices of policies, `[B, T, D]`)."""
        choices_P = [self.placer.choices(policy) for policy in policies]
        states = [(list(range(len(policies))), hidden)]
        for block in range(len(self.view.blocks)):
            branches: list[tuple[tuple[Choice, ...], list[int], Tensor]] = []
            for members, hidden in states:
                by_choices: dict[tuple[Choice, ...], list[int]] = {}
                for p in members:
                    by_choices.setdefault(choices_P[p][block], []).append(p)
                branches += [(choices, ps, hidden) for choices, ps in by_choices.items()]
            states = []
            for choices, ps, hidden in sorted(branches, key=_levels_first):
                self.placer.place_block(block, choices)
                states.append((ps, self.view.run(block, hidden)))
        return states

    def _references_of(self, chunk: list[int]) -> list[tuple[Tensor, ...]]:
        """For each loss, what it keeps of the dense network on these sequences, from memory where it fits."""
        kept = [self._references.get(s) or self._compute_references(s) for s in chunk]
        if len(kept) == 1:
            return kept[0]
        return [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*kept, strict=True)]

    def _compute_references(self, sequence: int) -> list[tuple[Tensor, ...]]:
        tokens_1T = self.tokens_NT[[sequence]]
        if sequence not in self._dense_hidden:
            ((_, hidden),) = self._walk([self.space.dense], self.view.embed(tokens_1T))
            self._dense_hidden[sequence] = hidden
        logits_1TV = self.view.head(self._dense_hidden[sequence])
        references = [loss.prepare(logits_1TV, tokens_1T) for loss in self.losses]
        size = sum(t.numel() * t.element_size() for reference in references for t in reference)
        if size <= self._reference_bytes_left:
            self._references[sequence] = references
            self._reference_bytes_left -= size
        return references


def _levels_first(branch: tuple[tuple[Choice, ...], Any, Any]) -> list[tuple[bool, Choice]]:
    """Equal choices are neighbours, whatever order the policies came in."""
    return [(isinstance(choice, bytes), choice) for choice in branch[0]]


def sort_groups(view: BlockView, store: LevelStore) -> None:
    """Permute the live network's groups into the store's order, once; it computes the same function."""
    for u, width in enumerate(width for row in view.widths for width in row):
        width.permute(store.order(u))
