"""What a plug-in imports: the ports that parts derive from, and the records that they are handed.

    from autoprune.extend import Agent, Objective

Every name stays here, wherever the engine keeps it. A name is imported when it is used, so that a reward needs no
torch. `autoprune.testing` has the contract of every kind of part.

| part | it derives from | it is handed |
|---|---|---|
| agent | `Agent`, `Sb3Agent` or `SampledAgent` | `Objective`, which has the `SearchSpace` of `Unit`s and `Limits` |
| reward | a function; `every_step` marks one that is paid at every step | `RewardRecord` |
| budget | `Metric` or a function; `of_network` marks a maker of one | `Unit`, `Workload`, `Network` |
| criterion | `Criterion`; `reconstruct` gives the consumer's weights | tensors |
| loss | `Loss` | tensors |
| family | `Family` of `Width`s of `Slice`s | a block's module |
| exporter | `Exporter` | `Source`, which has the `Policy` |
| task | `Task`, which gives a `TrainingSet`; `Worth` is what a network measures there | the run's settings |
| scorer | `Scorer`, `ScorerWrapper` | policies: each a `Proposal`, which is `Levels` or a `Mask` |

`UnitStatistics` describe a unit, and `LimitReached` ends a search: an agent lets it pass.

A user's mistake is a `UserError`: what is wrong, the value seen, what would be right.
"""

import importlib
from typing import TYPE_CHECKING, Any

from autoprune import ports

if TYPE_CHECKING:
    pass

_HOME = {
    "Family": "networks.family",
    "Levels": "space",
    "LimitReached": "errors",
    "Limits": "objective",
    "Mask": "mask",
    "Objective": "objective",
    "Policy": "policy",
    "Proposal": "space",
    "RewardRecord": "envs.rewards.record",
    "SampledAgent": "agents.sampled",
    "Sb3Agent": "agents.sb3",
    "SearchSpace": "space",
    "Slice": "cutting.widths",
    "Source": "exporters.source",
    "Unit": "space",
    "UnitStatistics": "statistics",
    "UserError": "errors",
    "Width": "cutting.widths",
    "Workload": "workload",
    "every_step": "envs.rewards.record",
    "reconstruct": "levels.criterion",
}
"""Name -> module of the engine; the ports come besides."""

__all__ = sorted([*_HOME, *ports.__all__])  # a port that is added is here at once


def __getattr__(name: str) -> Any:
    if name in ports.__all__:
        return getattr(ports, name)
    if name not in _HOME:
        raise AttributeError(f"module 'autoprune.extend' has no attribute '{name}'")
    return getattr(importlib.import_module(f"autoprune.{_HOME[name]}"), name)
