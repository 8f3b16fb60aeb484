"""Training of pruned networks, used by the search, for losses after some steps, and by recovery.

`settings` say how, `loop` takes the steps over the examples that a task gives, `blending` is the loss that tasks share,
`state` is what an interrupted training goes on with, `adapters` are trained in the place of all weights, `candidate`
trains the networks of policies that a search compares.
"""

from autoprune.training.loop import train
from autoprune.training.settings import TrainingSettings, settings_of

__all__ = ["TrainingSettings", "settings_of", "train"]
