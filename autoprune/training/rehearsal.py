"""A loss that is computed before anything else, so that settings that do not fit the network are refused at once."""

import torch
from torch import nn

from autoprune.ports.task import Progress
from autoprune.ports.training import TrainingSet
from autoprune.training.settings import TrainingSettings
from autoprune.training.teaching import UNTAUGHT


def rehearse(
    student: nn.Module,
    examples: TrainingSet,
    settings: TrainingSettings,
    progress: Progress = lambda stage, share: None,
) -> None:
    """Compute the loss of the first examples if what is taught differs from the default.

    What is read once for all examples, as the dense network's logits on disk, is then there.

    Args:
        student: the pruned network, in evaluation mode.
        examples: the training set.
        settings: of the training.
        progress: called with the stage if there is one.

    Raises:
        UserError: the settings do not fit the network or the data.
    """
    if settings.epochs == 0 or all(getattr(settings, name) == value for name, value in UNTAUGHT.items()):
        return
    progress("reading what the dense network teaches", 0.0)
    some = torch.arange(min(2, examples.count))
    with torch.no_grad():
        examples.loss(student, some, settings, torch.Generator().manual_seed(settings.seed))
