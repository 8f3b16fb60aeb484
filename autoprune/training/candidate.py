"""Trains networks of candidates for some steps, for a higher fidelity than without training.

The trained weights are thrown away, because the result of a search is a policy. Until then the training of a candidate
is kept in memory, so that more steps of it begin where the last ones ended.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from autoprune.cutting.dense import materialise
from autoprune.levels.placing import Placer
from autoprune.ports.candidate_training import TRAINERS, CandidateTraining, Trainer
from autoprune.ports.training import TrainingSet
from autoprune.space import Proposal
from autoprune.training import adapters, frozen
from autoprune.training.learner import Learner
from autoprune.training.memory import check_memory, free_bytes, too_little, training_bytes
from autoprune.training.refit import place_refitted
from autoprune.training.settings import TrainingSettings, settings_of
from autoprune.training.zeros import marked

OWN_PASS = 3
"""The cost of a step on each example in forward passes: one forward pass, and one backward pass, which counts twice."""
REFIT_PASSES = 4
"""The cost of a refit for each sequence: one pass of the dense network, and three of the pruned one."""
LR_SHARE = 0.2
"""The default learning rate in shares of the highest one of fine-tuning: it does not fall, as that one does."""
KEPT = 4
"""Trainings are kept in 1 / KEPT of the memory that is free when the first of them begins."""


class CandidateTrainer:
    """Trains the networks of policies on data outside of the search split and the validation split.

    Args:
        placer: puts levels in place on the live network, which must be on one device.
        examples: returns the training set. It is called once, before the first training.
        reconstruction: returns the reconstruction split, `[N, T]`, for refits.
        batch: number of sequences in a forward pass of a refit.
        how: what is trained, and how.
        tick: called before each step. It may raise an exception, which ends the training.
    """

    def __init__(
        self,
        placer: Placer,
        examples: Callable[[], TrainingSet],
        reconstruction: Callable[[], Tensor],
        batch: int = 1,
        how: CandidateTraining | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._placer, self._examples_of, self._reconstruction = placer, examples, reconstruction
        self._batch, self._how, self._tick = batch, how or CandidateTraining(), tick
        self._kept: OrderedDict[Proposal, Learner] = OrderedDict()

    def with_training(self, how: CandidateTraining, tick: Callable[[], None]) -> "CandidateTrainer":
        """A trainer of the same networks on the same examples, with settings and trainings of its own."""
        return CandidateTrainer(self._placer, lambda: self.examples, self._reconstruction, self._batch, how, tick)

    @cached_property
    def examples(self) -> TrainingSet:
        """What is trained on."""
        return self._examples_of()

    @cached_property
    def settings(self) -> TrainingSettings:
        """Settings of training candidates: the defaults of fine-tuning, with a smaller learning rate."""
        how = self._how
        given = {"max_steps": 1, "lora": how.rank if how.trainer == "lora" else 0}
        settings = settings_of(self.examples.defaults, given)
        lr, on_cpu = how.lr or LR_SHARE * settings.lr, self._placer.view.device.type == "cpu"
        at_once = settings.at_once if on_cpu else 0  # parts of a batch would leave other devices idle
        return replace(settings, lr=lr, at_once=at_once, refit=False, norms_only=how.trainer == "norms")

    @cached_property
    def _most_bytes(self) -> int:
        return free_bytes(self._placer.view.device) // KEPT

    @property
    def items(self) -> int:
        """Number of tokens, or images, that there are to train on."""
        if self._how.trainer == "refit":
            return self._reconstruction().numel()
        return self.examples.count * self.examples.tokens

    # -- what it costs -----------------------------------------------------------------------------------------

    def step_items(self, tokens_per_sequence: int) -> int:
        """Number of tokens, or images, that a step reads."""
        if self._how.trainer == "refit":
            return tokens_per_sequence
        return min(self.settings.batch, self.examples.count) * self.examples.tokens

    def step_passes(self, tokens_per_sequence: int) -> int:
        """Forward passes over a sequence that are charged for a step, including the dense network's."""
        if self._how.trainer == "refit":
            return REFIT_PASSES
        passes = OWN_PASS + (1 if self.settings.weight > 0 else 0)
        return math.ceil(passes * self.step_items(tokens_per_sequence) / tokens_per_sequence)

    def passes(self, before: int, steps: int, tokens_per_sequence: int) -> int:
        """Forward passes that are charged for taking a policy's network from `before` steps to `steps`."""
        each = self.step_passes(tokens_per_sequence)
        if self._how.trainer == "refit":  # which begins anew with every number of sequences
            return each * min(steps, len(self._reconstruction()))
        refit = 0 if before else REFIT_PASSES * min(self._how.refit_sequences, len(self._reconstruction()))
        return refit + each * (steps - before)

    # -- training ----------------------------------------------------------------------------------------------

    @contextmanager
    def in_place(self, policy: Proposal, steps: int) -> Iterator[None]:
        """Put the trained network of a policy in place of the live one, until the `with` block ends.

        Raises:
            DivergedError: the training diverges.
            UserError: the memory is too small; the message names a trainer that would fit.
        """
        trained = dict(self._trained(policy, steps))
        live = self._placer.view.model
        self._placer.place(policy)
        before = {name: tensor.data for name, tensor in _tensors(live)}
        try:
            for name, tensor in _tensors(live):
                tensor.data = trained[name].data.to(tensor.dtype)
            yield
        finally:
            for name, tensor in _tensors(live):
                tensor.data = before[name]
            self._placer.release()

    def _trained(self, policy: Proposal, steps: int) -> Iterator[tuple[str, Tensor]]:
        if self._how.trainer == "refit" or not steps:
            return _tensors(self._cut_out(policy, steps if self._how.trainer == "refit" else 0))
        learner = self._kept.pop(policy, None)
        if learner is None or learner.step > steps:
            student = self._cut_out(policy, self._how.refit_sequences)
            if self._how.trainer == "lora" and not adapters.fit(student):
                return _tensors(student)  # everything is dropped that adapters could be trained for
            self._check_memory(student)
            learner = Learner(student, self.examples, self.settings)
        try:
            learner.advance(steps, self._tick)
        except torch.OutOfMemoryError as error:
            raise too_little(self._needs(self._cut_out(policy, 0)), self._how, 0) from error
        self._keep(policy, learner)
        return learner.tensors()

    def _cut_out(self, policy: Proposal, refit_sequences: int) -> nn.Module:
        if not refit_sequences:
            return cut_out(self._placer, policy)
        self._tick()
        some_NT = self._reconstruction()[:refit_sequences].to(self._placer.view.device)
        place_refitted(self._placer, policy, some_NT, self._batch, lambda share: self._tick())
        return copied(self._placer)

    def _keep(self, policy: Proposal, learner: Learner) -> None:
        """Keep a training; those that were asked for longest ago leave where there is no room for all."""
        self._kept[policy] = learner
        while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > self._most_bytes:
            self._kept.popitem(last=False)

    def _check_memory(self, student: nn.Module) -> None:
        free = free_bytes(self._placer.view.device)
        check_memory(self._needs(student), self._how, free)

    def _needs(self, student: nn.Module) -> dict[Trainer, int]:
        at_once, view = self.settings.at_once or self.settings.batch, self._placer.view
        return {
            trainer: training_bytes(student, view, at_once, self.examples.tokens, replace(self._how, trainer=trainer))
            for trainer in TRAINERS
        }


def cut_out(placer: Placer, proposal: Proposal) -> nn.Module:
    """Copy the network of a policy, in evaluation mode. The live network is dense afterwards."""
    placer.place(proposal)
    return copied(placer)


def copied(placer: Placer) -> nn.Module:
    """Copy the live network as it is. The live network is dense afterwards."""
    with marked(placer.modules_with_zeros()), marked(placer.modules_that_stay(), frozen.MARK):
        student = copy.deepcopy(placer.view.model)
    placer.release()
    materialise(student)
    return student.requires_grad_(True)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name, tied ones once."""
    yield from network.named_parameters()
    yield from network.named_buffers()
