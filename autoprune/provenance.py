"""Converts levels or masks to a policy file with provenance, and back. Reading checks that the network fits."""

import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from autoprune.assembly import Assembly
from autoprune.errors import UserError
from autoprune.level import Level
from autoprune.mask import Mask
from autoprune.policy import SCHEMA, Cost, Policy, Refit, Totals, UnitPolicy, ranges, unranges
from autoprune.space import Levels, Proposal, Unit


def make_policy(
    assembly: Assembly,
    proposal: Proposal,
    losses: dict[str, Any],
    network: Mapping[str, Totals] | None = None,
    spent: Mapping[str, float] | None = None,
    refit: Refit | None = None,
) -> Policy:
    """The policy file of levels or of a mask.

    Args:
        assembly: of the run.
        proposal: the levels or the mask.
        losses: what was measured of it.
        network: totals of the whole network by metric.
        spent: what the search has spent, as `Spent` has it.
        refit: how its network was refitted; None where it was not.
    """
    space, config = assembly.space, assembly.config
    costs = {
        metric: Cost(
            dense=space.cost(space.dense, metric),
            policy=space.cost(proposal, metric),
            budget=space.budgets.get(metric),
            network=(network or {}).get(metric),
            of=assembly.of(metric),
            measure=assembly.measure(metric),
        )
        for metric in space.costs
    }
    provenance = {
        "model": config.model or "embedded",
        "model_hash": assembly.loaded.digest,
        "data_hash": assembly.splits.digest,
        "agent": config.agent,
        "criterion": config.criterion,
        "loss": config.loss,
        "seed": config.seed,
        **({"reward": config.reward} if config.reward is not None else {}),
        **({"reward_options": dict(config.reward_options)} if config.reward_options else {}),
        **({"spent": dict(spent)} if spent is not None else {}),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "autoprune": version("autoprune"),
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "python": platform.python_version(),
        },
    }
    units = _units(assembly, proposal)
    return Policy(schema=SCHEMA, units=units, costs=costs, losses=losses, provenance=provenance, refit=refit)


def proposal_of(assembly: Assembly, policy: Policy) -> Proposal:
    """The levels or the mask of a policy file, checked against the network that it is to be applied to.

    Raises:
        UserError: it is of another network, or of other units or levels.
    """
    made_for = policy.provenance.get("model_hash")
    if made_for != assembly.loaded.digest:
        raise UserError(
            f"the policy was made for the model {made_for} ({policy.provenance.get('model')}), and this one is "
            f"{assembly.loaded.digest} ({assembly.loaded.path})."
        )
    policy = _in_groups(policy, assembly.space.units)
    named = [(unit.name, unit.groups) for unit in policy.units]
    if named == [(unit.name, unit.groups) for unit in assembly.space.units]:
        proposal = _levels(policy) or _mask(assembly, policy)
        if _has(assembly, proposal) and policy.units == _units(assembly, proposal):
            return proposal
    raise UserError(
        "the policy's units or kept groups are not those of this run's level store: take a policy of this run, or "
        "search again."
    )


def _has(assembly: Assembly, proposal: Proposal) -> bool:
    """Whether a space has the levels of a policy, which may be of a run with other levels."""
    counts = assembly.space.n_levels_U
    return isinstance(proposal, Mask) or all(0 <= k < n for k, n in zip(proposal, counts, strict=True))


def _in_groups(policy: Policy, units: Sequence[Unit]) -> Policy:
    """Convert a policy of an earlier version, in which one group was what is now a bundle of groups."""
    found = []
    for one, unit in zip(policy.units, units, strict=False):
        kept, keys = one.kept * unit.bundle, [level.key for level in unit.levels]
        if unit.bundle > 1 and one.groups == unit.bundles(unit.groups) and (one.level is None or kept in keys):
            firsts = (group * unit.bundle for group in unranges(one.kept_groups))
            groups = [group for first in firsts for group in range(first, first + unit.bundle)]
            level, density = None if one.level is None else keys.index(kept), kept / unit.groups
            changes = {"groups": unit.groups, "level": level, "kept": kept, "density": density}
            one = one.model_copy(update=changes | {"kept_groups": ranges(groups)})
        found.append(one)
    return policy.model_copy(update={"units": [*found, *policy.units[len(found) :]]})


def _levels(policy: Policy) -> Levels | None:
    levels = tuple(unit.level for unit in policy.units if unit.level is not None)
    return levels if len(levels) == len(policy.units) else None


def _mask(assembly: Assembly, policy: Policy) -> Mask:
    kept = []
    for u, unit in enumerate(policy.units):
        kept_G = np.zeros(unit.groups, dtype=bool)
        kept_G[unranges(unit.kept_groups)] = True
        kept.append(kept_G[assembly.store.order(u).cpu().numpy()][:: assembly.space.units[u].bundle])
    return Mask.pack(kept)


def _units(assembly: Assembly, proposal: Proposal) -> list[UnitPolicy]:
    space = assembly.space
    space.check(proposal)
    numbers: list[int | None] = [None] * len(space.units) if isinstance(proposal, Mask) else list(proposal)
    rows = zip(space.units, numbers, space.levels_of(proposal), _kept_groups(assembly, proposal), strict=True)
    return [_unit(unit, number, level, groups) for unit, number, level, groups in rows]


def _unit(unit: Unit, number: int | None, level: Level, groups: list[int]) -> UnitPolicy:
    return UnitPolicy(
        name=unit.name, kind=unit.kind, block=unit.block, groups=unit.groups, level=number, form=level.form,
        kept=level.kept, density=level.density, options=dict(level.options), kept_groups=ranges(groups),
    )  # fmt: skip


def _kept_groups(assembly: Assembly, proposal: Proposal) -> list[list[int]]:
    """For each unit the groups that stay, by their number in the original network, ascending."""
    space, store = assembly.space, assembly.store
    if not isinstance(proposal, Mask):
        return [store.kept_groups(u, kept) for u, kept in enumerate(space.kept(proposal))]
    masks = zip(range(len(space.units)), proposal.unpack(space.groups), space.units, strict=True)
    return [sorted(store.order(u).cpu().numpy()[kept.repeat(unit.bundle)].tolist()) for u, kept, unit in masks]
