"""What is measured at the end of a search: losses on the validation split, sizes and speed of named policies."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoprune.assembly import Assembly, Progress
from autoprune.evaluation.timing import tokens_per_second
from autoprune.files.names import slug
from autoprune.files.writing import own_folder
from autoprune.objective import Objective
from autoprune.provenance import make_policy
from autoprune.space import Proposal, SearchSpace


@dataclass(frozen=True)
class Row:
    """One line of the final table; `accuracy` is top-1 of images, None of texts."""

    name: str
    validation_loss: float
    validation_ce: float
    perplexity: float
    params: int
    macs: float
    tokens_per_second: float
    accuracy: float | None = None

    @property
    def losses(self) -> dict[str, float]:
        """What a policy file has of it."""
        known = {"loss": self.validation_loss, "ce": self.validation_ce, "accuracy": self.accuracy}
        return {name: value for name, value in known.items() if value is not None}


def measure(
    assembly: Assembly, policies: dict[str, Proposal], progress: Progress = lambda stage, share: None
) -> list[Row]:
    """Losses on the validation split, sizes and speed of named policies."""
    tokens_NT, names = assembly.splits.validation, list(policies)
    levels = list(policies.values())
    progress("validating", 0.0)
    images = assembly.loaded.family.task == "images"
    evaluator = assembly.evaluator(tokens_NT, assembly.config.loss, "ce", *["error"] * images, once=True)
    loss_P, ce_P, *error_P = evaluator.score_each(levels, range(len(tokens_NT))).mean(axis=2)
    rows = []
    for i, (name, policy) in enumerate(zip(names, levels, strict=True)):
        assembly.placer.place(policy)
        speed = tokens_per_second(assembly.view, tokens_NT[:1].to(assembly.config.device))
        loss, ce, macs = float(loss_P[i]), float(ce_P[i]), assembly.space.cost(policy, "macs")
        accuracy = 1 - float(error_P[0][i]) if images else None
        rows.append(Row(name, loss, ce, float(np.exp(ce)), total_params(assembly, policy), macs, speed, accuracy))
    return rows


def front_names(space: SearchSpace, front: Sequence[Proposal]) -> dict[str, Proposal]:
    """Policies of a front by their shares of the dense costs, as `params-0.612`; each is the name of a file."""
    named: dict[str, Proposal] = {}
    for policy in front:
        shares = {m: space.cost(policy, m) / space.cost(space.dense, m) for m in space.budgets}
        name = slug("-".join(f"{slug(metric)}-{share:.3f}" for metric, share in shares.items()))
        numbered = (f"{name}-{i}" for i in itertools.count(2))  # of those whose shares round to the same
        named[next(one for one in itertools.chain([name], numbered) if one not in named)] = policy
    return named


def save_front(
    assembly: Assembly, objective: Objective, front: Sequence[Proposal], rows: Sequence[Row], out: Path
) -> None:
    """Write the policies of a front, in place of those of an earlier end of the run."""
    directory = out / "front"
    if front or directory.exists():
        own_folder(directory)
    for old in directory.glob("*.json"):
        old.unlink()
    for row, (name, proposal) in zip(rows, front_names(assembly.space, front).items(), strict=True):
        search_loss, tokens = objective.loss(proposal)
        measured = {row.name: row.losses}
        losses = {"search": search_loss, "search_tokens": tokens, "validation": measured}
        make_policy(assembly, proposal, losses).save(directory / f"{name}.json")


def total_params(assembly: Assembly, proposal: Proposal) -> int:
    """Parameters of the whole network under a policy, embeddings and what a dropped unit takes along included."""
    units = list(zip(assembly.space.units, assembly.space.kept(proposal), strict=True))
    saved = sum(unit.params(unit.groups) - unit.params(kept) for unit, kept in units)
    return assembly.loaded.n_params - saved - sum(unit.fixed_params for unit, kept in units if kept == 0)
