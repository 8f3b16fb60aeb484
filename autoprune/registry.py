"""Every part that can be chosen by name, as `package.module:Object`, imported only when chosen.

To add a part: one new file and one line here. From outside, without a fork, wherever a name is taken
`package.module:Object` is taken too, and an entry point in the group `autoprune.<kind>` gives a name.
"""

import difflib
import importlib
from importlib.metadata import entry_points
from typing import Any

from autoprune.errors import UserError

PARTS: dict[str, dict[str, str]] = {
    "agents": {
        "uniform": "autoprune.agents.uniform:Uniform",
        "random": "autoprune.agents.random:Random",
        "greedy": "autoprune.agents.greedy:Greedy",
        "evolution": "autoprune.agents.evolution:Evolution",
        "evopress": "autoprune.agents.evopress:EvoPress",
    },
    "budgets": {
        "params": "autoprune.budgets.params:params",
        "macs": "autoprune.budgets.macs:macs",
    },
    "criteria": {
        "magnitude": "autoprune.levels.magnitude:Magnitude",
        "wanda": "autoprune.levels.wanda:Wanda",
        "obs": "autoprune.levels.obs:OptimalBrainSurgeon",
    },
    "losses": {
        "kl": "autoprune.calibration.losses:KullbackLeibler",
        "ce": "autoprune.calibration.losses:CrossEntropy",
    },
    "families": {
        "llama": "autoprune.search_spaces.llama:FAMILY",
        "gpt2": "autoprune.search_spaces.gpt2:FAMILY",
        "opt": "autoprune.search_spaces.opt:FAMILY",
    },
    "exporters": {
        "hf": "autoprune.exporters.huggingface:export",
        "policy": "autoprune.exporters.policy_json:export",
    },
}


def names(kind: str) -> list[str]:
    """The names known for a kind, built in and plugged in, sorted."""
    return sorted({*PARTS[kind], *(point.name for point in entry_points(group=f"autoprune.{kind}"))})


def target(kind: str, name: str) -> str:
    """`package.module:Object` of the part called `name`: a built-in, an entry point, or given so already.

    Raises:
        UserError: no such name (with near misses).
    """
    found = PARTS[kind].get(name) or _entry_point(kind, name) or (name if ":" in name else None)
    if found is None:
        near = difflib.get_close_matches(name, names(kind), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(
            f"no {singular(kind)} is called '{name}'.{hint} Known: {', '.join(names(kind))}; "
            "your own is given as package.module:Object."
        )
    return found


def load(kind: str, name: str) -> Any:
    """The part called `name`, imported.

    Raises:
        UserError: no such name (with near misses), or its target does not import.
    """
    found = target(kind, name)
    module, _, attribute = found.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"the {singular(kind)} '{name}' could not be loaded from '{found}': {error}.") from error


def singular(kind: str) -> str:
    """The word for one part of a kind, for messages."""
    return {"criteria": "criterion", "families": "family", "losses": "loss"}.get(kind, kind.removesuffix("s"))


def _entry_point(kind: str, name: str) -> str | None:
    return next((point.value for point in entry_points(group=f"autoprune.{kind}", name=name)), None)
