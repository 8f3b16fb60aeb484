"""What a network is trained on and how it is measured afterwards: the part of a task that fine-tuning uses."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from autoprune.wording import Words

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class LossSettings(Protocol):
    """The settings of a training that a loss uses. `training.TrainingSettings` has all settings."""

    @property
    def weight(self) -> float:
        """Weight of the dense network's outputs relative to the labels, in [0, 1]."""
        ...

    @property
    def temperature(self) -> float:
        """Temperature of both networks' probabilities when they are compared."""
        ...

    @property
    def distill(self) -> str:
        """Distances from the dense network, by name."""
        ...

    @property
    def top_k(self) -> int:
        """Number of the dense network's most likely classes that are compared; 0 is all of them."""
        ...

    @property
    def cached(self) -> bool:
        """Whether the dense network's most likely classes are kept on disk."""
        ...

    @property
    def separate_documents(self) -> bool:
        """Whether no token attends to another document of its sequence."""
        ...

    @property
    def answers_only(self) -> bool:
        """Whether only what the assistant says in chats is learned."""
        ...

    @property
    def augment(self) -> bool:
        """Whether examples are changed at random."""
        ...

    def in_bfloat16(self, half: bool) -> bool:
        """Whether the network computes in bfloat16 (autocast); `half`: the dense one is in half precision."""
        ...


@dataclass(frozen=True)
class Measurement(ABC):
    """A network measured on the validation split. A task adds numbers as fields, each named by a measure's key."""

    words: ClassVar[Words]
    """The words of the task."""

    @property
    def loss(self) -> float:
        """The loss against the labels, by which networks are compared."""
        return float(asdict(self)[self.words.label_loss.key])

    def told(self) -> str:
        """All numbers in words, the quality first."""
        known = self.words.known
        values: dict[str, float] = asdict(self)
        first = sorted(values, key=lambda key: list(known).index(key) if key in known else len(known))
        return ", ".join(
            f"{known[key].name} {known[key].written(values[key])}" if key in known else f"{key} {values[key]:.4f}"
            for key in first
        )


class TrainingSet(ABC):
    """Training examples, the dense network that teaches, and the validation split.

    Attributes:
        dense: the dense network.
        count: number of training examples. Examples are identified by number.
        tokens: number of items in an example.
    """

    dense: "nn.Module"
    count: int
    tokens: int = 1
    validation_count: int = 0
    """Number of examples of the validation split; 0 if it is not known, and then nothing is measured while training."""
    as_trained: bool = False
    """Whether BatchNorm and dropout are in training mode."""
    defaults: Mapping[str, Any] = {}
    """Defaults for this network that differ from those of `training.TrainingSettings`."""

    @abstractmethod
    def loss(self, student: "nn.Module", some: "Tensor", settings: LossSettings, draw: "torch.Generator") -> "Tensor":
        """Mean loss of a network on examples, a scalar with derivatives.

        Args:
            student: the network.
            some: numbers of examples, `[n]` on the CPU.
            settings: weight, temperature.
            draw: random generator for everything else, on the CPU.
        """

    @abstractmethod
    def measured(self, network: "nn.Module", progress: Callable[[float], None] = lambda share: None) -> Measurement:
        """Measure a network on the validation split; `progress` is called with the share that is done."""
