"""Measures policies at the end of a search: losses on the validation split, sizes and speed."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autoprune.assembly import Assembly
from autoprune.evaluation.taught import own_losses
from autoprune.evaluation.timing import speeds
from autoprune.files.names import slug
from autoprune.files.writing import own_folder
from autoprune.level import form_of
from autoprune.objective import Objective
from autoprune.policy import Totals
from autoprune.ports.task import Progress
from autoprune.provenance import make_policy
from autoprune.refits import Refitted
from autoprune.space import Proposal, SearchSpace

PREFIX, PREFIXED = "validation_", ("ce",)
"""The prefix of some keys in `result.json`, and these keys."""
RECORDED = ("params", "macs", "tokens_per_second", "speed_spread")
"""Keys of a row in `result.json`, besides its name, its loss and what the task measures."""
CHUNKS = 16  # of the validation split, between two of which progress is told


@dataclass(frozen=True)
class Row:
    """One line of the final table.

    Args:
        name: name of the network.
        validation_loss: the configured loss on the validation split.
        measured: numbers that the task measures, by key. They are attributes, too: `row.perplexity`.
        params: parameters of the whole network; tied ones count once.
        macs: multiply-accumulates of the whole network, per item.
        tokens_per_second: items per second, from the median of several forward passes.
        speed_spread: half of the interquartile range of these passes, as a share of the median.
        costs: total of every budgeted metric, as its budget counts.
    """

    name: str
    validation_loss: float
    measured: Mapping[str, float]
    params: int
    macs: float
    tokens_per_second: float
    speed_spread: float
    costs: Mapping[str, float] = field(default_factory=dict)

    def __getattr__(self, key: str) -> float:
        """A number that the task measures, by its key."""
        if key.startswith("__") or "measured" not in vars(self):  # while it is copied
            raise AttributeError(key)
        try:
            return self.measured[key.removeprefix(PREFIX)]
        except KeyError:
            raise AttributeError(f"{', '.join(self.measured)} were measured, and no {key}") from None

    def record(self) -> dict[str, Any]:
        """The row as it is written in `result.json`."""
        named = {PREFIX + key if key in PREFIXED else key: value for key, value in self.measured.items()}
        return {
            "name": self.name,
            "validation_loss": self.validation_loss,
            **named,
            **{key: getattr(self, key) for key in RECORDED},
            "costs": dict(self.costs),
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Row":
        """The row that `record` has written."""
        own = {"name", *RECORDED, "validation_loss"}
        measured = {key.removeprefix(PREFIX): value for key, value in record.items() if key not in {*own, "costs"}}
        return cls(measured=measured, costs=record.get("costs", {}), **{key: record[key] for key in own})

    def beside(self, dense: "Row") -> dict[str, Totals]:
        """The totals of the whole network in a policy file, by metric."""
        return {key: Totals(dense=getattr(dense, key), policy=getattr(self, key)) for key in ("params", "macs")}

    @property
    def losses(self) -> dict[str, float]:
        """The losses in a policy file."""
        return {"loss": self.validation_loss, **self.measured}


def measure(
    assembly: Assembly, policies: Mapping[str, Proposal | Refitted], progress: Progress = lambda stage, share: None
) -> list[Row]:
    """Losses on the validation split, sizes and speed of named policies, some of them refitted."""
    tokens_NT, networks, task = assembly.splits.validation, list(policies.values()), assembly.task
    names = [task.label_loss, *task.measured]
    losses_PK = mean_losses(assembly, tokens_NT, networks, [assembly.config.loss, *names], progress)
    levels = [one.proposal if isinstance(one, Refitted) else one for one in networks]
    some_1T = tokens_NT[:1].to(assembly.config.device)
    places = [partial(assembly.placer.place, policy) for policy in levels]
    timed = speeds(places, assembly.view, some_1T, partial(progress, "timing"))
    rows = []
    for name, policy, (loss, *others), one in zip(policies, levels, losses_PK.tolist(), timed, strict=True):
        measured = task.quality(dict(zip(names, others, strict=True)))
        sizes = total_params(assembly, policy), total_macs(assembly, policy)
        costs = {metric: assembly.space.cost(policy, metric) for metric in assembly.space.budgets}
        rows.append(Row(name, loss, measured, *sizes, one.per_second, one.spread, costs))
    return rows


def mean_losses(
    assembly: Assembly,
    tokens_NT: Tensor,
    policies: Sequence[Proposal | Refitted],
    losses: Sequence[str],
    progress: Progress,
) -> NDArray[np.float64]:
    """Named losses of policies, some of them refitted, means over sequences, `[P, K]`.

    In any round, the losses of the dense policy are those of the original dense network.
    """
    found = [one for one in policies if not isinstance(one, Refitted)]
    refitted = [(p, one) for p, one in enumerate(policies) if isinstance(one, Refitted)]
    evaluator, count = assembly.evaluator(tokens_NT, *losses, once=True), len(tokens_NT)
    step = assembly.config.batch_size() * math.ceil(count / CHUNKS / assembly.config.batch_size())
    parts = []
    for start in range(0, count, step):
        progress("validating", start / count)
        some = range(start, min(count, start + step))
        losses_KPS = evaluator.score_each(found, some) if found else np.empty((len(losses), 0, len(some)))
        for p, one in refitted:  # in their order, so that each is put where it belongs
            losses_KS = evaluator.score_placed(one.proposal, partial(one.place, assembly.placer), some)
            losses_KPS = np.insert(losses_KPS, p, losses_KS, axis=1)
        parts.append(losses_KPS)
    means_PK = np.asarray(np.concatenate(parts, axis=2).mean(axis=2).T)
    if assembly.dense is not None and assembly.space.dense in policies:
        measured = [assembly.task.loss(name) for name in losses]
        own_KN = own_losses(assembly.dense.view, tokens_NT, measured, assembly.config.batch_size())
        means_PK[list(policies).index(assembly.space.dense)] = own_KN.mean(axis=1)
    return means_PK


def front_names(space: SearchSpace, front: Sequence[Proposal]) -> dict[str, Proposal]:
    """File names for the policies of a front, from their shares of the dense costs: `params-0.612`."""
    named: dict[str, Proposal] = {}
    for policy in front:
        shares = {m: space.cost(policy, m) / space.cost(space.dense, m) for m in space.budgets}
        name = slug("-".join(f"{slug(metric)}-{share:.3f}" for metric, share in shares.items()))
        numbered = (f"{name}-{i}" for i in itertools.count(2))  # of those whose shares round to the same
        named[next(one for one in itertools.chain([name], numbered) if one not in named)] = policy
    return named


def save_front(
    assembly: Assembly, objective: Objective, front: Sequence[Proposal], dense: Row, rows: Sequence[Row], out: Path
) -> None:
    """Write the policies of a front. They replace those of an earlier end of the run."""
    directory = out / "front"
    if front or directory.exists():
        own_folder(directory)
    for old in directory.glob("*.json"):
        old.unlink()
    for row, (name, proposal) in zip(rows, front_names(assembly.space, front).items(), strict=True):
        search_loss, tokens = objective.loss(proposal)
        measured = {row.name: row.losses}
        losses = {"search": search_loss, "search_tokens": tokens, "validation": measured}
        make_policy(assembly, proposal, losses, row.beside(dense)).save(directory / f"{name}.json")


def total_params(assembly: Assembly, proposal: Proposal) -> int:
    """Parameters of the whole network under a policy, including embeddings and without those of dropped units."""
    units = list(zip(assembly.space.units, assembly.space.levels_of(proposal), strict=True))
    saved = sum(unit.params(unit.groups) - form_of(level).params(unit, level) for unit, level in units)
    return round(assembly.loaded.n_params - saved - sum(unit.fixed_params for unit, level in units if not level.kept))


def total_macs(assembly: Assembly, proposal: Proposal) -> float:
    """Multiply-accumulates of the whole network under a policy, per item, at the workload's context.

    Products with single weights that are zero do not count, as in the metric `macs`.
    """
    assembly.placer.place(proposal)
    some_1T = assembly.splits.validation[:1].to(assembly.config.device)
    units = zip(assembly.space.units, assembly.space.levels_of(proposal), strict=True)
    zeros = sum(form_of(level).zero_macs(unit, level) for unit, level in units)
    return assembly.task.macs(assembly.view, some_1T, assembly.config.workload_of()) - zeros
