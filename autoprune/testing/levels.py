"""What holds for every criterion and every metric: `check_criterion`, `check_metric`.

Shapes: O outputs, D inputs of a consumer, G groups, N samples, C channels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from autoprune import registry
from autoprune.budgets.metric import cost_rows
from autoprune.space import Unit
from autoprune.testing.toys import toy_space
from autoprune.workload import Workload

if TYPE_CHECKING:
    from autoprune.budgets.metric import Network


def check_criterion(criterion: str | type[Any], groups: int = 7, sizes: Sequence[int] = (1, 3)) -> None:
    """All of the contract of a criterion.

    Args:
        criterion: its name, `package.module:Object` or `file.py:Object`, or its class.
        groups: of the consumers that it is asked about.
        sizes: inputs of a group.

    Raises:
        AssertionError: something does not hold.
    """
    part = registry.load("criteria", criterion) if isinstance(criterion, str) else criterion
    for size in sizes:
        weight_OD, moments_DD = consumer(0, groups, size)
        before = weight_OD.clone(), moments_DD.clone()
        order = ordered(part, weight_OD, moments_DD, groups).tolist()
        assert sorted(order) == list(range(groups)), f"the order {order} does not name {groups} groups once each"
        assert torch.equal(weight_OD, before[0]), "the weights that it was given have changed"
        assert torch.equal(moments_DD, before[1]), "the moments that it was given have changed"
        again = ordered(part, weight_OD, moments_DD, groups).tolist()
        assert again == order, "the same question is answered differently the second time"
        unread = groups // 2
        weight_OD[:, unread * size : (unread + 1) * size] = 0
        order = ordered(part, weight_OD, torch.eye(groups * size, dtype=torch.float64), groups).tolist()
        assert order[-1] == unread, f"group {unread}, which no output reads, is not the last of {order}"


def consumer(seed: int, groups: int, size: int, outputs: int = 5) -> tuple[Tensor, Tensor]:
    """Weights `[O, D]` of a consumer and moments `[D, D]` of its correlated inputs, one of which is dead."""
    generator = torch.Generator().manual_seed(seed)
    inputs = groups * size
    mixing_DD = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    x_ND = torch.randn(200, inputs, generator=generator, dtype=torch.float64) @ mixing_DD
    x_ND[:, 0] = 0
    return torch.randn(outputs, inputs, generator=generator), x_ND.T @ x_ND / len(x_ND)


def ordered(criterion: Any, weight_OD: Tensor, moments_DD: Tensor, groups: int) -> Tensor:
    """Its order, with evidence that fits: a gate's derivative and a scale are 0 where no output reads the group."""
    generator = torch.Generator().manual_seed(3)
    read_D = weight_OD.double().norm(dim=0)
    part_ND = torch.randn(50, weight_OD.shape[1], generator=generator, dtype=torch.float64) * read_D
    known = {
        "gradients_NG": part_ND.view(50, groups, -1).sum(2),
        "scales_C": torch.randn(weight_OD.shape[1], generator=generator) * read_D,
    }
    made = criterion()
    order: Tensor = made.order(
        weight_OD, moments_DD, groups, **{name: known[name] for name in getattr(made, "needs", ())}
    )
    return order


def check_metric(
    metric: str | Any,
    units: Sequence[Unit] | None = None,
    workload: Workload | None = None,
    network: "Network | None" = None,
) -> None:
    """All of the contract of a metric.

    Args:
        metric: its name, `package.module:Object` or `file.py:Object`, or the metric.
        units: that it is asked about; None are those of the network, or of a toy.
        workload: what the network is run on; None is the network's, or sequences of 128 tokens.
        network: what a metric that must see one is made for (`of_network`).

    Raises:
        AssertionError: something does not hold.
        UserError: a cost is not finite, below 0, or higher than that of a denser level.
    """
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
    part = registry.load("budgets", metric) if isinstance(metric, str) else metric
    if getattr(part, "of_network", False):
        assert network is not None, f"'{name}' must see a network: give `network`"
        part = part(network)
    if network is not None:
        units, workload = units or network.units, workload or network.workload
    asked, run_on = units or toy_space().units, workload or Workload(128)
    rows = cost_rows(name, asked, run_on, part)
    assert cost_rows(name, asked, run_on, part) == rows, "the same question is answered differently the second time"
    assert any(row[-1] < row[0] for row in rows), "no unit costs less at its sparsest level: a budget bounds nothing"
    fixed = getattr(part, "fixed", 0.0)
    assert fixed >= 0, f"the fixed cost {fixed} is below 0"
