"""The port of a task: the data that a network reads, its training, and the measure of its quality.

A task is one class in `tasks/`. It has everything that differs between text, images and other data; the engine never
asks which task it is. Members with a default here are optional. Modules of tasks are imported to read a configuration
or to draw a report, so they import torch inside of methods.

Shapes: N samples, B samples of a forward pass, T items of a sample, V outputs of an item.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from autoprune.data_names import Wanted
from autoprune.errors import UserError
from autoprune.ports.loss import Loss, load_loss
from autoprune.ports.training import TrainingSet
from autoprune.wording import Words
from autoprune.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoprune.config import SearchConfig
    from autoprune.data.splits import Splits
    from autoprune.networks.blocks import BlockView
    from autoprune.networks.family import Family
    from autoprune.networks.loading import LoadedModel

Progress = Callable[[str, float], None]
"""A function that is called with the name of a stage and the share of it that is done."""

FEATURES = {
    "activation": "the budget activation",
    "roofline": "the budget roofline",
    "decode": "workload.phase=decode",
    "masks": "an agent that keeps or removes single groups (masks)",
    "device_memory": "device_memory",
    "workers": "scoring on Ray (workers, ray_address)",
    "augment": "augment",
}
"""Optional features of tasks: name -> the words for it in messages."""


@dataclass(frozen=True)
class Prepared:
    """A network and its data, ready for a search.

    Args:
        config: the configuration.
        loaded: the network and where it came from.
        read: returns the splits, always the same.
        view: the network as blocks.
    """

    config: "SearchConfig"
    loaded: "LoadedModel"
    read: Callable[[], "Splits"]
    view: "BlockView"

    @property
    def splits(self) -> "Splits":
        """Samples of the data."""
        return self.read()


@dataclass(frozen=True)
class GraphInput:
    """The input of an exported graph.

    Args:
        name: name of the input.
        axes: dimension -> name, for the dimensions that may have any size.
        example: an input to trace with. Its free dimensions must differ from each other and from 1, because tracing
            would fix them otherwise.
        samples: inputs of other sizes for checks.
        notes: sentences that a user of the graph has to know.
        settings: further arguments of the network.
        extra: further entries of `config.json`.
    """

    name: str
    axes: dict[int, str]
    example: "Tensor"
    samples: "list[Tensor]"
    notes: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class Task(ABC):
    """A task. `name`, `words`, `prepare`, `forward_pass` and `macs` are required; all other members have defaults.

    `TaskOfExamples` (tasks/examples.py) has the last two, for tasks whose samples are numbers of examples.
    """

    name: ClassVar[str]
    """The name of the task in files."""
    words: ClassVar[Words]
    """The words of the task."""
    supports: ClassVar[Collection[str]] = ()
    """The supported features, from `FEATURES`."""
    instead: ClassVar[Mapping[str, str]] = {}
    """Unsupported feature -> the whole message with the reason and the way out."""
    losses: ClassVar[Mapping[str, str]] = {}
    """The task's own losses: name -> `package.module:Object` or `file.py:Object`. They come before registered ones."""
    label_loss: ClassVar[str] = "ce"
    """The name of the loss against the labels. Its derivatives are used, and fine-tuning is measured with it."""
    measured: ClassVar[tuple[str, ...]] = ()
    """Names of further losses that are measured at the end of a search, for `quality`."""
    auto_class: ClassVar[str] = ""
    """The auto class of transformers that loads its networks; empty if there is none."""
    read_by: ClassVar[str] = "processor"
    """What stands before its networks in transformers: `tokenizer`, which is needed, or `processor`."""
    has_context: ClassVar[bool] = False
    """Whether items of a sample depend on each other, so that `workload.context` changes the cost of a pass."""

    # -- which networks and settings -----------------------------------------------------------------------------

    def claims(self, model: object) -> bool:
        """Whether a model belongs to this task if no task is configured. Nothing is loaded.

        By default no model does, and the task must be configured.
        """
        return False

    def settings(self, model: object) -> Mapping[str, Any]:
        """Default settings for a search of this model, such as `sequence_length` and `loss`."""
        return {}

    def require(self, *features: str) -> None:
        """Refuse unsupported features. This is the only place that does.

        Raises:
            UserError: a feature is not supported.
        """
        for feature in features:
            if feature in FEATURES and feature not in self.supports:
                told = f"{FEATURES[feature]} is not supported by the task '{self.name}': leave it out."
                raise UserError(self.instead.get(feature, told))

    # -- the network and its data ----------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, config: "SearchConfig", masks: bool, progress: Progress, data: str | None = None) -> Prepared:
        """Load the network, read the data and split it.

        Args:
            config: the configuration.
            masks: whether the agent keeps or removes single groups.
            progress: called with the stage and the share that is done.
            data: hash of the splits of a finished search. Slow data may then be read when they are needed. It is None
                for a search.

        Raises:
            UserError: the model or the data are not usable.
        """

    def view_of(self, model: "nn.Module", family: "Family", config: "SearchConfig", masks: bool) -> "BlockView":
        """The blocks of a network that a worker has loaded. It is required if `workers` is supported.

        Raises:
            UserError: the task does not support workers, or one block does not fit in the device's memory.
        """
        self.require("workers")
        raise NotImplementedError

    def notices(self, prepared: Prepared) -> Iterable[str]:
        """Sentences for the user before a search begins. The default is none."""
        return ()

    def samples_of(self, prepared: Prepared, data: "Wanted | str") -> "Tensor":
        """Samples `[N, T]` of other data, to evaluate a run on. The default refuses.

        Args:
            prepared: the network and its own data.
            data: a name, or several, or a column or a split of it.

        Raises:
            UserError: the data cannot be read, or the task has no other data.
        """
        raise UserError(f"a run on {self.words.data} is evaluated on its own validation split: leave --data.")

    # -- losses and quality ----------------------------------------------------------------------------------------

    def loss(self, name: str) -> Loss:
        """A loss by name: the task's own, or a registered one.

        Raises:
            UserError: there is no such loss.
        """
        return load_loss(self.losses.get(name, name))

    def quality(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The measures of a network, by key, from its mean losses on the validation split.

        Args:
            losses: name -> mean, for the label loss and the losses in `measured`. The default returns them.
        """
        return dict(losses)

    def training(self, prepared: Prepared, candidates: bool = False) -> TrainingSet:
        """The training set: all data except the validation split.

        Args:
            prepared: the network and its data.
            candidates: whether candidates of a search are trained. Then the search split is left out, too.

        Raises:
            UserError: no data are left, or the task has no training (the default).
        """
        raise UserError(f"networks of the task '{self.name}' cannot be fine-tuned: the task declares no training.")

    # -- costs -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def forward_pass(self, view: "BlockView", workload: Workload) -> Callable[[], None]:
        """A forward pass of a workload on the network with its present widths, for measurements.

        Raises:
            UserError: the network cannot run that workload.
        """

    @abstractmethod
    def macs(self, view: "BlockView", some_BT: "Tensor", workload: Workload) -> float:
        """Multiply-accumulates of the whole network with its present widths, for one item.

        Args:
            view: the network.
            some_BT: samples.
            workload: how the network will be used.
        """

    # -- exports and directories -------------------------------------------------------------------------------------

    def save_preprocessing(self, prepared: Prepared, directory: Path) -> None:
        """Save the preprocessing, such as a tokenizer, in an export. The default saves nothing."""
        return None

    def graph_input(self, prepared: Prepared) -> GraphInput:
        """The input of an exported graph of the network.

        Raises:
            UserError: the task does not define it (the default).
        """
        raise UserError(f"the task '{self.name}' does not say what a graph of its networks reads: choose another form.")

    def evaluate_directory(
        self,
        path: Path,
        data: "Wanted | str | None",
        sequence_length: int,
        max_sequences: int | None,
        device: str = "cpu",
        dtype: str = "auto",
        progress: Progress = lambda stage, share: None,
    ) -> dict[str, Any]:
        """Measure a network in a directory that is not a run, with the loss that searches report.

        Args:
            path: the directory.
            data: the data; None is the task's default.
            sequence_length: number of items in a sample.
            max_sequences: limit on the number of samples; None is all.
            device: torch device.
            dtype: data type to compute in, as in a search.
            progress: called with the stage and the share that is done.

        Raises:
            UserError: it cannot be measured. This is the default; runs can always be measured.
        """
        raise UserError(
            f"'{path}' is no language model in Hugging Face form: `autoprune evaluate RUN` measures any run's policy."
        )
