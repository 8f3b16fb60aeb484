"""One step of a training: the forward and backward passes of its examples, and the optimizer's update.

Random numbers of a step depend only on the seed, the step, and the number of the process.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from autoprune import usercode
from autoprune.errors import UserError
from autoprune.ports.training import TrainingSet
from autoprune.training import adapters
from autoprune.training.frozen import freeze
from autoprune.training.settings import TrainingSettings
from autoprune.training.team import ALONE, Team
from autoprune.training.zeros import Masks

BETAS = 0.9, 0.95
MOMENTUM = 0.9
RANKS = 1_000_000_007
"""How far the seeds of two processes are apart."""


class DivergedError(UserError):
    """Weights or gradients of a training are not finite."""


class Loss(nn.Module):
    """The mean loss of a network on examples as a module, which is what several processes can share.

    Args:
        student: the network.
        examples: the training set.
        settings: settings of the training.
    """

    def __init__(self, student: nn.Module, examples: TrainingSet, settings: TrainingSettings) -> None:
        super().__init__()
        self.student, self._examples, self._settings = student, examples, settings

    def forward(self, some: Tensor, draw: torch.Generator) -> Tensor:
        """As `TrainingSet.loss`."""
        given: Any = self._examples.loss(self.student, some, self._settings, draw)
        if not isinstance(given, Tensor) or given.dim() or not given.requires_grad:
            raise UserError(
                f"the examples {usercode.located(self._examples)} give the loss {usercode.shown(given)}: it is a "
                "tensor of one number, with derivatives."
            )
        return given


class Stepper:
    """Takes the steps of a training.

    Args:
        student: the network, made trainable (`make_trainable`).
        examples: the training set.
        settings: settings of the training.
        team: the processes that train together.

    Attributes:
        weights: the weights that are trained.
        optimizer: their optimizer.
    """

    def __init__(
        self, student: nn.Module, examples: TrainingSet, settings: TrainingSettings, team: Team = ALONE
    ) -> None:
        self._examples, self._settings, self._team = examples, settings, team
        self._loss = team.wrapped(Loss(student, examples, settings))
        self.weights = [p for p in student.parameters() if p.requires_grad]
        self.optimizer = optimizer_of(self.weights, settings)
        self._masks = Masks(student, self.weights)

    def take(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Take one step, the `index`-th of an epoch. Returns its loss and the norm of its gradient.

        Raises:
            DivergedError: the gradient is not finite. The weights are as before.
        """
        settings, team = self._settings, self._team
        begin = settings.begins(index, self._examples.count)
        order = _order(self._examples.count, settings.seed, epoch)
        some = order[begin : (index + 1) * settings.step_examples]
        seed = _seed(settings.seed, epoch, 1 + index) + RANKS * team.rank
        draw = torch.manual_seed(seed % 2**63)  # which dropout draws from too
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.weights[0].device)
        parts = team.parts(some, min(settings.at_once or settings.batch, settings.batch))
        for number, (part, weight) in enumerate(parts):
            with team.synchronised(self._loss, number == len(parts) - 1):
                loss = self._of(part, draw) * weight
                (loss * team.size).backward()  # type: ignore[no-untyped-call]  # gradients' mean is exchanged
            total += loss.detach()
        self._masks.apply()
        length: Any = nn.utils.clip_grad_norm_(self.weights, settings.clip or math.inf)
        length = length.full_tensor() if hasattr(length, "full_tensor") else length
        if not bool(torch.isfinite(length)):
            raise diverged(epoch, settings)
        self.optimizer.step()
        return {"loss": team.summed(total), "gradient_norm": length}

    def check_finite(self, epoch: int) -> None:
        """Raise a DivergedError unless all weights are finite, in every process."""
        wrong = sum(not bool(torch.isfinite(local(weight)).all()) for weight in self.weights)
        if self._team.size > 1:
            wrong = int(self._team.summed(torch.tensor(float(wrong), device=local(self.weights[0]).device)))
        if wrong:
            raise diverged(epoch, self._settings)

    def _of(self, part: Tensor, draw: torch.Generator) -> Tensor:
        try:
            loss: Tensor = self._loss(part, draw)
        except ValueError as error:  # BatchNorm's, of one value a channel
            told = f"a forward pass of {len(part)} cannot be trained on ({error}): a larger batch or at_once is needed."
            raise UserError(told) from error
        return loss


def local(tensor: Any) -> Tensor:
    """The part of a tensor that this process has, which is all of it unless it is sharded."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def make_trainable(student: nn.Module, settings: TrainingSettings) -> None:
    """Let those weights be trained that the settings ask for, in float32, or attach adapters.

    Raises:
        UserError: the network has no such weights.
    """
    if settings.lora:
        adapters.attach(student, settings.lora, settings.alpha, settings.seed)
        return
    for parameter in student.parameters():  # not `student.float()`: buffers stay as they are
        parameter.data = parameter.data.float()
    for parameter in student.parameters():
        parameter.requires_grad_(not settings.norms_only or parameter.dim() < 2)
    freeze(student)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise UserError("the network has no norms, biases or scales that could be trained: train all weights.")


def optimizer_of(weights: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer of trainable weights."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(weights, settings.lr, BETAS, weight_decay=settings.decay)
    return torch.optim.SGD(weights, settings.lr, MOMENTUM, nesterov=True, weight_decay=settings.decay)


@functools.lru_cache(maxsize=1)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    """Numbers of all examples as they come in an epoch, `[count]`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_seed(seed, epoch, 0)))


def _seed(seed: int, epoch: int, index: int) -> int:
    return ((seed * 1_000_003 + epoch) * 1_000_033 + index) % 2**63


def diverged(epoch: int, settings: TrainingSettings) -> DivergedError:
    """The error of a training that has diverged."""
    return DivergedError(
        f"fine-tuning has diverged in epoch {epoch + 1}: its loss or its weights are not finite. Take a smaller "
        f"learning rate than lr={settings.lr}."
    )
