"""Short fine-tuning of a run's policy, taught by the dense network and by the labels: what published numbers are after.

`settings` say how, a `lesson` what is taught (texts or images), `training` is the loop, `state` what an interrupted one
goes on with, `lora` trains little in the place of all weights, `finetuning` puts them together for a run.
"""

from autoprune.tuning.finetuning import Tuned, cut_out, finetune, lesson_of, round_weights
from autoprune.tuning.image_lesson import ImageLesson
from autoprune.tuning.settings import Tuning, tuning_of
from autoprune.tuning.text_lesson import TextLesson
from autoprune.tuning.training import train

__all__ = [
    "ImageLesson", "TextLesson", "Tuned", "Tuning", "cut_out", "finetune", "lesson_of", "round_weights", "train",
    "tuning_of",
]  # fmt: skip
