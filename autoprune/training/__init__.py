"""Training of pruned networks. The search uses it for losses after some steps, and recovery for fine-tuning.

`settings` has the settings, `loop` the training loop, `blending` the loss that tasks share, `state` the saved state of
an interrupted training, `adapters` low-rank adapters, and `candidate` the training of candidates of a search.
"""

from autoprune.training.loop import train
from autoprune.training.settings import TrainingSettings, settings_of

__all__ = ["TrainingSettings", "settings_of", "train"]
