"""Networks of candidates after some training steps: a fidelity above that of the levels as they are.

The trained weights are thrown away: a search answers with a policy.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from autoprune.cutting.dense import materialise
from autoprune.levels.placing import Placer
from autoprune.ports.training import TrainingSet
from autoprune.space import Proposal
from autoprune.training.loop import train
from autoprune.training.settings import TrainingSettings, settings_of

OWN_PASS = 3
"""Forward passes that a step costs on each example: one forwards, and a backward pass, which counts twice."""


class CandidateTrainer:
    """Trains the networks of policies on what is neither in the search split nor in the validation split.

    Args:
        placer: puts levels in place on the live network, which is on one device as a whole.
        examples: gives what is trained on; asked for once, when something is trained.
    """

    def __init__(self, placer: Placer, examples: Callable[[], TrainingSet]) -> None:
        self._placer, self._examples_of = placer, examples

    @cached_property
    def examples(self) -> TrainingSet:
        """What is trained on."""
        return self._examples_of()

    @cached_property
    def settings(self) -> TrainingSettings:
        """How candidates are trained: as fine-tuning does by default, without the refit."""
        return replace(settings_of(self.examples.defaults, {"max_steps": 1}), refit=False)

    def step_passes(self, tokens_per_sequence: int) -> int:
        """Forward passes over a sequence that a step is charged as; the dense network's answers are one more."""
        passes = OWN_PASS + (1 if self.settings.weight > 0 else 0)
        items = min(self.settings.batch, self.examples.count) * self.examples.tokens
        return math.ceil(passes * items / tokens_per_sequence)

    @contextmanager
    def in_place(self, policy: Proposal, steps: int) -> Iterator[None]:
        """The live network as that of a policy after so many steps; as it was before when the block ends.

        Raises:
            UserError: the training diverges.
        """
        trained = self._trained(policy, steps)
        live = self._placer.view.model
        self._placer.place(policy)
        before = {name: tensor.data for name, tensor in _tensors(live)}
        try:
            for (_, tensor), (_, new) in zip(_tensors(live), _tensors(trained), strict=True):
                tensor.data = new.data.to(tensor.dtype)
            yield
        finally:
            for name, tensor in _tensors(live):
                tensor.data = before[name]
            self._placer.release()

    def _trained(self, policy: Proposal, steps: int) -> nn.Module:
        student = cut_out(self._placer, policy)
        if steps:
            with torch.enable_grad():
                train(student, self.examples, replace(self.settings, max_steps=steps), None)
        return student


def cut_out(placer: Placer, proposal: Proposal) -> nn.Module:
    """The network of a policy in memory of its own, in evaluation mode; the live one is dense when this returns."""
    placer.place(proposal)
    return copied(placer)


def copied(placer: Placer) -> nn.Module:
    """What is in place, in memory of its own; the live network is dense when this returns."""
    student = copy.deepcopy(placer.view.model)
    placer.release()
    materialise(student)
    return student.requires_grad_(True)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name, tied ones once."""
    yield from network.named_parameters()
    yield from network.named_buffers()
