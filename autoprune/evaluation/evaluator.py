"""The evaluator: per-sequence losses of policies on one split, each distinct prefix of a policy run once.

Policies that agree on the first blocks share the hidden states there, within a call and, if memory allows, with earlier
calls. So an offspring starts at the first block in which it differs from its parent (prefix_runner.py). A pruned
block is computed at its pruned size (levels/placing.py). With `batch=1`, as on a CPU, no two states meet in one matrix
product, so a loss does not depend on what else is scored. With larger batches, on a GPU, it may differ by rounding.

If blocks are streamed to the device (networks/streaming.py), many sequences go through a block before the next one is
loaded, and no states are kept for later calls.

Shapes: K losses, P policies, S sequences, B states of a forward pass, T tokens, D hidden.
"""

import copy
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.calibration.losses import Target
from autoprune.evaluation.prefix_runner import PrefixRunner, Whole, levels_first
from autoprune.evaluation.prefixes import Choices, Node
from autoprune.evaluation.readout import Readout, Reference
from autoprune.evaluation.slopes import PASSES, Slopes
from autoprune.levels.placing import Choice, Placer
from autoprune.levels.store import LevelStore
from autoprune.networks.blocks import BlockView
from autoprune.ports.candidate_training import CandidateTraining
from autoprune.ports.loss import Loss
from autoprune.ports.scorer import Scorer
from autoprune.space import Levels, Proposal
from autoprune.training.candidate import CandidateTrainer
from autoprune.training.memory import free_bytes
from autoprune.training.step import DivergedError

REFERENCE_BYTES = 256 * 2**20
MOST_STATE_BYTES = 2 * 2**30
"""The default on a CPU, where other programs need memory, too. Twice as much saves 7 % of the blocks of 400k tokens."""

Losses = dict[tuple[Whole, int], NDArray[np.float64]]
"""Every loss, `[K]`, by policy and sequence."""


