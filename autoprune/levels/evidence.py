"""Evidence that criteria may use besides weights and moments. It is computed only if a criterion needs it.

The attribute `needs` of a criterion names keyword arguments of its `order`:

- `gradients_NG`: of the loss against the labels of N examples with respect to gates of the G groups
  (calibration/gradients.py);
- `scales_C`: of the last BatchNorm that writes the width, one for each of its C channels.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from autoprune.calibration.gradients import gate_gradients
from autoprune.calibration.moments import links_of
from autoprune.cutting import reading
from autoprune.errors import UserError
from autoprune.networks.blocks import BlockView
from autoprune.ports.criterion import Criterion
from autoprune.ports.loss import Loss

KNOWN = ("gradients_NG", "scales_C")

Evidence = Mapping[str, Tensor]
"""Of one width, by the names of `KNOWN`."""


def check_needs(name: str, criterion: Criterion, view: BlockView) -> None:
    """Raise a UserError if a criterion needs evidence that is unknown or that the network does not have.

    Args:
        name: of the criterion.
        criterion: the object.
        view: the network.
    """
    if not isinstance(criterion.needs, list | tuple):
        raise UserError(f"the criterion '{name}' has needs={criterion.needs!r}: a tuple of {', '.join(KNOWN)}, or ().")
    for need in criterion.needs:
        if need not in KNOWN:
            raise UserError(f"the criterion '{name}' needs '{need}', and what can be had is {', '.join(KNOWN)}.")
    takes = inspect.signature(criterion.order)
    try:
        takes.bind(None, None, None, **dict.fromkeys(criterion.needs))
    except TypeError as error:
        given = ", ".join(("weight_OD", "moments_DD", "groups", *criterion.needs))
        raise UserError(f"the criterion '{name}': its method 'order' takes {takes}, and is given ({given}).") from error
    if "scales_C" not in criterion.needs:
        return
    for block, widths in enumerate(view.widths):
        for width in widths:
            if any(reading.scales(link) is None for link in width.links):
                raise UserError(
                    f"the criterion '{name}' needs the scales of BatchNorm, and none with scales writes the unit "
                    f"{block}.{width.width.kind} of this network: choose another, as obs, taylor, wanda or magnitude."
                )


def gather(
    criterion: Criterion,
    view: BlockView,
    tokens_NT: Tensor,
    batch: int,
    progress: Callable[[float], None] | None = None,
    loss: Loss | None = None,
) -> list[list[Evidence]]:
    """What a criterion needs of every width of every block and those behind it, at the dense network.

    Args:
        criterion: passed `check_needs`.
        view: the network, its groups in their own order.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass.
        progress: called with the fraction done; not at all where nothing is run.
        loss: against the labels, of which derivatives are; None is the cross-entropy.

    Raises:
        UserError: derivatives are needed, and blocks are brought to the device in turn.
    """
    evidence: list[list[dict[str, Tensor]]] = [[{} for _ in links_of(widths)] for widths in view.widths]
    if "gradients_NG" in criterion.needs:
        _put(evidence, "gradients_NG", gate_gradients(view, tokens_NT, batch, progress, loss))
    if "scales_C" in criterion.needs:
        scales = [[reading.scales(link) for link in links_of(widths)] for widths in view.widths]
        _put(evidence, "scales_C", [[scales_C for scales_C in row if scales_C is not None] for row in scales])
    return [list(row) for row in evidence]


def _put(evidence: list[list[dict[str, Tensor]]], name: str, found: Sequence[Sequence[Tensor]]) -> None:
    for row, tensors in zip(evidence, found, strict=True):
        for one, tensor in zip(row, tensors, strict=True):
            one[name] = tensor
