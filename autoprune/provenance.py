"""From levels to a policy file that says where it came from, and the check that it belongs to a network."""

import platform
import time
from importlib.metadata import version
from typing import Any

import torch

from autoprune.assembly import Assembly
from autoprune.errors import UserError
from autoprune.policy import Cost, Policy, UnitPolicy, ranges
from autoprune.space import Levels


def make_policy(assembly: Assembly, levels: Levels, losses: dict[str, Any]) -> Policy:
    """The policy file of some levels."""
    space, config = assembly.space, assembly.config
    costs = {
        metric: Cost(
            dense=space.cost(space.dense, metric), policy=space.cost(levels, metric), budget=space.budgets.get(metric)
        )
        for metric in space.costs
    }
    provenance = {
        "model": config.model or "embedded",
        "model_hash": assembly.loaded.digest,
        "data_hash": assembly.splits.digest,
        "agent": config.agent,
        "criterion": config.criterion,
        "seed": config.seed,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "autoprune": version("autoprune"),
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "python": platform.python_version(),
        },
    }
    return Policy(
        schema="autoprune.policy/1", units=_units(assembly, levels), costs=costs, losses=losses, provenance=provenance
    )


def check_policy(assembly: Assembly, policy: Policy) -> None:
    """Raise a UserError unless the policy fits the network it is to be applied to."""
    made_for = policy.provenance.get("model_hash")
    if made_for != assembly.loaded.digest:
        raise UserError(
            f"the policy was made for the model {made_for} ({policy.provenance.get('model')}), and this one is "
            f"{assembly.loaded.digest} ({assembly.loaded.path})."
        )
    expected = _units(assembly, policy.levels) if len(policy.units) == len(assembly.space.units) else []
    if policy.units != expected:
        raise UserError("the policy's units or kept groups are not those of this run's level store: search again.")


def _units(assembly: Assembly, levels: Levels) -> list[UnitPolicy]:
    assembly.space.check(levels)
    rows = []
    for u, (unit, level) in enumerate(zip(assembly.space.units, levels, strict=True)):
        kept = unit.kept[level]
        groups = ranges(assembly.store.kept_groups(u, kept))
        rows.append(
            UnitPolicy(
                name=unit.name,
                kind=unit.kind,
                block=unit.block,
                groups=unit.groups,
                level=level,
                kept=kept,
                kept_groups=groups,
            )
        )
    return rows