class Evaluator(Scorer):
    """Scores policies on a fixed set of sequences.

    Args:
        placer: puts proposals in place on the network, whose groups are in the store's order (see `sort_groups`).
        tokens_NT: the split.
        losses: the losses to measure. Agents get the first.
        batch: number of states in a forward pass.
        reference_bytes: memory for references of the dense network. References beyond it are computed again. 0 means
            that every sequence is scored once, so hidden states are not kept for later calls either.
        state_bytes: memory for hidden states: half for a call, half for states that are kept for later calls.
        trainer: trains the networks of policies; None if nothing can be trained.
        original: the dense network that losses compare with; None if it is the placer's own at level 0.

    Attributes:
        runner: runs policies through the blocks.
    """

    def __init__(
        self,
        placer: Placer,
        tokens_NT: Tensor,
        losses: Sequence[Loss],
        batch: int = 1,
        reference_bytes: int = REFERENCE_BYTES,
        state_bytes: int = 2**30,
        trainer: CandidateTrainer | None = None,
        original: BlockView | None = None,
    ) -> None:
        self.placer, self.view, self.space = placer, placer.view, placer.space
        self.losses, self.batch, self.tokens_NT = tuple(losses), batch, tokens_NT
        self._at_once_bytes = state_bytes // 2
        kept_bytes = 0 if self.view.streamed or not reference_bytes else state_bytes // 2
        self.runner = PrefixRunner(placer, tokens_NT, batch, kept_bytes)
        self._readout = Readout(self.view, losses, reference_bytes, placer, original)
        self._zero_at_dense = losses[0].zero_at_dense and original is None
        self._slopes: Slopes | None = None
        self._trainer = trainer

    @property
    def n_sequences(self) -> int:
        """Sequences in the split."""
        return len(self.tokens_NT)

    @property
    def tokens_per_sequence(self) -> int:
        """Their length."""
        return self.tokens_NT.shape[1]

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """The first loss of policies on the given sequences, `[P, S]`, nats per token. NaN if a network overflows."""
        return np.asarray(self.score_each(policies, sequences)[0])

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """The first loss at level 0 everywhere, `[S]`. A loss that is 0 there needs no forward pass."""
        if self._zero_at_dense:
            return np.zeros(len(sequences))
        return np.asarray(self.score([self.space.dense], sequences)[0])

    def score_each(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """Every loss, `[K, P, S]`."""
        whole_P = [self._whole(policy) for policy in policies]
        asked, wanted = dict.fromkeys(sequences), set(whole_P)
        new = [s for s in asked if not self._readout.knows(s)]
        losses = self._run(wanted, [s for s in asked if s not in set(new)]) | self._run(wanted, new)
        return np.array([[losses[policy, s] for s in sequences] for policy in whole_P]).transpose(2, 0, 1)

    @property
    def slope_passes(self) -> int:
        """Forward passes that the slopes of a sequence take."""
        return PASSES

    def slopes(self, policy: Levels, sequences: Sequence[int]) -> NDArray[np.float64] | None:
        """Estimated change of the first loss at other levels of each unit, `[U, L]`, by derivatives (slopes.py).

        None if the head is not linear or blocks are streamed to the device.
        """
        head = self._readout.head
        if head is None or self.view.streamed:
            return None
        self._slopes = self._slopes or Slopes(self.placer, head, self.tokens_NT)
        self._run(set(), [s for s in sequences if not self._readout.knows(s)])
        self._readout.behind(self.placer.ends(policy))
        tables = []
        for s in sequences:
            target = self._readout.references(s, self.tokens_NT[s])[0]
            assert isinstance(target, Target)
            tables.append(self._slopes.measure(policy, s, target))
        return np.asarray(np.mean(tables, axis=0))

    @property
    def step_passes(self) -> int:
        """Forward passes over a sequence that a training step is charged as."""
        return self._trainer.step_passes(self.tokens_per_sequence) if self._trainer else 0

    @property
    def step_items(self) -> int:
        """Number of tokens, or images, that a training step reads."""
        return self._trainer.step_items(self.tokens_per_sequence) if self._trainer else 0

    @property
    def training_items(self) -> int | None:
        """Number of tokens, or images, that there are to train on."""
        return self._trainer.items if self._trainer else None

    def training_passes(self, before: int, steps: int) -> int:
        """Forward passes that are charged for training a network from `before` steps to `steps`."""
        return self._trainer.passes(before, steps, self.tokens_per_sequence) if self._trainer else 0

    def with_training(self, how: CandidateTraining, tick: Callable[[], None]) -> "Evaluator":
        """An evaluator with the same network and states, and trainings of its own."""
        own = copy.copy(self)
        own._trainer = self._trainer and self._trainer.with_training(how, tick)
        return own

    @torch.no_grad()
    def score_trained(self, policies: Sequence[Proposal], sequences: Sequence[int], steps: int) -> NDArray[np.float64]:
        """The first loss of policies after training steps, `[P, S]`; infinite where a training diverges."""
        assert self._trainer is not None
        losses_PS = np.full((len(policies), len(sequences)), np.inf)
        for p, policy in enumerate(policies):
            references = self._references(policy, sequences)
            with suppress(DivergedError), self._trainer.in_place(policy, steps):
                for some, losses_KB in self._standing(sequences, references):
                    losses_PS[p, some] = losses_KB[0]
        return losses_PS

    @torch.no_grad()
    def score_placed(
        self, policy: Proposal, place: Callable[[], object], sequences: Sequence[int]
    ) -> NDArray[np.float64]:
        """Every loss of a policy's network as a function puts it in place, `[K, S]`. It is dense afterwards."""
        references = self._references(policy, sequences)
        try:
            place()
            found = [losses_KB for _, losses_KB in self._standing(sequences, references)]
        finally:
            self.placer.release()
        return np.concatenate(found, axis=1)

    def _references(self, policy: Proposal, sequences: Sequence[int]) -> list[list[Reference]]:
        """What the losses keep of the dense network on each sequence, to compare with a policy's."""
        new = [s for s in sequences if not self._readout.knows(s)]
        if new:
            self._readout.behind(self.placer.ends(self.space.dense))
            self._run(set(), new)
        self._readout.behind(self.placer.ends(policy))
        return [self._readout.references(s, self.tokens_NT[s]) for s in sequences]

    def _standing(
        self, sequences: Sequence[int], references: list[list[Reference]]
    ) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Every loss of the network that stands there, `[K, B]`, a batch of sequences at a time."""
        for start in range(0, len(sequences), self.batch):
            some = slice(start, start + self.batch)
            hidden_BTD = self.view.embed(self.tokens_NT[list(sequences[some])])
            for block in range(len(self.view.blocks)):
                hidden_BTD = self.view.run(block, hidden_BTD)
            yield some, self._readout.measure(hidden_BTD, references[some], as_it_is=True).cpu().numpy()

    def _whole(self, policy: Proposal) -> Whole:
        return Whole(tuple(self.placer.choices(policy)), self.placer.ends(policy))

    def _run(self, wanted: Set[Whole], sequences: Sequence[int]) -> Losses:
        """Every loss of policies on sequences of which the readout knows all or none.

        Where it knows none, the dense network goes through the blocks with them, and shares their prefixes.
        """
        dense = self._whole(self.space.dense)
        new = bool(sequences) and not self._readout.knows(sequences[0])
        losses: Losses = {}
        for some, together, where in self._slices(
            sorted(wanted | ({dense} if new else set()), key=_in_depth), sequences
        ):
            states = self.runner.run(some, together, where)
            if new and dense in some:  # which is the first: all its levels are 0
                for s in together:
                    state = states[self.runner.end(s, dense)]
                    self._readout.tell(s, state.cpu() if self.view.streamed else state)
            losses |= self._measured([(policy, s) for s in together for policy in some if policy in wanted], states)
        return losses

    def _measured(self, lanes: list[tuple[Whole, int]], states: dict[Node, Tensor]) -> Losses:
        """Every loss of policies on sequences, `[K]` each; lanes of one sequence are neighbours."""
        by_ends: dict[Choices, list[tuple[Whole, int]]] = {}
        for lane in lanes:
            by_ends.setdefault(lane[0].ends, []).append(lane)
        found: Losses = {}
        for ends, some in by_ends.items():
            found |= self._measured_behind(ends, some, states)
        return found

    def _measured_behind(self, ends: Choices, lanes: list[tuple[Whole, int]], states: dict[Node, Tensor]) -> Losses:
        """The same of policies with the same embeddings and head."""
        self._readout.behind(ends)
        found: list[Tensor] = []
        references: dict[int, list[Reference]] = {}
        for start in range(0, len(lanes), self.batch):
            batch = lanes[start : start + self.batch]
            references = {
                s: references.get(s) or self._readout.references(s, self.tokens_NT[s])
                for s in dict.fromkeys(s for _, s in batch)
            }
            hidden = [states[self.runner.end(s, policy)].to(self.tokens_NT.device) for policy, s in batch]
            hidden_BTD = hidden[0] if len(hidden) == 1 else torch.cat(hidden)
            found.append(self._readout.measure(hidden_BTD, [references[s] for _, s in batch]))
        return dict(zip(lanes, torch.cat(found, dim=1).T.cpu().numpy(), strict=True))  # the device is waited for once

    def _slices(
        self, policies: Sequence[Whole], sequences: Sequence[int]
    ) -> Iterator[tuple[Sequence[Whole], Sequence[int], torch.device]]:
        """Policies and sequences whose states have room at once, and where these wait; neighbours share prefixes."""
        if not sequences:
            return
        if self.view.streamed:
            distinct = [len({policy.blocks[:b] for policy in policies}) for b in range(len(self.view.blocks) + 1)]
            most = max(map(sum, pairwise(distinct)))  # before and behind a block
            with self.view.hold(len(sequences), self.batch, most, self.tokens_per_sequence) as (at_once, where):
                for start in range(0, len(sequences), at_once):
                    self.view.expect(self._consumers(policies))
                    yield policies, sequences[start : start + at_once], where
            return
        lanes = max(1, self._at_once_bytes // (2 * self.view.state_bytes(self.tokens_per_sequence)))
        many = max(1, lanes // min(self.batch, len(sequences)))  # policies, where a batch of sequences has room
        at_once = max(1, lanes // min(many, len(policies)))
        for start in range(0, len(sequences), at_once):
            for first in range(0, len(policies), many):
                together = sequences[start : start + at_once]
                yield policies[first : first + many], together, self.tokens_NT.device

    def _consumers(self, policies: Sequence[Whole]) -> list[list[Tensor]]:
        """The weights from the store that each block will need, in order."""
        rows = []
        for block in range(len(self.view.blocks)):
            distinct = sorted((policy.blocks[block] for policy in policies), key=levels_first)
            needed = [weight for choices in distinct for weight in self.placer.consumers(block, choices)]
            rows.append(list({id(weight): weight for weight in needed}.values()))
        return rows


def _in_depth(policy: Whole) -> list[list[tuple[bool, Choice]]]:
    """Policies that agree on their ends and first blocks are neighbours."""
    return [levels_first(choices) for choices in (policy.ends, *policy.blocks)]


def free_state_bytes(device: str, sharers: int = 1) -> int:
    """Default memory for hidden states: a quarter of the free memory, divided by the number of processes."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // (4 * sharers)
    return min(MOST_STATE_BYTES, free_bytes(device) // 4) // sharers


def sort_groups(view: BlockView, store: LevelStore) -> None:
    """Permute the live network's groups into the store's order, once. The network computes the same function."""
    view.rest()
    for u, width in enumerate(width for row in view.widths for width in row):
        width.permute(*store.orders(u))
