"""Validation losses while a network is trained: the points from which a law of recovery is fitted (recovery/law.py).

They are measured after numbers of steps that grow by the same factor, because a law of powers needs points that are
even in the logarithm. The first one is late enough for all of them to take no more than a set share of the training.
`curve.json` lies beside the state: `{"12": 3.41, ...}`, the loss by the number of steps.
"""

import math
from pathlib import Path

from torch import nn

from autoprune.files.reading import explained, read_json
from autoprune.files.writing import own_folder, write_atomically
from autoprune.policy import to_json
from autoprune.ports.training import TrainingSet
from autoprune.training.settings import TrainingSettings
from autoprune.training.team import ALONE, Team

CURVE = "curve.json"
FACTOR = 2**0.5
"""Between the numbers of steps of two points."""
MEASURING, TRAINING = 2, 4
"""Forward passes that an example takes: the network and the dense one, and in training derivatives besides."""


class Curve:
    """Args:
    student: the network that is trained.
    examples: measures it on the validation split.
    settings: of the training; `law` is the share of it that measuring may take.
    folder: where `curve.json` is.
    team: the processes that train together.

    Raises:
        UserError: the file of an interrupted training is damaged.
    """

    def __init__(
        self, student: nn.Module, examples: TrainingSet, settings: TrainingSettings, folder: Path, team: Team = ALONE
    ) -> None:
        self._student, self._examples, self._folder, self._team = student, examples, folder, team
        self._losses = read_curve(folder)
        self._first = first_point(examples, settings)

    def after(self, step: int) -> None:
        """Measure the network after so many steps if a point is due.

        Raises:
            UserError: the disk is full or not writable.
        """
        if not is_due(step, self._first):
            return
        mode = self._student.training
        self._student.eval()
        (loss,) = self._team.agreed(self._examples.measured(self._student).loss)
        self._student.train(mode)
        self._losses = {one: known for one, known in self._losses.items() if one < step}  # others are of another time
        if math.isfinite(loss):
            self._losses[step] = loss
        if not self._team.rank:
            own_folder(self._folder)
            write_atomically(self._folder / CURVE, to_json({str(k): v for k, v in self._losses.items()}) + "\n")


def first_point(examples: TrainingSet, settings: TrainingSettings) -> int | None:
    """The number of steps after which the first point is measured; None if there is none."""
    if not settings.law or not examples.validation_count:
        return None
    each = TRAINING * min(settings.step_examples, examples.count) * settings.law
    return max(1, math.ceil(MEASURING * examples.validation_count / each / (FACTOR - 1)))


def is_due(step: int, first: int | None) -> bool:
    """Whether a point is measured after so many steps: after `first`, and then after each factor of `FACTOR`."""
    if first is None or step < first:
        return False
    power = round(math.log(step / first) / math.log(FACTOR))
    return step == math.ceil(first * FACTOR**power - 1e-9)


def read_curve(folder: Path) -> dict[int, float]:
    """The points of a training, loss by number of steps; none where there is no file.

    Raises:
        UserError: it is damaged.
    """
    if not (folder / CURVE).exists():
        return {}
    with explained("the losses while training", folder / CURVE, "delete it"):
        return {int(step): float(loss) for step, loss in dict(read_json(folder / CURVE)).items()}
