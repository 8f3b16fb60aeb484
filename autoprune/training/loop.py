"""The training loop, with a learning rate schedule and a saved state.

Random numbers of a step depend only on the seed and the step. So an interrupted training ends with the same bits as an
uninterrupted one, on a CPU.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune import usercode
from autoprune.errors import StopSearch, UserError
from autoprune.ports.task import Progress
from autoprune.ports.training import TrainingSet
from autoprune.training import adapters
from autoprune.training.settings import TrainingSettings
from autoprune.training.state import State
from autoprune.training.stopping import Stopping

SAVE_SECONDS = 180.0
"""Between two saved states of a long epoch; each epoch ends with one."""
BETAS = 0.9, 0.95
MOMENTUM = 0.9

OnStep = Callable[[int, Mapping[str, float]], None]
"""Called after every step with the number of steps so far, and the step's loss, learning rate and gradient norm."""


@dataclass(frozen=True)
class Trained:
    """How far a training went.

    Args:
        steps: number of steps done.
        planned: number of steps that epochs and limits allow; None if only time ended it.
        tokens: approximate number of tokens, or images, trained on.
        seconds: seconds of training, including those before an interruption.
        best: the number of steps after which the network was best, which is handed over; None without `patience`.
    """

    steps: int
    planned: int | None
    tokens: int
    seconds: float
    best: int | None = None

    def told(self) -> str:
        """In words."""
        whole = "" if self.planned in (None, self.steps) else f" of {self.planned:,}"
        early = "" if self.planned in (None, self.steps) else "; it was ended before the learning rate had fallen"
        best = f"; the network after {self.best:,} was best" if self.best not in (None, self.steps) else ""
        return f"{self.steps:,}{whole} steps, {self.seconds:.1f} s{early}{best}"


