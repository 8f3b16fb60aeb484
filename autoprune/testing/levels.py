"""What holds for every criterion and every metric: `check_criterion`, `check_metric`.

Shapes: O outputs, D inputs of a consumer, G groups, N samples, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoprune.budgets.metric import cost_rows, fixed_cost
from autoprune.ports.adapting import as_port
from autoprune.ports.criterion import Criterion, load_criterion
from autoprune.ports.metric import Metric, Network, load_metric
from autoprune.space import Unit
from autoprune.testing.toys import toy_space
from autoprune.workload import Workload


def check_criterion(criterion: str | type[Any], groups: int = 7, sizes: Sequence[int] = (1, 3)) -> None:
    """All of the contract of a criterion.

    Args:
        criterion: its name, `package.module:Object` or `file.py:Object`, or its class.
        groups: of the consumers that it is asked about.
        sizes: inputs of a group.

    Raises:
        AssertionError: something does not hold.
    """
    part = load_criterion(criterion) if isinstance(criterion, str) else as_port(Criterion, criterion())
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


def ordered(criterion: Criterion, weight_OD: Tensor, moments_DD: Tensor, groups: int) -> Tensor:
    """Its order, with evidence that fits: a gate's derivative and a scale are 0 where no output reads the group."""
    generator = torch.Generator().manual_seed(3)
    read_D = weight_OD.double().norm(dim=0)
    part_ND = torch.randn(50, weight_OD.shape[1], generator=generator, dtype=torch.float64) * read_D
    known = {
        "gradients_NG": part_ND.view(50, groups, -1).sum(2),
        "scales_C": torch.randn(weight_OD.shape[1], generator=generator) * read_D,
    }
    return criterion.order(weight_OD, moments_DD, groups, **{name: known[name] for name in criterion.needs})


def check_metric(
    metric: str | Any,
    units: Sequence[Unit] | None = None,
    workload: Workload | None = None,
    network: Network | None = None,
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
    part: Metric = load_metric(metric) if isinstance(metric, str) else as_port(Metric, metric)
    if network is not None:
        part = part.for_network(network)
        units, workload = units or network.units, workload or network.workload
    name, asked, run_on = part.described, units or toy_space().units, workload or Workload(128)
    rows = cost_rows(name, asked, run_on, part)
    assert cost_rows(name, asked, run_on, part) == rows, "the same question is answered differently the second time"
    assert any(row[-1] < row[0] for row in rows), "no unit costs less at its sparsest level: a budget bounds nothing"
    assert fixed_cost(name, part) == fixed_cost(name, part), "what is fixed changes"
