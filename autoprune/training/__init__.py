"""Training of pruned networks. The search uses it for losses after some steps, and recovery for fine-tuning.

`settings` has the settings, `loop` the training loop, `blending` the loss that tasks share, `state` the saved state of
an interrupted training, `stopping` ends a training early, `adapters` low-rank adapters, and `refit` the refit of
consumers in closed form. `candidate` trains candidates of a search, `learner` keeps their trainings in memory, and
`memory` estimates how much they need.
"""

from autoprune.training.loop import train
from autoprune.training.settings import TrainingSettings, settings_of

__all__ = ["TrainingSettings", "settings_of", "train"]
