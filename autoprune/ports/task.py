"""The port of a task: what a network reads, what it is taught, and what its quality is.

A task is one class in `tasks/`. Everything that differs between text, images and other data is asked of it; the engine
never asks which task it is. A member that has a default here may be left out. Modules of tasks are imported to read a
configuration or to draw a report, so they import torch inside of methods.

Shapes: N samples, B samples of a forward pass, T items of a sample, V outputs of an item.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from autoprune.errors import UserError
from autoprune.ports.loss import Loss, load_loss
from autoprune.ports.training import TrainingSet
from autoprune.wording import Words
from autoprune.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoprune.calibration.splits import Splits
    from autoprune.config import SearchConfig
    from autoprune.networks.blocks import BlockView
    from autoprune.networks.family import Family
    from autoprune.networks.loading import LoadedModel

Progress = Callable[[str, float], None]
"""Is told the name of a stage and how much of it is done."""

FEATURES = {
    "activation": "the budget activation",
    "roofline": "the budget roofline",
    "decode": "workload.phase=decode",
    "masks": "an agent that keeps or removes single groups (masks)",
    "device_memory": "device_memory",
    "workers": "scoring on Ray (workers, ray_address)",
    "augment": "augment",
}
"""What a task may be able to do, by name, as messages call it."""


@dataclass(frozen=True)
class Prepared:
    """A network and its data, ready to be searched.

    Args:
        config: the configuration.
        loaded: the network and where it came from.
        read: gives the splits, the same each time.
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
    """What an exported graph reads.

    Args:
        name: of the input.
        axes: dimension -> name, of those that may have any size.
        example: an input to trace with; its free dimensions differ from each other and from 1, which would be fixed.
        samples: inputs of other sizes to check with.
        notes: what a user of the graph has to know, a sentence each.
        settings: arguments of the network besides.
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
    """A task. It must have `name`, `words`, `prepare`, `forward_pass` and `macs`; all other members have defaults.

    A task whose networks look examples up by number derives from `TaskOfExamples` (tasks/examples.py), which has the
    last two.
    """

    name: ClassVar[str]
    """As files have it."""
    words: ClassVar[Words]
    """What things are called."""
    supports: ClassVar[Collection[str]] = ()
    """Which of `FEATURES` the task can do."""
    instead: ClassVar[Mapping[str, str]] = {}
    """Feature that is not supported -> why not, and the way out, as a whole message."""
    losses: ClassVar[Mapping[str, str]] = {}
    """Losses of the task's own: name -> `package.module:Object` or `file.py:Object`, before those of the registry."""
    label_loss: ClassVar[str] = "ce"
    """Name of the loss against the labels. Derivatives are taken of it, and fine-tuning is measured in it."""
    measured: ClassVar[tuple[str, ...]] = ()
    """Names of losses that are measured at the end of a search besides the label loss, for `quality`."""
    auto_class: ClassVar[str] = ""
    """The auto class of transformers that loads its networks; empty where there is none."""
    has_context: ClassVar[bool] = False
    """Whether items of a sample look at each other, so that `workload.context` changes what a pass costs."""

    # -- which networks and settings -----------------------------------------------------------------------------

    def claims(self, model: object) -> bool:
        """Whether a model, as a configuration names it, is of this task where no task is configured; nothing is loaded.

        By default no model is: the task is to be configured.
        """
        return False

    def settings(self, model: object) -> Mapping[str, Any]:
        """Settings of a search of this model where the user configures none, as `sequence_length` and `loss`."""
        return {}

    def require(self, *features: str) -> None:
        """The one place where a task refuses what it cannot do.

        Raises:
            UserError: one of the features is not supported.
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
            progress: is told what is done.
            data: hash of the splits of a search that is over; what is slow to read may then be read when it is asked
                for. None for a search.

        Raises:
            UserError: whatever is wrong with the model or the data.
        """

    def view_of(self, model: "nn.Module", family: "Family", config: "SearchConfig", masks: bool) -> "BlockView":
        """A network that a worker has loaded as blocks; needed where `workers` is supported.

        Raises:
            UserError: the task has no workers, or the device's memory does not hold one block.
        """
        self.require("workers")
        raise NotImplementedError

    def notices(self, prepared: Prepared) -> Iterable[str]:
        """What the user should know before a search begins, a sentence each; by default nothing."""
        return ()

    def samples_of(self, prepared: Prepared, data: str) -> "Tensor":
        """Samples `[N, T]` of other data that a run is evaluated on. By default there are none.

        Raises:
            UserError: the data cannot be read, or the task has no other data.
        """
        raise UserError(f"a run on {self.words.data} is evaluated on its own validation split: leave --data.")

    # -- losses and quality ----------------------------------------------------------------------------------------

    def loss(self, name: str) -> Loss:
        """A loss by name: the task's own, or one of the registry.

        Raises:
            UserError: there is no such loss.
        """
        return load_loss(self.losses.get(name, name))

    def quality(self, losses: Mapping[str, float]) -> dict[str, float]:
        """What people know a network by, from its mean losses on the validation split, by key of a measure.

        Args:
            losses: name -> mean, of the label loss and of what `measured` names. By default they are the answer.
        """
        return dict(losses)

    def training(self, prepared: Prepared, candidates: bool = False) -> TrainingSet:
        """What a network can be trained on: all data but the validation split.

        Args:
            prepared: the network and its data.
            candidates: the networks of candidates are trained, so the search split, which compares them, is left out.

        Raises:
            UserError: nothing is left, or, as by default, the task has no training.
        """
        raise UserError(f"networks of the task '{self.name}' cannot be fine-tuned: the task declares no training.")

    # -- costs -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def forward_pass(self, view: "BlockView", workload: Workload) -> Callable[[], None]:
        """One forward pass of a workload on the network as it stands, to be timed or looked at.

        Raises:
            UserError: the network cannot run that workload.
        """

    @abstractmethod
    def macs(self, view: "BlockView", some_BT: "Tensor", workload: Workload) -> float:
        """Multiply-accumulates of the whole network as it stands, for one item.

        Args:
            view: the network.
            some_BT: samples.
            workload: what the network will be run on.
        """

    # -- exports and directories -------------------------------------------------------------------------------------

    def save_preprocessing(self, prepared: Prepared, directory: Path) -> None:
        """Write into an export what makes data ready for the network, as a tokenizer; by default nothing."""
        return None

    def graph_input(self, prepared: Prepared) -> GraphInput:
        """What an exported graph of the network reads.

        Raises:
            UserError: the task does not say, as by default.
        """
        raise UserError(f"the task '{self.name}' does not say what a graph of its networks reads: choose another form.")

    def evaluate_directory(
        self,
        path: Path,
        data: str | None,
        sequence_length: int,
        max_sequences: int | None,
        device: str = "cpu",
        dtype: str = "auto",
        progress: Progress = lambda stage, share: None,
    ) -> dict[str, Any]:
        """Measure a directory that is no run, with the loss that searches report.

        Args:
            path: the directory.
            data: what is read; None is the task's default.
            sequence_length: items of a sample.
            max_sequences: samples at most; None is all.
            device: torch device.
            dtype: what to compute in, as in a search.
            progress: is told what is done.

        Raises:
            UserError: it cannot be measured. By default only runs can be.
        """
        raise UserError(
            f"'{path}' is no language model in Hugging Face form: `autoprune evaluate RUN` measures any run's policy."
        )
