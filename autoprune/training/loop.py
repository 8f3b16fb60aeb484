"""The training loop, with a learning rate schedule and a saved state.

Random numbers of a step depend only on the seed and the step (step.py). So an interrupted training ends with the same
bits as an uninterrupted one, on a CPU.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune import usercode
from autoprune.errors import StopSearch, UserError
from autoprune.ports.task import Progress
from autoprune.ports.training import TrainingSet
from autoprune.training import adapters
from autoprune.training.curve import Curve
from autoprune.training.room import check_room, is_out_of_memory, out_of_memory
from autoprune.training.settings import TrainingSettings
from autoprune.training.state import State
from autoprune.training.step import DivergedError, Stepper, make_trainable
from autoprune.training.stopping import Stopping
from autoprune.training.team import ALONE, Team

SAVE_SECONDS = 180.0
"""Between two saved states of a long epoch; each epoch ends with one."""

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
        diverged: the step that diverged; the network is that of the last saved state, after `steps`. None if none did.
    """

    steps: int
    planned: int | None
    tokens: int
    seconds: float
    best: int | None = None
    diverged: int | None = None

    def told(self) -> str:
        """In words."""
        whole = "" if self.planned in (None, self.steps) else f" of {self.planned:,}"
        early = "" if self.planned in (None, self.steps) else "; it was ended before the learning rate had fallen"
        if self.diverged is not None:
            early = f"; step {self.diverged:,} diverged"
        best = f"; the network after {self.best:,} was best" if self.best not in (None, self.steps) else ""
        return f"{self.steps:,}{whole} steps, {self.seconds:.1f} s{early}{best}"

    def divergence(self, lr: float, folder: Path) -> str:
        """A sentence about a step that diverged, and what is left."""
        return (
            f"fine-tuning has diverged in step {self.diverged}: its loss or its weights were not finite. What was "
            f"trained before is kept: the network after step {self.best or self.steps:,}. To train again with a "
            f"smaller learning rate than lr={lr}, delete '{folder}'."
        )


def train(
    student: nn.Module,
    examples: TrainingSet,
    settings: TrainingSettings,
    folder: Path | None,
    progress: Progress = lambda stage, share: None,
    mark: str = "",
    on_step: OnStep | None = None,
    team: Team = ALONE,
    ended: bool = False,
) -> Trained:
    """Train in place, or continue an interrupted training. Adapters are merged and removed at the end.

    The learning rate follows the steps that epochs and limits allow, so that a continued training ends with the same
    bits. If only time ends the training, the learning rate follows time.

    A step that diverges ends the training: the network is that of the last saved state, or of the best epoch.

    Args:
        student: the network, in its own memory and in evaluation mode, also at the end. Its weights become float32,
            unless adapters are trained.
        examples: the training set.
        settings: settings of the training.
        folder: folder for the state. With None no state is kept, so an interrupted training cannot continue.
        progress: called with the share that is done.
        mark: a name for what is trained. A state with another mark is refused.
        on_step: called after every step. If it raises `StopSearch`, training ends there, as if its time were over.
        team: the processes that train together. Where there are several, the network is in the saved state at the end.
        ended: whether the training is over, so that the network of its saved state is only put in place.

    Raises:
        DivergedError: the training diverges before a state was saved.
        UserError: the folder has the state of another training, the disk is full, or the memory is too small; the
            message names settings that need less.
    """
    if examples.count < 1:
        raise UserError(
            f"the examples {usercode.located(examples)} are {examples.count}: there is nothing to train on."
        )
    if team.size == 1 and not ended:
        check_room(student, settings)
    make_trainable(student, settings)
    stepper = Stepper(student, examples, settings, team)
    state = None if folder is None else State(folder, student, stepper.optimizer, settings, mark, team)
    total = settings.steps(examples.count, examples.tokens)
    stopping = Stopping(student, examples, settings.patience, folder, team) if settings.patience else None
    curve = None if folder is None else Curve(student, examples, settings, folder, team)
    run = _Run(
        settings, math.ceil(examples.count / settings.step_examples), total, stepper, state, stopping, team, curve
    )
    run.step, run.seconds = run.kept = state.restore() if state else (0, 0.0)
    if not ended:
        weights = stepper.weights
        student.train(examples.as_trained)
        with torch.random.fork_rng([weights[0].device] if weights[0].is_cuda else []):
            try:
                run.go(progress, on_step)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                least = 2 if examples.as_trained else 1  # BatchNorm needs two
                raise out_of_memory(settings, least, weights[0].device) from error
        student.eval()
    if team.size == 1:
        if stopping:
            stopping.put_best()
        adapters.merge(student)
    tokens = run.step * min(settings.step_examples, examples.count) * examples.tokens
    best = stopping.best_step if stopping else None
    return Trained(run.step, total, tokens, run.seconds, best, run.diverged)


