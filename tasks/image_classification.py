"""Image classification: images with one class each, for networks of transformers and plain modules."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from autoprune.config import is_module
from autoprune.files.reading import DAMAGE, read_json
from autoprune.ports.task import GraphInput, Prepared, Progress
from autoprune.ports.training import TrainingSet
from autoprune.tasks.examples import TaskOfExamples, as_examples, numbers_left
from autoprune.wording import Measure, Words

if TYPE_CHECKING:
    from autoprune.config import SearchConfig

IMAGES = 32
"""Default number of images per sample."""
OWN: Mapping[str, Mapping[str, Any]] = {"tiny-cnn": {"data": "digits", "batch": 16}}
"""Settings of embedded networks: the data that they were trained on, and the default batch size. They are so small that
a pass over one sample is mostly overhead."""
CLASSIFIERS = ("ForImageClassification", "ForImageClassificationWithTeacher")
"""The suffix of the names of transformers' classes."""
GUESSED = 8
"""The number of samples on which the dense network is checked before a search."""
NATS = "nats per image"
ALONE = "for language models alone so far."


class ImageClassification(TaskOfExamples):
    """A classifier of images, with labelled images."""

    name = "images"
    words = Words(
        "images", "image", "sample", "images",
        label_loss=Measure("ce", "cross-entropy"),
        quality=Measure("accuracy", "accuracy", "percent", better=1, averages=True),
        units={"kl": NATS, "ce": NATS, "error": "share of wrong answers"},
    )  # fmt: skip
    supports = ("activation", "augment")
    instead: ClassVar[Mapping[str, str]] = {
        "roofline": "the budget roofline is of language models alone so far: latency, activation or macs here.",
        "decode": "workload.phase=decode is of language models: a network that reads images runs whole images.",
        "masks": f"the agent's masks are {ALONE}",
        "device_memory": f"device_memory is {ALONE}",
        "workers": "networks that read images are searched by one worker so far: leave --workers and --ray-address.",
    }
    measured = ("error",)
    auto_class = "AutoModelForImageClassification"

    def claims(self, model: object) -> bool:
        """Whether the model is a plain module, or a directory or cached hub model of an image classifier."""
        return is_module(model) or any(name.endswith(CLASSIFIERS) for name in architectures(model))

    def settings(self, model: object) -> Mapping[str, Any]:
        """The number of images in a sample; for embedded networks also their data."""
        return {"sequence_length": IMAGES} | (dict(OWN.get(model, {})) if isinstance(model, str) else {})

    def prepare(self, config: "SearchConfig", masks: bool, progress: Progress, data: str | None = None) -> Prepared:
        """Load a network that reads images, and make samples of image numbers."""
        from autoprune.data.images import check_labels, preprocessing, read_images, split_images
        from autoprune.networks.loading import load_model
        from autoprune.networks.modules import load_module
        from autoprune.networks.tracing import image_view

        progress("loading the model", 0.0)
        name = str(config.model)
        if is_module(name):
            loaded = load_module(name, config.device, config.dtype)
        else:
            loaded = load_model(
                name, config.device, config.dtype, config.trust_remote_code, None, self.name, self.auto_class, False
            )
        given = config.image_mean is not None and config.image_std is not None
        usual = (None, None) if loaded.is_plain or given else preprocessing(loaded.path)
        images = read_images(config.wanted(), config.image_mean or usual[0], config.image_std or usual[1])
        splits = split_images(images, config.sequence_length, config.split_sizes(), config.data_seed)
        view = image_view(loaded.model, loaded.family, images.to(config.device), config.mlp_group)
        check_labels(images, view(splits.search[:1, :1].to(config.device)).shape[-1])
        return Prepared(config, loaded, lambda: splits, view)

    def notices(self, prepared: Prepared) -> Iterable[str]:
        """Warn if the dense network is no better than guessing, because its accuracy then says nothing."""
        numbers = prepared.splits.search[:GUESSED].to(prepared.config.device)
        labels = prepared.view.labels(numbers)
        right = prepared.view(numbers).argmax(-1) == labels
        accuracy, kinds = float(right.float().mean()), len(set(labels.flatten().tolist()))
        if accuracy * kinds <= 1:
            yield (
                f"the dense network names {accuracy:.1%} of the images as their labels do, no more than a guess among "
                f"{kinds} would: see that the labels number the classes as the network does, and that image_mean and "
                "image_std are those that it was trained with."
            )

    def quality(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The cross-entropy, and the share of images that are classified as their labels."""
        return {"ce": losses["ce"], "accuracy": 1 - losses["error"]}

    def training(self, prepared: Prepared, candidates: bool = False) -> TrainingSet:
        """All images except the validation split and, for candidates, the search split."""
        from autoprune.tasks.image_training import ImageTraining

        return ImageTraining(as_examples(prepared.view), *numbers_left(prepared, candidates))

    def save_preprocessing(self, prepared: Prepared, directory: Path) -> None:
        """Save the checkpoint's image preprocessing."""
        file = Path(prepared.loaded.path) / "preprocessor_config.json"
        if file.is_file():
            shutil.copy(file, directory)

    def graph_input(self, prepared: Prepared) -> GraphInput:
        """Pixels `[N, C, height, width]` from the search split."""
        from autoprune.data.images import ImageSet

        images = as_examples(prepared.view).images
        assert isinstance(images, ImageSet)
        numbers = prepared.splits.search.flatten().to(images.labels.device)
        example, *samples = (images.pixels(numbers[:count]).cpu() for count in (2, 1, 3))
        scales = {"mean": images.mean, "std": images.std}
        normalisation = {"scale": 1 if images.images.is_floating_point() else 255} | {
            name: scale.flatten().tolist() for name, scale in scales.items()
        }
        notes = ["Pixels are normalised before they go in: (value / scale - mean) / std, for each channel."]
        return GraphInput("pixels", {0: "batch"}, example, samples, notes, extra={"normalisation": normalisation})


def architectures(model: object) -> list[str]:
    """The class names in the `config.json` of a local checkpoint. Nothing is downloaded.

    The result is empty if the file is missing or damaged; loading the model reports that.
    """
    file = _description(model) if isinstance(model, str) else None
    try:
        described = read_json(Path(file)) if file else {}
        return [str(name) for name in described.get("architectures") or []]
    except (OSError, *DAMAGE):
        return []


def _description(model: str) -> str | None:
    """The file `config.json` of a model."""
    if os.path.isdir(model):
        return str(Path(model) / "config.json")
    if model.count("/") > 1 or model.startswith((".", "~", "/")):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return found if isinstance(found, str) else None
