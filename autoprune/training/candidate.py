"""Trains networks of candidates for some steps, for a higher fidelity than without training.

The trained weights are thrown away, because the result of a search is a policy.
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
"""The cost of a step on each example in forward passes: one forward pass, and one backward pass, which counts twice."""


class CandidateTrainer:
    """Trains the networks of policies on data outside of the search split and the validation split.

    Args:
        placer: puts levels in place on the live network, which must be on one device.
        examples: returns the training set. It is called once, before the first training.
    """

    def __init__(self, placer: Placer, examples: Callable[[], TrainingSet]) -> None:
        self._placer, self._examples_of = placer, examples

    @cached_property
    def examples(self) -> TrainingSet:
        """What is trained on."""
        return self._examples_of()

    @cached_property
    def settings(self) -> TrainingSettings:
        """Settings of training candidates: the defaults of fine-tuning, without the refit."""
        return replace(settings_of(self.examples.defaults, {"max_steps": 1}), refit=False)

    def step_passes(self, tokens_per_sequence: int) -> int:
        """Forward passes over a sequence that are charged for a step, including the dense network's."""
        passes = OWN_PASS + (1 if self.settings.weight > 0 else 0)
        items = min(self.settings.batch, self.examples.count) * self.examples.tokens
        return math.ceil(passes * items / tokens_per_sequence)

    @contextmanager
    def in_place(self, policy: Proposal, steps: int) -> Iterator[None]:
        """Put the trained network of a policy in place of the live one, until the `with` block ends.

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
    """Copy the network of a policy, in evaluation mode. The live network is dense afterwards."""
    placer.place(proposal)
    return copied(placer)


def copied(placer: Placer) -> nn.Module:
    """Copy the live network as it is. The live network is dense afterwards."""
    student = copy.deepcopy(placer.view.model)
    placer.release()
    materialise(student)
    return student.requires_grad_(True)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name, tied ones once."""
    yield from network.named_parameters()
    yield from network.named_buffers()