@dataclass
class _Run:
    """A training on its way: what it is made of, and how far it is."""

    settings: TrainingSettings
    of_epoch: int
    total: int | None
    stepper: Stepper
    state: State | None
    stopping: Stopping | None
    team: Team
    curve: Curve | None
    step: int = 0
    seconds: float = 0.0
    kept: tuple[int, float] = (0, 0.0)
    diverged: int | None = None

    def go(self, progress: Progress, on_step: OnStep | None) -> None:
        """Take all steps, and save the state after the last one."""
        try:
            self._steps(progress, on_step)
            if self.kept[0] < self.step:
                self._end_part(measured=True)
        except DivergedError:
            if self.state is None or not self.kept[0]:
                raise
            self.diverged = self.step + 1
            self.step, self.seconds = self.state.restore()

    def _steps(self, progress: Progress, on_step: OnStep | None) -> None:
        settings, team, total, before = self.settings, self.team, self.total, self.seconds
        began = saved = time.monotonic()
        (self.seconds,) = team.agreed(self.seconds)
        while self._goes_on():
            at, end = (self.step, total) if total is not None else (self.seconds, settings.max_time or 0.0)
            for group in self.stepper.optimizer.param_groups:
                group["lr"] = settings.lr * rate(at, end, settings.warmup)
            measures = self.stepper.take(*divmod(self.step, self.of_epoch))
            progress("fine-tuning", max(at / end, self.seconds / (settings.max_time or math.inf)))
            self.step += 1
            if self.curve:
                self.curve.after(self.step)
            ends = on_step is not None and self._ends(on_step, measures)
            now = time.monotonic()
            self.seconds, late, over = team.agreed(before + now - began, now - saved > SAVE_SECONDS, ends)
            if over:
                break
            of_epoch = self.step % self.of_epoch == 0
            if of_epoch or late or (settings.save_every and self.step % settings.save_every == 0):
                self._end_part(measured=of_epoch)
                saved = time.monotonic()

    def _goes_on(self) -> bool:
        if self.stopping and self.stopping.is_over(self.step):
            return False
        limit = self.settings.max_time
        return (self.total is None or self.step < self.total) and (limit is None or self.seconds < limit)

    def _ends(self, on_step: OnStep, measures: Mapping[str, Tensor]) -> bool:
        """Tell of a step. Whether training ends here; numbers are read from the device only where somebody listens."""
        lr = self.stepper.optimizer.param_groups[0]["lr"]
        try:
            on_step(self.step, {name: float(value) for name, value in measures.items()} | {"lr": lr})
        except StopSearch:
            return True
        return False

    def _end_part(self, measured: bool) -> None:
        """Save the state, and before that measure the network where training ends early."""
        self.stepper.check_finite((self.step - 1) // self.of_epoch)
        if self.stopping and measured:
            self.stopping.measure(self.step)
        if self.state:
            self.state.keep(self.step, self.seconds)
        self.kept = self.step, self.seconds


def rate(step: float, total: float, warmup: float) -> float:
    """The share of the highest learning rate: linear warm-up, then half a cosine down.

    From the end of the warm-up on it is that of transformers' `get_cosine_schedule_with_warmup`, which is one step
    later before: its first step has a rate of 0.
    """
    rising = warmup * total
    if step < rising:
        return min(1.0, (step + 1) / rising)
    return (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2
