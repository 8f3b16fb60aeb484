"""Scores as trials of an Optuna study (record.py says what a trial holds)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.journal import Score
from autoprune.mask import Mask
from autoprune.space import Proposal, SearchSpace


class Trials:
    """Turns scores, in the journal's order, into trials.

    Attributes:
        values: names of the values of a trial.
    """

    def __init__(self, space: SearchSpace, run: str, tokens_per_sequence: int, metrics: Sequence[str]) -> None:
        self.values = ("loss", *metrics)
        self._space, self._run, self._tokens, self._metrics = space, run, tokens_per_sequence, tuple(metrics)
        self._losses: dict[Proposal, dict[int, float]] = defaultdict(dict)
        self._steps: dict[Proposal, dict[int, float]] = defaultdict(dict)
        self._seconds: dict[Proposal, float] = {}
        self._trained: dict[Proposal, int] = {}
        self._dense = {metric: space.cost(space.dense, metric) or 1.0 for metric in space.costs}
        levels = {unit.name: IntDistribution(0, len(unit.levels) - 1) for unit in space.units}
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
        if score.steps != self._trained.get(score.proposal, 0):  # losses of other weights
            self._losses[score.proposal], self._steps[score.proposal] = {}, {}
            self._trained[score.proposal] = score.steps
        known = self._losses[score.proposal]
        known.update(zip(score.sequences, score.losses, strict=True))
        self._seconds[score.proposal] = score.seconds
        loss, tokens = self._known(score.proposal)
        if np.isfinite(loss):
            self._steps[score.proposal][tokens] = loss
        own: dict[str, object] = {} if score.failed is None else {"failed": score.failed}
        own |= {"steps": score.steps} if score.steps else {}
        state = TrialState.PRUNED if np.isfinite(loss) else TrialState.FAIL
        return self._trial(score.proposal, state, loss, tokens, own)

    def finalist(self, proposal: Proposal, loss: float, tokens: int) -> FrozenTrial:
        """A complete trial of a scored proposal: one of those that the answer was chosen from.

        Args:
            proposal: the policy.
            loss: its mean loss, as the search knows it.
            tokens: the number of tokens in that mean.
        """
        return self._trial(proposal, TrialState.COMPLETE, loss, tokens, {"final": True})

    def _known(self, proposal: Proposal) -> tuple[float, int]:
        """Mean loss, and the tokens behind it."""
        known = self._losses[proposal]
        return float(np.mean(list(known.values()))), len(known) * self._tokens

    def _trial(
        self, proposal: Proposal, state: TrialState, loss: float, tokens: int, own: Mapping[str, object]
    ) -> FrozenTrial:
        steps = {n: known for n, known in self._steps[proposal].items() if n < tokens} | {tokens: loss}
        shares = {metric: self._space.cost(proposal, metric) / dense for metric, dense in self._dense.items()}
        params = self.params(proposal)
        return create_trial(
            state=state,
            values=[loss, *(shares[metric] for metric in self._metrics)] if state == TrialState.COMPLETE else None,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            constraints=self._constraints(proposal, shares),
            user_attrs={
                "run": self._run,
                "tokens": tokens,
                "seconds": self._seconds[proposal],
                **({"loss": loss} if state != TrialState.FAIL else {}),
                **{f"share.{metric}": share for metric, share in shares.items()},
                **bits_of(proposal),
                **own,
            },
            intermediate_values=steps if state != TrialState.FAIL and not self._metrics else None,
        )

    def _constraints(self, proposal: Proposal, shares: Mapping[str, float]) -> dict[str, float]:
        bounds = {metric: bound / self._dense[metric] for metric, bound in self._space.budgets.items()}
        over = {f"budget.{metric}": shares[metric] - bound for metric, bound in bounds.items()}
        if self._space.feasible(proposal):
            return {name: min(above, 0.0) for name, above in over.items()}  # what rounding left
        return over


def bits_of(proposal: Proposal) -> dict[str, str]:
    """A mask as an attribute; nothing for levels, which are parameters."""
    return {"mask": proposal.bits.hex()} if isinstance(proposal, Mask) else {}
