"""A training that stays in memory and goes on where it stopped, for candidates of a search.

The learning rate rises for a few steps and is constant afterwards. It does not depend on the number of steps to come,
so a network after N steps is the same however often its training was stopped on the way.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from autoprune.ports.training import TrainingSet
from autoprune.training import adapters
from autoprune.training.settings import TrainingSettings
from autoprune.training.step import Stepper, make_trainable

WARMUP = 4
"""Steps in which the learning rate rises."""


class Learner:
    """Args:
    student: the network, in its own memory and in evaluation mode whenever it is not being trained.
    examples: the training set.
    settings: settings of the training, of which those that end it are not used.

    Attributes:
        step: number of steps taken.
    """

    def __init__(self, student: nn.Module, examples: TrainingSet, settings: TrainingSettings) -> None:
        self._student, self._examples, self._settings = student, examples, settings
        make_trainable(student, settings)
        self._stepper = Stepper(student, examples, settings)
        self.step = 0

    @property
    def nbytes(self) -> int:
        """Memory of the network and of the optimizer's state."""
        trained = sum(weight.numel() * weight.element_size() for weight in self._stepper.weights)
        return sum(p.numel() * p.element_size() for p in self._student.parameters()) + 2 * trained

    def advance(self, steps: int, tick: Callable[[], None] = lambda: None) -> None:
        """Train until `steps` steps are taken in all.

        Args:
            steps: not fewer than were taken already.
            tick: called before each step. What it raises ends the training after a whole step.

        Raises:
            DivergedError: weights or gradients are not finite.
        """
        examples, settings, stepper = self._examples, self._settings, self._stepper
        of_epoch, weights = -(-examples.count // settings.step_examples), stepper.weights
        self._student.train(examples.as_trained)
        try:
            with torch.enable_grad(), torch.random.fork_rng([weights[0].device] if weights[0].is_cuda else []):
                while self.step < steps:
                    tick()
                    for group in stepper.optimizer.param_groups:
                        group["lr"] = settings.lr * min(1.0, (self.step + 1) / WARMUP)
                    stepper.take(*divmod(self.step, of_epoch))
                    self.step += 1
                stepper.optimizer.zero_grad()  # gradients need memory while others are trained
                stepper.check_finite(self.step // of_epoch)
        finally:
            self._student.eval()

    @torch.no_grad()
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by name, tied ones once, with adapters merged into the weights."""
        merged = dict(adapters.merged(self._student))
        for name, tensor in [*self._student.named_parameters(), *self._student.named_buffers()]:
            if not adapters.is_part_of_one(name):
                yield name, merged.get(name, tensor)
