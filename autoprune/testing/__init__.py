"""The contracts of autoprune's parts, for the tests of a plug-in. They are what autoprune's own parts are tested with.

    from autoprune.testing import check_agent

    def test_my_agent():
        check_agent("my_package.agents:HillClimb", {"neighbours": 4})

Each function takes a part as a search does: by name, as `package.module:Object` or `file.py:Object`, or the object
itself. It raises an AssertionError that says what does not hold.

| function | what must hold |
|---|---|
| `check_agent` | limits hold; equal seeds are equal searches; resumed is as uninterrupted; better than `random` |
| `check_reward` | a finite number; a better loss at equal cost never pays less |
| `check_env` | the checkers of Gymnasium and stable-baselines3 pass; policies are within every budget |
| `check_metric` | a finite cost of at least 0; a sparser level costs no more; equal answers to equal questions |
| `check_criterion` | every group is named once; the inputs stay as they are; what no output reads leaves first |
| `check_distillation` | 0 for the dense network itself, otherwise more and finite; less after a step downhill |
| `check_loss` | finite; a sequence's loss does not depend on what it is scored with |
| `check_family` | units claim nothing twice; levels that are placed and taken back leave the network as it was |
| `check_exporter` | what is written gives the outputs of the pruned network; the dense network stays as it was |
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.testing.agents import check_agent
    from autoprune.testing.distilling import check_distillation
    from autoprune.testing.environments import check_env, check_reward
    from autoprune.testing.levels import check_criterion, check_metric
    from autoprune.testing.networks import check_exporter, check_family, check_loss

_HOME = {
    "check_agent": "agents",
    "check_criterion": "levels",
    "check_distillation": "distilling",
    "check_env": "environments",
    "check_exporter": "networks",
    "check_family": "networks",
    "check_loss": "networks",
    "check_metric": "levels",
    "check_reward": "environments",
}

__all__ = [
    "check_agent", "check_criterion", "check_distillation", "check_env", "check_exporter", "check_family", "check_loss",
    "check_metric", "check_reward",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """A check is imported when it is used: that of an agent needs no network."""
    if name not in _HOME:
        raise AttributeError(f"module 'autoprune.testing' has no attribute '{name}'")
    return getattr(importlib.import_module(f"autoprune.testing.{_HOME[name]}"), name)
