"""The result of a search: what it found, how it is shown, and the pruned network."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.assembly import Assembly
from autoprune.exporting import export_policy, network_in_memory, reopen
from autoprune.fine_tuned import Finetuned, read_finetuned
from autoprune.objective import Answer, Spent
from autoprune.policy import Policy
from autoprune.space import SearchSpace
from autoprune.validation import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from torch import nn


@dataclass(frozen=True, repr=False)
class SearchResult:
    """The result of a search. Printed, or as the last line of a notebook's cell, it shows what was found.

    Args:
        policy: as saved in `policy.json`.
        loss: validation loss of the policy in the configured loss, nats per token; of the refitted network if there is
            a refit (`policy.refit`).
        history: (tokens spent, seconds, best search loss) after every batch.
        path: the run's directory.
        table: dense, uniform and best, measured on the validation split.
        front: the Pareto front, for agents that trade the loss against costs, measured like `table`. Each row names a
            policy file in `front/` of the run.
        spent: evaluations, tokens and seconds spent.
        interrupted: whether Ctrl-C or a callback ended it; `resume` goes on.
        space: the units, their levels and costs, and the budgets.
        incumbents: the best policy so far, over time. Empty for a result that was loaded.
    """

    policy: Policy
    loss: float
    history: list[tuple[int, float, float]]
    path: Path
    table: list[Row]
    front: list[Row]
    spent: Spent
    interrupted: bool
    space: SearchSpace = field(compare=False)
    incumbents: list[Answer] = field(compare=False)
    _open: Callable[[], Assembly] = field(compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or what is sent to another process, loads the network from the run when it needs it."""
        state = {name: value for name, value in vars(self).items() if name != "assembly"}
        return state | {"_open": partial(opened, self.path.absolute())}

    @cached_property
    def assembly(self) -> Assembly:
        """The network, its data and its levels. For a result that was loaded they are loaded now.

        Raises:
            UserError: the model or the data are not there any more, or not the same.
        """
        return self._open()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the network; None where it reads no text."""
        return self.assembly.loaded.tokenizer

    @property
    def recovered(self) -> Finetuned | None:
        """What fine-tuning left in the run: dense, uniform, found, refitted, recovered. None before fine-tuning.

        Raises:
            UserError: its file is damaged.
        """
        return read_finetuned(self.path)

    def model(self, to: str | None = None, refit: bool = True, **options: Any) -> "nn.Module":
        """The pruned network in memory, in evaluation mode: what `export` writes. It is a copy, every time.

        Args:
            to: name of an exporter that has networks in memory. None takes the exporter that fits the network: the
                result is then a `PreTrainedModel`, or a module like the one that the search was given.
            refit: whether a refitted network is given so. False gives it as the search found it.
            options: options of the exporter, such as `uniform=True` for a stock model, padded with zeros.

        Raises:
            UserError: there is no such exporter or option, or it cannot make this network.
        """
        return network_in_memory(self.assembly, self.policy, to, refit, **options)

    def export(self, path: str | Path, to: str | None = None, refit: bool = True, **options: Any) -> Path:
        """Write the pruned network to `path`.

        Args:
            path: where to write.
            to: name of an exporter. None takes the exporter that fits the network.
            refit: whether a refitted network is written so. False writes it as the search found it.
            options: options of the exporter, such as `uniform=True` for Hugging Face form.

        Raises:
            UserError: there is no such exporter or option, or it cannot write this network or this path.
        """
        return export_policy(self.assembly, self.policy, Path(path), to, refit, **options)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the share kept of every unit with matplotlib, from the first block to the last, beside the uniform one.

        Args:
            ax: where to draw. None makes a new figure.

        Raises:
            UserError: matplotlib is not installed.
        """
        from autoprune.result_frame import plotted

        return plotted(self, ax)

    def to_frame(self) -> "DataFrame":
        """A row for every unit: its level, what is kept, and its dense and present cost in every metric.

        Raises:
            UserError: pandas is not installed.
        """
        from autoprune.result_frame import units_of

        return units_of(self)

    def history_frame(self) -> "DataFrame":
        """The history with the columns `tokens`, `seconds` and `loss`: a row for every batch.

        Raises:
            UserError: pandas is not installed.
        """
        from autoprune.result_frame import history_of

        return history_of(self)

    def __repr__(self) -> str:
        from autoprune.result_text import text_of

        return text_of(self)

    def _repr_html_(self) -> str:
        from autoprune.result_html import html_of

        return html_of(self)


def opened(path: Path) -> Assembly:
    """The network, its data and its levels of a run that has a result."""
    return reopen(path)[0]
