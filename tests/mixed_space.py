"""A toy space whose units have levels of two forms: whole groups, and shares of single weights that save no latency."""

from collections.abc import Mapping

import numpy as np

from autoprune.level import Level, group_levels
from autoprune.space import SearchSpace, Unit
from autoprune.workload import Workload

FORM = "autoprune.level:Form"


def single(groups: int, share: float) -> Level:
    """All groups, and a share of their weights."""
    return Level(groups, share, FORM, (("share", share),))


def everything(unit: Unit, level: Level, workload: Workload) -> float:
    """A metric under which no level is dominated, so that a space has all of them."""
    return level.density


def mixed_space(seed: int = 0, units: int = 6, budgets: Mapping[str, float] | None = None) -> SearchSpace:
    """Units of different sizes. Some of them cannot be dropped, so that their last level is one of single weights.

    Args:
        budgets: metric -> share of dense, of `params` and `latency`.
    """
    rng, made = np.random.default_rng(seed), []
    rows: dict[str, list[list[float]]] = {"params": [], "latency": []}
    for u in range(units):
        kept = (4, 3, 2, 1) if u % 3 == 0 else (4, 3, 2, 1, 0)
        found = [*group_levels(4, kept), *(single(4, share) for share in (0.7, 0.5, 0.3, 0.15))]
        levels = (found[0], *sorted(found[1:], key=lambda level: -level.density))
        unit = Unit(f"{u // 2}.kind{u % 2}", f"kind{u % 2}", u // 2, 4, levels, int(rng.integers(5, 30)))
        made.append(unit)
        rows["params"].append([4 * unit.group_params * level.density for level in levels])
        rows["latency"].append([float(level.kept * (u + 1) + (level.kept > 0)) for level in levels])
    bounds = {metric: share * sum(row[0] for row in rows[metric]) for metric, share in (budgets or {}).items()}
    return SearchSpace(made, rows, bounds or {"params": 0.5 * sum(row[0] for row in rows["params"])})
