"""Training of image classifiers, with images that are shifted and mirrored at random.

Shapes: N images, C channels, V classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.errors import UserError
from autoprune.networks.images import ImageView, logits_of
from autoprune.ports.training import LossSettings, Measurement, TrainingSet
from autoprune.tasks.image_classification import ImageClassification
from autoprune.training.blending import blended, compares_blocks
from autoprune.training.recording import block_names, recorded
from autoprune.training.settings import LAYERNORM

MEASURED = 500  # images at a time
SHIFT = 8  # an image of n pixels is shifted by up to n / 8, as is usual for CIFAR


@dataclass(frozen=True)
class ImageMeasurement(Measurement):
    """Means over images.

    Args:
        ce: cross-entropy, nats.
        accuracy: top-1.
    """

    words = ImageClassification.words
    ce: float
    accuracy: float


class ImageTraining(TrainingSet):
    """Images to learn from. BatchNorm goes on with its statistics.

    If the dense network computes in half precision, the student uses autocast with bfloat16, unless `dtype` says which.

    Args:
        view: the view of the dense network.
        numbers: numbers of the training images, `[N]`.
        held_out: numbers of the images in the validation split.
    """

    as_trained = True

    def __init__(self, view: ImageView, numbers: Tensor, held_out: Tensor) -> None:
        self.view, self.dense, self.count = view, view.model, len(numbers)
        device = view.images.labels.device
        self._numbers, self._held_out = numbers.to(device), held_out.to(device)
        normed = any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in view.model.modules())
        self.defaults, self.validation_count = {} if normed else LAYERNORM, len(held_out)
        self._dtype = next(view.model.parameters()).dtype

    def loss(self, student: nn.Module, some: Tensor, settings: LossSettings, draw: torch.Generator) -> Tensor:
        """Mean over images."""
        numbers = self._numbers[some.to(self._numbers.device)]
        pixels = self.view.images.inputs(numbers)
        seen = augmented(pixels, draw) if settings.augment else pixels
        refuse_texts_settings(settings)
        half = settings.in_bfloat16(self._dtype != torch.float32)
        names = block_names(self.view) if compares_blocks(settings) else []
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=half), recorded(student, names) as own:
            own_NV = logits_of(student(seen))
        labels_N = self.view.images.labels[numbers]
        dense: list[Tensor] = []

        def taught() -> Tensor:
            with recorded(self.dense, names) as hidden:
                dense_NV = logits_of(self.dense(seen.to(self._dtype)))
            dense.extend(one.flatten(1) for one in hidden)
            return dense_NV

        return blended(own_NV, taught, labels_N, settings, ([one.flatten(1) for one in own], dense))

    @torch.no_grad()
    def measured(self, network: nn.Module, progress: Callable[[float], None] = lambda share: None) -> ImageMeasurement:
        """Cross-entropy and accuracy."""
        losses, right = 0.0, 0
        for part, some in enumerate(torch.split(self._held_out, MEASURED)):
            progress(part * MEASURED / len(self._held_out))
            logits_NV, labels_N = logits_of(network(self.view.pixels(some))).float(), self.view.images.labels[some]
            losses += float(functional.cross_entropy(logits_NV, labels_N, reduction="sum"))
            right += int((logits_NV.argmax(-1) == labels_N).sum())
        return ImageMeasurement(losses / len(self._held_out), right / len(self._held_out))


def refuse_texts_settings(settings: LossSettings) -> None:
    """Refuse what is of texts alone.

    Raises:
        UserError: such a setting is on.
    """
    if settings.cached:
        raise UserError("cached=true is of texts: images are shifted and mirrored, so the dense network answers anew.")
    for name in ("separate_documents", "answers_only"):
        if getattr(settings, name):
            raise UserError(f"{name}=true is of texts, and this run is of images: leave it.")


def augmented(pixels: Tensor, draw: torch.Generator) -> Tensor:
    """Shift images by up to an eighth of their sides and mirror them, each independently. The border is 0.

    Args:
        pixels: `[N, C, height, width]`.
        draw: random generator on the CPU.
    """
    count, _, height, width = pixels.shape
    reach = max(1, height // SHIFT), max(1, width // SHIFT)
    padded = functional.pad(pixels, (reach[1], reach[1], reach[0], reach[0]))
    top_N, left_N = (torch.randint(0, 2 * r + 1, (count, 1), generator=draw) for r in reach)
    rows_NH, columns_NW = top_N + torch.arange(height), left_N + torch.arange(width)
    mirrored_N = torch.rand(count, 1, generator=draw) < 0.5
    columns_NW = torch.where(mirrored_N, columns_NW.flip(1), columns_NW)
    rows_NH, columns_NW = rows_NH.to(pixels.device), columns_NW.to(pixels.device)
    every_N = torch.arange(count, device=pixels.device)[:, None, None]
    chosen_NHWC = padded.permute(0, 2, 3, 1)[every_N, rows_NH[:, :, None], columns_NW[:, None, :]]
    return chosen_NHWC.permute(0, 3, 1, 2).contiguous()  # as images are: networks may `view` what they are given
