"""The loop: gradients of a lesson's loss, a learning rate that rises and falls, a state to go on from.

What is drawn in a step depends on the seed and the step alone, so a training that was interrupted goes on as if nothing
had happened: on a CPU it ends with the same bits.
"""

import functools
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.assembly import Progress
from autoprune.errors import UserError
from autoprune.tuning import lora
from autoprune.tuning.lesson import Lesson
from autoprune.tuning.settings import Tuning
from autoprune.tuning.state import State

SAVE_SECONDS = 180.0
"""Between two saved states of a long epoch; each epoch ends with one."""
BETAS = 0.9, 0.95
MOMENTUM = 0.9


def train(
    student: nn.Module,
    lesson: Lesson,
    tuning: Tuning,
    folder: Path,
    progress: Progress = lambda stage, share: None,
    mark: str = "",
) -> None:
    """Train in place, or go on where that was interrupted; adapters are merged and gone when this returns.

    Args:
        student: in memory of its own, in evaluation mode, as it is again in the end; its weights become float32 unless
            adapters are trained in their place.
        lesson: what is taught.
        tuning: how.
        folder: where the state is kept.
        progress: is told how much is done.
        mark: what is trained; a state with another one is refused.

    Raises:
        UserError: something else was begun in the folder, the training diverges, or the disk is full.
    """
    _make_trainable(student, tuning)
    weights = [p for p in student.parameters() if p.requires_grad]
    optimizer = _optimizer(weights, tuning)
    state = State(folder, student, optimizer, tuning, mark)
    of_epoch = math.ceil(lesson.count / tuning.batch)
    total = of_epoch * tuning.epochs
    begun, saved = state.restore(), time.monotonic()
    student.train(lesson.as_trained)
    with torch.random.fork_rng([weights[0].device] if weights[0].is_cuda else []):
        for step in range(begun, total):
            for group in optimizer.param_groups:
                group["lr"] = tuning.lr * rate(step, total, tuning.warmup)
            _step(student, lesson, tuning, weights, optimizer, *divmod(step, of_epoch))
            progress("fine-tuning", step / total)
            if (step + 1) % of_epoch == 0 or time.monotonic() - saved > SAVE_SECONDS:
                _check(weights, step // of_epoch, tuning)
                state.keep(step + 1)
                saved = time.monotonic()
    student.eval()
    lora.merge(student)


def rate(step: int, total: int, warmup: float) -> float:
    """Of the highest learning rate: straight up over the first steps, then half a cosine down."""
    rising = warmup * total
    if step < rising:
        return min(1.0, (step + 1) / rising)
    return (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2


def _make_trainable(student: nn.Module, tuning: Tuning) -> None:
    if tuning.lora:
        lora.attach(student, tuning.lora, tuning.alpha, tuning.seed)
        return
    for parameter in student.parameters():  # not `student.float()`: buffers stay as they are
        parameter.data = parameter.data.float()
    student.requires_grad_(True)


def _optimizer(weights: list[nn.Parameter], tuning: Tuning) -> torch.optim.Optimizer:
    if tuning.optimizer == "adamw":
        return torch.optim.AdamW(weights, tuning.lr, BETAS, weight_decay=tuning.decay)
    return torch.optim.SGD(weights, tuning.lr, MOMENTUM, nesterov=True, weight_decay=tuning.decay)


def _step(
    student: nn.Module,
    lesson: Lesson,
    tuning: Tuning,
    weights: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    epoch: int,
    index: int,
) -> None:
    """One step, the `index`-th of an epoch."""
    # BatchNorm needs two: an epoch's last step is not of a single example, unless all are
    begin = max(0, min(index * tuning.batch, lesson.count - min(2, tuning.batch)))
    some = _order(lesson.count, tuning.seed, epoch)[begin : (index + 1) * tuning.batch]
    draw = torch.manual_seed(_seed(tuning.seed, epoch, 1 + index))  # which dropout draws from too
    optimizer.zero_grad()
    for part in torch.split(some, tuning.at_once or len(some)):
        try:
            loss = lesson.loss(student, part, tuning, draw) * (len(part) / len(some))
        except ValueError as error:  # BatchNorm's, of one value a channel
            told = f"a forward pass of {len(part)} cannot be trained on ({error}): a larger batch or at_once is needed."
            raise UserError(told) from error
        loss.backward()  # type: ignore[no-untyped-call]
    length = nn.utils.clip_grad_norm_(weights, tuning.clip or math.inf)
    if not bool(torch.isfinite(length)):
        raise _diverged(epoch, tuning)
    optimizer.step()


@functools.lru_cache(maxsize=1)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    """Numbers of all examples as they come in an epoch, `[count]`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_seed(seed, epoch, 0)))


def _seed(seed: int, epoch: int, index: int) -> int:
    return ((seed * 1_000_003 + epoch) * 1_000_033 + index) % 2**63


def _check(weights: list[nn.Parameter], epoch: int, tuning: Tuning) -> None:
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise _diverged(epoch, tuning)


def _diverged(epoch: int, tuning: Tuning) -> UserError:
    return UserError(
        f"fine-tuning has diverged in epoch {epoch + 1}: delete its folder and take a smaller learning rate than "
        f"lr={tuning.lr}."
    )
