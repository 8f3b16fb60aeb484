"""The evaluator: per-sequence losses of policies on one split, blocks outermost, shared prefixes run once.

Policies that agree on the first blocks share the hidden states there. A pruned block is computed at its pruned size
(levels/placing.py). Policies never meet in one matrix product, so a policy's loss does not depend on the batch it came
in. Where blocks are brought to the device in turn (models/streaming.py), many sequences go through a block together, in
the same forward passes, so that one transfer serves them all.

Shapes: P policies, S sequences, B sequences a forward pass, T tokens, D hidden.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
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

Choices = tuple[Choice, ...]
"""What is kept of the units of a block."""


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
        choices_P = [self.placer.choices(policy) for policy in policies]
        if self.view.streamer is not None:  # else one sequence after another, when it is needed
            self._keep_dense_hidden(sequences)
        with self._held(choices_P, len(sequences), self.batch) as (at_once, where):
            for start in range(0, len(sequences), at_once):
                together = list(sequences[start : start + at_once])
                losses_KPS[:, :, start : start + at_once] = self._score_together(choices_P, together, where)
        return losses_KPS

    def _score_together(
        self, choices_P: list[list[Choices]], sequences: list[int], where: torch.device
    ) -> NDArray[np.float64]:
        """Every loss on sequences that go through the blocks together, `[number of losses, P, S]`."""
        losses_KPS = np.empty((len(self.losses), len(choices_P), len(sequences)))
        chunks = [sequences[start : start + self.batch] for start in range(0, len(sequences), self.batch)]
        states = self._walk(choices_P, [self.view.embed(self.tokens_NT[chunk]).to(where) for chunk in chunks])
        for c, chunk in enumerate(chunks):
            references, start = self._references_of(chunk), c * self.batch
            for p, hidden in states:
                logits_BTV = self.view.head(hidden[c].to(self.tokens_NT.device))
                for k, loss in enumerate(self.losses):
                    loss_B = loss.measure(logits_BTV, references[k])
                    losses_KPS[k, p, start : start + len(chunk)] = loss_B.double().cpu().numpy()[None]
        return losses_KPS

    def _walk(self, choices_P: list[list[Choices]], hidden: list[Tensor]) -> list[tuple[list[int], list[Tensor]]]:
        """Hidden states behind the last block for each distinct policy: (indices of policies, chunks `[B, T, D]`)."""
        if self.view.streamer is not None:
            self.view.expect(self._consumers(choices_P))
        states = [(list(range(len(choices_P))), hidden)]
        for block in range(len(self.view.blocks)):
            branches: list[tuple[Choices, list[int], list[Tensor]]] = []
            for members, hidden in states:
                by_choices: dict[Choices, list[int]] = {}
                for p in members:
                    by_choices.setdefault(choices_P[p][block], []).append(p)
                branches += [(choices, ps, hidden) for choices, ps in by_choices.items()]
            states = []
            self.view.enter(block)
            for choices, ps, hidden in sorted(branches, key=_levels_first):
                self.placer.place_block(block, choices)
                states.append((ps, [self._run(block, h) for h in hidden]))
            if self.view.streamer is not None:
                self.placer.release_block(block)  # what it was put to would hold on to the device's memory
        return states

    def _run(self, block: int, hidden: Tensor) -> Tensor:
        """One block, its output where its input waited."""
        return self.view.run(block, hidden.to(self.tokens_NT.device)).to(hidden.device)

    def _held(
        self, choices_P: list[list[Choices]], sequences: int, batch: int
    ) -> AbstractContextManager[tuple[int, torch.device]]:
        """How many sequences go through the blocks together: `BlockView.hold` for the prefixes that there are."""
        if self.view.streamer is None:
            return self.view.hold(sequences, batch, 0, self.tokens_per_sequence)
        blocks = range(len(self.view.blocks) + 1)
        distinct = [len({tuple(choices[:b]) for choices in choices_P}) for b in blocks]
        most = max(map(sum, pairwise(distinct)))  # before and behind a block
        return self.view.hold(sequences, batch, most, self.tokens_per_sequence)

    def _consumers(self, choices_P: list[list[Choices]]) -> list[list[Tensor]]:
        """The weights from the store that each block will need, in order."""
        rows = []
        for block in range(len(self.view.blocks)):
            distinct = sorted(((choices[block], None, None) for choices in choices_P), key=_levels_first)
            needed = [weight for choices, _, _ in distinct for weight in self.placer.consumers(block, choices)]
            rows.append(list({id(weight): weight for weight in needed}.values()))
        return rows

    def _references_of(self, chunk: list[int]) -> list[tuple[Tensor, ...]]:
        """For each loss, what it keeps of the dense network on these sequences, from memory where it fits."""
        kept = [self._references.get(s) or self._compute_references(s) for s in chunk]
        if len(kept) == 1:
            return [tuple(map(self._here, reference)) for reference in kept[0]]
        return [
            tuple(torch.cat([self._here(part) for part in parts]) for parts in zip(*references, strict=True))
            for references in zip(*kept, strict=True)
        ]

    def _compute_references(self, sequence: int) -> list[tuple[Tensor, ...]]:
        tokens_1T = self.tokens_NT[[sequence]]
        if sequence not in self._dense_hidden:
            self._keep_dense_hidden([sequence])
        logits_1TV = self.view.head(self._here(self._dense_hidden[sequence]))
        references = [loss.prepare(logits_1TV, tokens_1T) for loss in self.losses]
        size = sum(t.numel() * t.element_size() for reference in references for t in reference)
        if size <= self._reference_bytes_left:
            references = [tuple(map(self._away, reference)) for reference in references]
            self._references[sequence] = references
            self._reference_bytes_left -= size
        return references

    def _keep_dense_hidden(self, sequences: Sequence[int]) -> None:
        """Run the dense network on sequences, each by itself so that its state does not depend on the others."""
        missing = [s for s in dict.fromkeys(sequences) if s not in self._dense_hidden]
        choices_1 = [self.placer.choices(self.space.dense)]
        with self._held(choices_1, len(missing), 1) as (at_once, where):
            for start in range(0, len(missing), at_once):
                together = missing[start : start + at_once]
                embedded = [self.view.embed(self.tokens_NT[[s]]).to(where) for s in together]
                ((_, states),) = self._walk(choices_1, embedded)
                self._dense_hidden.update(zip(together, map(self._away, states), strict=True))

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.tokens_NT.device)

    def _away(self, tensor: Tensor) -> Tensor:
        """To the host's memory where the device's is short."""
        return tensor if self.view.streamer is None else tensor.cpu()


def _levels_first(branch: tuple[Choices, Any, Any]) -> list[tuple[bool, Choice]]:
    """Equal choices are neighbours, whatever order the policies came in."""
    return [(isinstance(choice, bytes), choice) for choice in branch[0]]


def sort_groups(view: BlockView, store: LevelStore) -> None:
    """Permute the live network's groups into the store's order, once; it computes the same function."""
    view.rest()
    for u, width in enumerate(width for row in view.widths for width in row):
        width.permute(store.order(u))
