"""A training that stays in memory and goes on where it stopped, for candidates of a search.

The learning rate rises for a few steps and is constant afterwards. It does not depend on the number of steps to come,
so a network after N steps is the same however often its training was stopped on the way.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from autoprune.ports.training import TrainingSet
from autoprune.training import adapters
from autoprune.training.loop import check_finite, make_trainable, one_step, optimizer_of
from autoprune.training.settings import TrainingSettings

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
        self._weights = [p for p in student.parameters() if p.requires_grad]
        self._optimizer = optimizer_of(self._weights, settings)
        self.step = 0

    @property
    def nbytes(self) -> int:
        """Memory of the network and of the optimizer's state."""
        trained = sum(weight.numel() * weight.element_size() for weight in self._weights)
        return sum(p.numel() * p.element_size() for p in self._student.parameters()) + 2 * trained

    def advance(self, steps: int, tick: Callable[[], None] = lambda: None) -> None:
        """Train until `steps` steps are taken in all.

        Args:
            steps: not fewer than were taken already.
            tick: called before each step. What it raises ends the training after a whole step.

        Raises:
            DivergedError: weights or gradients are not finite.
        """
        examples, settings, weights = self._examples, self._settings, self._weights
        of_epoch = -(-examples.count // settings.batch)
        self._student.train(examples.as_trained)
        try:
            with torch.enable_grad(), torch.random.fork_rng([weights[0].device] if weights[0].is_cuda else []):
                while self.step < steps:
                    tick()
                    for group in self._optimizer.param_groups:
                        group["lr"] = settings.lr * min(1.0, (self.step + 1) / WARMUP)
                    epoch, index = divmod(self.step, of_epoch)
                    one_step(self._student, examples, settings, weights, self._optimizer, epoch, index)
                    self.step += 1
                self._optimizer.zero_grad()  # gradients need memory while others are trained
                check_finite(weights, self.step // of_epoch, settings)
        finally:
            self._student.eval()

    @torch.no_grad()
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by name, tied ones once, with adapters merged into the weights."""
        merged = dict(adapters.merged(self._student))
        for name, tensor in [*self._student.named_parameters(), *self._student.named_buffers()]:
            if not adapters.is_part_of_one(name):
                yield name, merged.get(name, tensor)
