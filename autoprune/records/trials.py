"""Scores as trials of an Optuna study (record.py says what a trial holds)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.journal import Score
from autoprune.mask import Mask
from autoprune.space import Proposal, SearchSpace

ENOUGH = 1 / 8  # of the split, as the constraint `tokens` has it


class Trials:
    """Turns scores, in the journal's order, into trials.

    Attributes:
        values: what the values of a trial are called.
    """

    def __init__(
        self, space: SearchSpace, run: str, tokens_per_sequence: int, metrics: Sequence[str], sequences: int
    ) -> None:
        self.values = ("loss", *metrics)
        self._space, self._run, self._tokens, self._metrics = space, run, tokens_per_sequence, tuple(metrics)
        self._needed = ENOUGH * sequences * tokens_per_sequence
        self._losses: dict[Proposal, dict[int, float]] = defaultdict(dict)
        self._steps: dict[Proposal, dict[int, float]] = defaultdict(dict)
        self._dense = {metric: space.cost(space.dense, metric) or 1.0 for metric in space.costs}
        levels = {unit.name: IntDistribution(0, len(unit.kept) - 1) for unit in space.units}
        kept = {f"{unit.name}.kept": IntDistribution(0, unit.groups) for unit in space.units}
        self._distributions: Mapping[str, BaseDistribution] = levels | kept

    def params(self, proposal: Proposal) -> dict[str, int]:
        """A proposal by the names of units."""
        units = self._space.units
        if isinstance(proposal, Mask):
            return {f"{unit.name}.kept": kept for unit, kept in zip(units, self._space.kept(proposal), strict=True)}
        return {unit.name: level for unit, level in zip(units, proposal, strict=True)}

    def trial(self, score: Score) -> FrozenTrial:
        """The next one."""
        proposal = score.proposal
        known = self._losses[proposal]
        known.update(zip(score.sequences, score.losses, strict=True))
        loss, tokens = float(np.mean(list(known.values()))), len(known) * self._tokens
        finite = bool(np.isfinite(loss))
        steps = self._steps[proposal]
        if finite:
            steps[tokens] = loss
        shares = {metric: self._space.cost(proposal, metric) / dense for metric, dense in self._dense.items()}
        params = self.params(proposal)
        return create_trial(
            state=TrialState.COMPLETE if finite else TrialState.FAIL,
            values=[loss, *(shares[metric] for metric in self._metrics)] if finite else None,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            constraints=self._constraints(proposal, shares, tokens),
            user_attrs={
                "run": self._run,
                "tokens": tokens,
                "seconds": score.seconds,
                **{f"share.{metric}": share for metric, share in shares.items()},
                **bits_of(proposal),
                **({} if score.failed is None else {"failed": score.failed}),
            },
            intermediate_values=dict(steps) if finite and not self._metrics else None,
        )

    def _constraints(self, proposal: Proposal, shares: Mapping[str, float], tokens: int) -> dict[str, float]:
        bounds = {metric: bound / self._dense[metric] for metric, bound in self._space.budgets.items()}
        over = {f"budget.{metric}": shares[metric] - bound for metric, bound in bounds.items()}
        if self._space.feasible(proposal):
            self._needed = max(self._needed, tokens / 2)
            over = {name: min(above, 0.0) for name, above in over.items()}  # what rounding left
        return over | {"tokens": 1 - tokens / self._needed}


def bits_of(proposal: Proposal) -> dict[str, str]:
    """A mask as an attribute; nothing for levels, which are parameters."""
    return {"mask": proposal.bits.hex()} if isinstance(proposal, Mask) else {}
