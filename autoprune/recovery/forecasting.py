"""Fits the law of recovery to what was measured of a training, and says what more tokens would buy."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from autoprune.errors import UserError
from autoprune.fine_tuned import Forecast, Lawful
from autoprune.ports.training import Measurement, TrainingSet
from autoprune.recovery.law import Law, counted, fit_law
from autoprune.training.curve import read_curve
from autoprune.training.loop import Trained, rate
from autoprune.training.settings import TrainingSettings

TIMES = (2.0, 4.0)
"""Times the tokens of the training. Further ahead a law of so few points says little."""


def foreseen(
    folder: Path,
    examples: TrainingSet,
    settings: TrainingSettings,
    trained: Trained | None,
    start: Measurement,
    end: Measurement | None,
) -> Lawful | None:
    """What more tokens would buy, as `result.json` has it; None if nothing was trained. Arguments: as of `law_of`."""
    if trained is None or end is None:
        return None
    return record_of(law_of(folder, examples, settings, trained, start.loss, end.loss))


def law_of(
    folder: Path, examples: TrainingSet, settings: TrainingSettings, trained: Trained, start: float, end: float
) -> Law | None:
    """The law of a training; None if too little was measured, or if only time ended it.

    Args:
        folder: of the training's files.
        examples: what was trained on.
        settings: of the training.
        trained: how far it went.
        start: the loss before training.
        end: the loss of the network that training left.
    """
    if not settings.law or not trained.planned:
        return None
    try:
        losses = {0: start} | {step: loss for step, loss in read_curve(folder).items() if step <= trained.steps}
    except UserError as error:  # the network is trained: a damaged file of points must not lose it
        warnings.warn(f"nothing is said of more tokens: {error}", RuntimeWarning, stacklevel=2)
        return None
    if trained.best in (None, trained.steps):
        losses[trained.steps] = end
    return law_of_losses(losses, trained.planned, settings.warmup, step_tokens(examples, settings))


def law_of_losses(losses: Mapping[int, float], planned: int, warmup: float, tokens: int) -> Law | None:
    """The law of losses by number of steps.

    Args:
        losses: from 0 steps on.
        planned: the number of steps of the schedule.
        warmup: the share of them in which the learning rate rises.
        tokens: in a step.
    """
    known = counted([rate(step, planned, warmup) for step in range(planned)], tokens)
    points = [(known[step], loss) for step, loss in losses.items() if step <= planned]
    return fit_law(points, planned * tokens, known[-1])


def step_tokens(examples: TrainingSet, settings: TrainingSettings) -> int:
    """Tokens, or images, in a step."""
    return min(settings.step_examples, examples.count) * examples.tokens


def record_of(law: Law | None) -> Lawful | None:
    """The law as `result.json` has it."""
    if law is None:
        return None
    ahead = [Forecast(times=times, **asdict(law.forecast(times))) for times in TIMES]
    return Lawful(forecasts=ahead, **asdict(law))