def train(
    student: nn.Module,
    examples: TrainingSet,
    settings: TrainingSettings,
    folder: Path | None,
    progress: Progress = lambda stage, share: None,
    mark: str = "",
    on_step: OnStep | None = None,
) -> Trained:
    """Train in place, or continue an interrupted training. Adapters are merged and removed at the end.

    The learning rate follows the steps that epochs and limits allow, so that a continued training ends with the same
    bits. If only time ends the training, the learning rate follows time.

    Args:
        student: the network, in its own memory and in evaluation mode, also at the end. Its weights become float32,
            unless adapters are trained.
        examples: the training set.
        settings: settings of the training.
        folder: folder for the state. With None no state is kept, so an interrupted training cannot continue.
        progress: called with the share that is done.
        mark: a name for what is trained. A state with another mark is refused.
        on_step: called after every step. If it raises `StopSearch`, training ends there, as if its time were over.

    Raises:
        UserError: the folder has the state of another training, the training diverges, or the disk is full.
    """
    if examples.count < 1:
        raise UserError(
            f"the examples {usercode.located(examples)} are {examples.count}: there is nothing to train on."
        )
    make_trainable(student, settings)
    weights = [p for p in student.parameters() if p.requires_grad]
    optimizer = optimizer_of(weights, settings)
    state = None if folder is None else State(folder, student, optimizer, settings, mark)
    of_epoch = math.ceil(examples.count / settings.batch)
    total = settings.steps(examples.count, examples.tokens)
    stopping = Stopping(student, examples, settings.patience, folder) if settings.patience else None
    step, before = kept = state.restore() if state else (0, 0.0)
    began = saved = time.monotonic()
    seconds = before
    student.train(examples.as_trained)
    with torch.random.fork_rng([weights[0].device] if weights[0].is_cuda else []):
        while _goes_on(step, total, seconds, settings, stopping):
            at, end = (step, total) if total is not None else (seconds, settings.max_time or 0.0)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * rate(at, end, settings.warmup)
            measures = one_step(student, examples, settings, weights, optimizer, *divmod(step, of_epoch))
            progress("fine-tuning", max(at / end, seconds / (settings.max_time or math.inf)))
            step, seconds = step + 1, before + time.monotonic() - began
            if on_step and _ends(on_step, step, measures, optimizer):
                break
            if step % of_epoch == 0 or time.monotonic() - saved > SAVE_SECONDS:
                check_finite(weights, (step - 1) // of_epoch, settings)
                if stopping and step % of_epoch == 0:
                    stopping.measure(step)
                kept, saved = _keep(state, step, seconds), time.monotonic()
        if kept[0] < step:
            check_finite(weights, (step - 1) // of_epoch, settings)
            if stopping:
                stopping.measure(step)
            _keep(state, step, seconds)
    student.eval()
    if stopping:
        stopping.put_best()
    adapters.merge(student)
    tokens = step * min(settings.batch, examples.count) * examples.tokens
    best = stopping.best_step if stopping else None
    return Trained(step, total, tokens, seconds, best)


def _goes_on(
    step: int, total: int | None, seconds: float, settings: TrainingSettings, stopping: Stopping | None
) -> bool:
    if stopping and stopping.is_over(step):
        return False
    return (total is None or step < total) and (settings.max_time is None or seconds < settings.max_time)


def _ends(on_step: OnStep, step: int, measures: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> bool:
    """Tell of a step. Whether training ends here; numbers are read from the device only where somebody listens."""
    numbers = {name: float(value) for name, value in measures.items()} | {"lr": optimizer.param_groups[0]["lr"]}
    try:
        on_step(step, numbers)
    except StopSearch:
        return True
    return False


def _keep(state: State | None, step: int, seconds: float) -> tuple[int, float]:
    if state:
        state.keep(step, seconds)
    return step, seconds


def rate(step: float, total: float, warmup: float) -> float:
    """The share of the highest learning rate: linear warm-up, then half a cosine down."""
    rising = warmup * total
    if step < rising:
        return min(1.0, (step + 1) / rising)
    return (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2


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
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise UserError("the network has no norms, biases or scales that could be trained: train all weights.")


def optimizer_of(weights: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer of trainable weights."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(weights, settings.lr, BETAS, weight_decay=settings.decay)
    return torch.optim.SGD(weights, settings.lr, MOMENTUM, nesterov=True, weight_decay=settings.decay)


def one_step(
    student: nn.Module,
    examples: TrainingSet,
    settings: TrainingSettings,
    weights: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    epoch: int,
    index: int,
) -> dict[str, Tensor]:
    """One step, the `index`-th of an epoch; its loss and the norm of its gradient."""
    begin = settings.begins(index, examples.count)
    some = _order(examples.count, settings.seed, epoch)[begin : (index + 1) * settings.batch]
    draw = torch.manual_seed(_seed(settings.seed, epoch, 1 + index))  # which dropout draws from too
    optimizer.zero_grad()
    total = torch.zeros((), device=weights[0].device)
    for part in torch.split(some, settings.at_once or len(some)):
        try:
            loss = _scalar(examples, examples.loss(student, part, settings, draw)) * (len(part) / len(some))
        except ValueError as error:  # BatchNorm's, of one value a channel
            told = f"a forward pass of {len(part)} cannot be trained on ({error}): a larger batch or at_once is needed."
            raise UserError(told) from error
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    length = nn.utils.clip_grad_norm_(weights, settings.clip or math.inf)
    if not bool(torch.isfinite(length)):
        raise _diverged(epoch, settings)
    optimizer.step()
    return {"loss": total, "gradient_norm": length}


def _scalar(examples: TrainingSet, given: Any) -> Tensor:
    """The loss of examples, which are a user's own task's perhaps."""
    if not isinstance(given, Tensor) or given.dim() or not given.requires_grad:
        raise UserError(
            f"the examples {usercode.located(examples)} give the loss {usercode.shown(given)}: it is a tensor of one "
            "number, with derivatives."
        )
    return given


@functools.lru_cache(maxsize=1)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    """Numbers of all examples as they come in an epoch, `[count]`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_seed(seed, epoch, 0)))


def _seed(seed: int, epoch: int, index: int) -> int:
    return ((seed * 1_000_003 + epoch) * 1_000_033 + index) % 2**63


def check_finite(weights: list[nn.Parameter], epoch: int, settings: TrainingSettings) -> None:
    """Raise a DivergedError unless all weights are finite."""
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise _diverged(epoch, settings)


class DivergedError(UserError):
    """Weights or gradients of a training are not finite."""


def _diverged(epoch: int, settings: TrainingSettings) -> DivergedError:
    return DivergedError(
        f"fine-tuning has diverged in epoch {epoch + 1}: delete its folder and take a smaller learning rate than "
        f"lr={settings.lr}."
    )
