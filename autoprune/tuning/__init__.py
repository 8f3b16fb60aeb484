"""Short fine-tuning of a run's policy, taught by the dense network and by the labels: what published numbers are after.

`settings` say how, `training` is the loop over the examples that a task gives, `blending` the loss that tasks share,
`state` what an interrupted training goes on with, `lora` trains little in the place of all weights, `finetuning` puts
them together for a run.
"""

from autoprune.tuning.finetuning import Tuned, cut_out, finetune, round_weights
from autoprune.tuning.settings import Tuning, tuning_of
from autoprune.tuning.training import train

__all__ = ["Tuned", "Tuning", "cut_out", "finetune", "round_weights", "train", "tuning_of"]
