"""The loop: gradients of a loss, a learning rate that rises and falls, a state to go on from.

What is drawn in a step depends on the seed and the step alone, so a training that was interrupted goes on as if nothing
had happened: on a CPU it ends with the same bits.
"""

import functools
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.errors import UserError
from autoprune.ports.task import Progress
from autoprune.ports.training import TrainingSet
from autoprune.training import adapters
from autoprune.training.settings import TrainingSettings
from autoprune.training.state import State

SAVE_SECONDS = 180.0
"""Between two saved states of a long epoch; each epoch ends with one."""
BETAS = 0.9, 0.95
MOMENTUM = 0.9


@dataclass(frozen=True)
class Trained:
    """How far a training went.

    Args:
        steps: that were done.
        planned: steps that epochs and limits allow; None where time alone ended it.
        tokens: about as many were trained on; of images these.
        seconds: of training, those of earlier lives included.
    """

    steps: int
    planned: int | None
    tokens: int
    seconds: float

    def told(self) -> str:
        """In words."""
        whole = "" if self.planned in (None, self.steps) else f" of {self.planned:,}"
        early = "" if self.planned in (None, self.steps) else "; max_time ended it before the learning rate had fallen"
        return f"{self.steps:,}{whole} steps, {self.seconds:.1f} s{early}"


def train(
    student: nn.Module,
    examples: TrainingSet,
    settings: TrainingSettings,
    folder: Path | None,
    progress: Progress = lambda stage, share: None,
    mark: str = "",
) -> Trained:
    """Train in place, or go on where that was interrupted; adapters are merged and gone when this returns.

    The learning rate rises and falls over the steps that epochs and limits allow, so that going on ends with the same
    bits. Time only ends it; but where nothing else does, the learning rate rises and falls with time.

    Args:
        student: in memory of its own, in evaluation mode, as it is again in the end; its weights become float32 unless
            adapters are trained in their place.
        examples: what is taught.
        settings: how.
        folder: where the state is kept; None keeps none, so nothing can go on where it was interrupted.
        progress: is told how much is done.
        mark: what is trained; a state with another one is refused.

    Raises:
        UserError: something else was begun in the folder, the training diverges, or the disk is full.
    """
    _make_trainable(student, settings)
    weights = [p for p in student.parameters() if p.requires_grad]
    optimizer = _optimizer(weights, settings)
    state = None if folder is None else State(folder, student, optimizer, settings, mark)
    of_epoch = math.ceil(examples.count / settings.batch)
    total = settings.steps(examples.count, examples.tokens)
    step, before = kept = state.restore() if state else (0, 0.0)
    began = saved = time.monotonic()
    seconds = before
    student.train(examples.as_trained)
    with torch.random.fork_rng([weights[0].device] if weights[0].is_cuda else []):
        while (total is None or step < total) and (settings.max_time is None or seconds < settings.max_time):
            at, end = (step, total) if total is not None else (seconds, settings.max_time or 0.0)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * rate(at, end, settings.warmup)
            _step(student, examples, settings, weights, optimizer, *divmod(step, of_epoch))
            progress("fine-tuning", max(at / end, seconds / (settings.max_time or math.inf)))
            step, seconds = step + 1, before + time.monotonic() - began
            if step % of_epoch == 0 or time.monotonic() - saved > SAVE_SECONDS:
                _check(weights, (step - 1) // of_epoch, settings)
                kept, saved = _keep(state, step, seconds), time.monotonic()
        if kept[0] < step:
            _check(weights, (step - 1) // of_epoch, settings)
            _keep(state, step, seconds)
    student.eval()
    adapters.merge(student)
    return Trained(step, total, step * min(settings.batch, examples.count) * examples.tokens, seconds)


def _keep(state: State | None, step: int, seconds: float) -> tuple[int, float]:
    if state:
        state.keep(step, seconds)
    return step, seconds


def rate(step: float, total: float, warmup: float) -> float:
    """Of the highest learning rate: straight up over the first steps (or seconds), then half a cosine down."""
    rising = warmup * total
    if step < rising:
        return min(1.0, (step + 1) / rising)
    return (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2


def _make_trainable(student: nn.Module, settings: TrainingSettings) -> None:
    if settings.lora:
        adapters.attach(student, settings.lora, settings.alpha, settings.seed)
        return
    for parameter in student.parameters():  # not `student.float()`: buffers stay as they are
        parameter.data = parameter.data.float()
    student.requires_grad_(True)


def _optimizer(weights: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(weights, settings.lr, BETAS, weight_decay=settings.decay)
    return torch.optim.SGD(weights, settings.lr, MOMENTUM, nesterov=True, weight_decay=settings.decay)


def _step(
    student: nn.Module,
    examples: TrainingSet,
    settings: TrainingSettings,
    weights: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    epoch: int,
    index: int,
) -> None:
    """One step, the `index`-th of an epoch."""
    begin = settings.begins(index, examples.count)
    some = _order(examples.count, settings.seed, epoch)[begin : (index + 1) * settings.batch]
    draw = torch.manual_seed(_seed(settings.seed, epoch, 1 + index))  # which dropout draws from too
    optimizer.zero_grad()
    for part in torch.split(some, settings.at_once or len(some)):
        try:
            loss = examples.loss(student, part, settings, draw) * (len(part) / len(some))
        except ValueError as error:  # BatchNorm's, of one value a channel
            told = f"a forward pass of {len(part)} cannot be trained on ({error}): a larger batch or at_once is needed."
            raise UserError(told) from error
        loss.backward()  # type: ignore[no-untyped-call]
    length = nn.utils.clip_grad_norm_(weights, settings.clip or math.inf)
    if not bool(torch.isfinite(length)):
        raise _diverged(epoch, settings)
    optimizer.step()


@functools.lru_cache(maxsize=1)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    """Numbers of all examples as they come in an epoch, `[count]`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_seed(seed, epoch, 0)))


def _seed(seed: int, epoch: int, index: int) -> int:
    return ((seed * 1_000_003 + epoch) * 1_000_033 + index) % 2**63


def _check(weights: list[nn.Parameter], epoch: int, settings: TrainingSettings) -> None:
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise _diverged(epoch, settings)


class DivergedError(UserError):
    """Weights or gradients of a training are not finite."""


def _diverged(epoch: int, settings: TrainingSettings) -> DivergedError:
    return DivergedError(
        f"fine-tuning has diverged in epoch {epoch + 1}: delete its folder and take a smaller learning rate than "
        f"lr={settings.lr}."
    )
