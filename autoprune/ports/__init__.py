"""The ports: the required and optional members of each kind of part, and the defaults of the optional ones.

Each port is a class in its own file. A part is a subclass of its port. The engine uses only members that the port
declares.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.ports.agent import Agent
    from autoprune.ports.criterion import Criterion
    from autoprune.ports.distillation import Distillation
    from autoprune.ports.exporter import Exporter
    from autoprune.ports.loss import Loss
    from autoprune.ports.metric import Metric, Network, of_network
    from autoprune.ports.scorer import Scorer, ScorerWrapper
    from autoprune.ports.task import Task
    from autoprune.ports.tracker import TrackedRun, Tracker
    from autoprune.ports.training import Measurement, TrainingSet

_HOME = {
    "Agent": "agent",
    "Criterion": "criterion",
    "Distillation": "distillation",
    "Exporter": "exporter",
    "Loss": "loss",
    "Metric": "metric",
    "Network": "metric",
    "Scorer": "scorer",
    "ScorerWrapper": "scorer",
    "Task": "task",
    "TrackedRun": "tracker",
    "Tracker": "tracker",
    "TrainingSet": "training",
    "Measurement": "training",
    "of_network": "metric",
}

__all__ = [
    "Agent",
    "Criterion",
    "Distillation",
    "Exporter",
    "Loss",
    "Measurement",
    "Metric",
    "Network",
    "Scorer",
    "ScorerWrapper",
    "Task",
    "TrackedRun",
    "Tracker",
    "TrainingSet",
    "of_network",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'autoprune.ports' has no attribute '{name}'")
    return getattr(importlib.import_module(f"autoprune.ports.{_HOME[name]}"), name)
