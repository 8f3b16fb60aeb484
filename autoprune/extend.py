"""The names that a plug-in imports: the ports that parts derive from, and the records that parts receive.

    from autoprune.extend import Agent, Objective

These names are stable; the modules behind them may move. A name is imported when it is used, so that a reward does
not import torch. `autoprune.testing` has the contract of every kind of part.

| part | it derives from | it receives |
|---|---|---|
| agent | `Agent`, `Sb3Agent` or `SampledAgent` | `Objective`, which has the `SearchSpace` of `Unit`s and `Limits` |
| reward | a function; `every_step` marks a reward that is paid at every step | `RewardRecord` |
| budget | `Metric` or a function; `of_network` marks a maker of one | `Unit`, `Level`, `Workload`, `Network` |
| criterion | `Criterion`; `reconstruct` gives the consumer's weights | tensors |
| loss | `Loss` | tensors |
| distillation | `Distillation` | tensors |
| family | `Family`: `Width`s of `Slice`s, with `Bundles` and `Segment`s | a block's module |
| exporter | `Exporter` | `Source`, which has the `Policy` |
| task | `Task`, which gives a `TrainingSet`; `Measurement`, `Examples`, `split_examples` | the run's settings |
| reader | `Reader`, which gives a text, `Records` (as of `records_of`) or `Tokens` | `File` |
| tracker | `Tracker` | `TrackedRun`, then numbers |
| scorer | `Scorer`, `ScorerWrapper` | policies; each is a `Proposal`: `Levels` or a `Mask` |

`UnitStatistics` describe a unit. `LimitReached` ends a search; an agent must not catch it.

A part raises `UserError` for a user's mistake. The message says what is wrong, the value seen and what would be right.
"""

import importlib
from typing import TYPE_CHECKING, Any

from autoprune import ports

if TYPE_CHECKING:  # what type checkers know; a name here is exported
    from autoprune.agents.sampled import SampledAgent as SampledAgent
    from autoprune.agents.sb3 import Sb3Agent as Sb3Agent
    from autoprune.cutting.widths import Bundles as Bundles
    from autoprune.cutting.widths import Segment as Segment
    from autoprune.cutting.widths import Slice as Slice
    from autoprune.cutting.widths import Width as Width
    from autoprune.data.examples import Examples as Examples
    from autoprune.data.examples import split_examples as split_examples
    from autoprune.data.file import File as File
    from autoprune.data.reader import Reader as Reader
    from autoprune.data.reader import Tokens as Tokens
    from autoprune.data.records import Records as Records
    from autoprune.data.records import records_of as records_of
    from autoprune.envs.rewards.record import RewardRecord as RewardRecord
    from autoprune.envs.rewards.record import every_step as every_step
    from autoprune.errors import LimitReached as LimitReached
    from autoprune.errors import UserError as UserError
    from autoprune.exporters.source import Source as Source
    from autoprune.level import Level as Level
    from autoprune.levels.criterion import reconstruct as reconstruct
    from autoprune.mask import Mask as Mask
    from autoprune.networks.family import Family as Family
    from autoprune.objective import Limits as Limits
    from autoprune.objective import Objective as Objective
    from autoprune.policy import Policy as Policy
    from autoprune.ports import Agent as Agent
    from autoprune.ports import Criterion as Criterion
    from autoprune.ports import Distillation as Distillation
    from autoprune.ports import Exporter as Exporter
    from autoprune.ports import Loss as Loss
    from autoprune.ports import Measurement as Measurement
    from autoprune.ports import Metric as Metric
    from autoprune.ports import Network as Network
    from autoprune.ports import Scorer as Scorer
    from autoprune.ports import ScorerWrapper as ScorerWrapper
    from autoprune.ports import Task as Task
    from autoprune.ports import TrackedRun as TrackedRun
    from autoprune.ports import Tracker as Tracker
    from autoprune.ports import TrainingSet as TrainingSet
    from autoprune.ports import of_network as of_network
    from autoprune.space import Levels as Levels
    from autoprune.space import Proposal as Proposal
    from autoprune.space import SearchSpace as SearchSpace
    from autoprune.space import Unit as Unit
    from autoprune.unit_statistics import UnitStatistics as UnitStatistics
    from autoprune.workload import Workload as Workload

_HOME = {
    "Bundles": "cutting.widths",
    "Examples": "data.examples",
    "Family": "networks.family",
    "File": "data.file",
    "Level": "level",
    "Levels": "space",
    "LimitReached": "errors",
    "Limits": "objective",
    "Mask": "mask",
    "Objective": "objective",
    "Policy": "policy",
    "Proposal": "space",
    "Reader": "data.reader",
    "Records": "data.records",
    "RewardRecord": "envs.rewards.record",
    "SampledAgent": "agents.sampled",
    "Sb3Agent": "agents.sb3",
    "SearchSpace": "space",
    "Segment": "cutting.widths",
    "Slice": "cutting.widths",
    "Source": "exporters.source",
    "Tokens": "data.reader",
    "Unit": "space",
    "UnitStatistics": "unit_statistics",
    "UserError": "errors",
    "Width": "cutting.widths",
    "Workload": "workload",
    "every_step": "envs.rewards.record",
    "reconstruct": "levels.criterion",
    "records_of": "data.records",
    "split_examples": "data.examples",
}
"""Name -> module of the engine. The names of the ports are added below."""

__all__ = sorted([*_HOME, *ports.__all__])  # a port that is added is here at once


def __getattr__(name: str) -> Any:
    if name in ports.__all__:
        return getattr(ports, name)
    if name not in _HOME:
        raise AttributeError(f"module 'autoprune.extend' has no attribute '{name}'")
    return getattr(importlib.import_module(f"autoprune.{_HOME[name]}"), name)
