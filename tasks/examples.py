"""The common part of tasks whose samples are numbers of examples, such as images (data/examples.py)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from autoprune.ports.task import Prepared, Task
from autoprune.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.networks.blocks import BlockView
    from autoprune.networks.images import ImageView


class TaskOfExamples(Task):
    """A task whose `view` is an `ImageView`, of images or of other `Examples`. Every item is one example."""

    def forward_pass(self, view: "BlockView", workload: Workload) -> Callable[[], None]:
        """A pass over `workload.batch` examples."""
        from autoprune.budgets.passes import example_pass_of

        return example_pass_of(as_examples(view), workload)

    def macs(self, view: "BlockView", some_BT: "Tensor", workload: Workload) -> float:
        """Multiply-accumulates for the first example."""
        from autoprune.evaluation.counting import macs_of

        return macs_of(view, some_BT[:1, :1])


def as_examples(view: "BlockView") -> "ImageView":
    """The view as an `ImageView`, which it must be."""
    from autoprune.networks.images import ImageView

    assert isinstance(view, ImageView)
    return view


def numbers_left(prepared: Prepared, candidates: bool = False) -> "tuple[Tensor, Tensor]":
    """Numbers of the training examples and of the validation examples, `[N]` each.

    Args:
        prepared: the network and its data.
        candidates: whether the search split is left out as well.

    Raises:
        UserError: no examples are left besides the validation split.
    """
    import torch

    from autoprune.training.blending import left

    held_out, search = prepared.splits.validation.flatten(), prepared.splits.search.flatten()
    numbers = torch.arange(len(as_examples(prepared.view).images))
    kept_out = torch.cat([held_out, search]) if candidates else held_out
    return left(numbers, ~torch.isin(numbers, kept_out)), held_out
