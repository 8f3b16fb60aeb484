"""Comparisons of candidates after training, in stages, for any agent.

Each stage trains and evaluates the candidates on more text and keeps fewer of them, as DarwinLM does (Tang et al.
2025, sec. 3.3). The parent takes part in the last stage. The training of a survivor goes on from stage to stage. The
trained weights are thrown away: the result is the policy.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from autoprune.errors import UserError
from autoprune.objective import Objective
from autoprune.ports.candidate_training import CandidateTraining, Trainer
from autoprune.space import Levels

LEAST_OF_REFIT = 2
"""Sequences of a refit: one that it is solved on, and one that is held out."""
GROWTH = (1, 4, 16)
"""Tokens that a network has been trained on by the end of each stage, in shares of those of the first."""

Tell = Callable[[Levels, NDArray[np.float64]], None]


@dataclass(frozen=True)
class TrainingStages:
    """Args:
    steps: training steps of a candidate by the end of each stage.
    contenders: number of candidates in the first stage. Each later stage has half as many, at least one.
    """

    steps: tuple[int, ...]
    contenders: int

    @classmethod
    def of(cls, objective: Objective, tokens: int, contenders: int, how: CandidateTraining) -> "TrainingStages":
        """Stages that train on `tokens`, 4 x `tokens` and 16 x `tokens` tokens (or images).

        Raises:
            UserError: networks cannot be trained here.
        """
        words, solved = objective.space.words, how.trainer == "refit"
        objective.training.choose(how)
        if not objective.training.possible:
            raise UserError(
                f"train_tokens={tokens}: candidates are trained with the whole network on the device. Leave "
                "device_memory, or leave train_tokens."
            )
        each, known = objective.training.step_items, objective.training.items
        least = LEAST_OF_REFIT if solved else 1
        steps = tuple(max(least, round(growth * tokens / each)) for growth in GROWTH)
        if known is not None and steps[-1] * each > known:
            there = f"there are {known:,} in the reconstruction split: the refit reads no more than these."
            if not solved:
                there = (
                    f"there are {known:,} outside of the search and validation splits: they are read more than once."
                )
            told = f"train_tokens={tokens}: the last stage takes {steps[-1] * each:,} {words.items}, and {there}"
            warnings.warn(told, RuntimeWarning, stacklevel=2)
        return cls(tuple(dict.fromkeys(steps)), contenders)

    def affordable(self, objective: Objective, rivals: int, sequences: int) -> bool:
        """Whether the limits leave room for a choice among so many rivals, of which a shortlist is made before.

        Args:
            objective: knows what is left.
            rivals: number of rivals before the shortlist.
            sequences: number of sequences that they are compared on.
        """
        passes, before = objective.training.passes_between(0, self.steps[-1]), 0  # those of the parent
        for stage, steps in enumerate(self.steps):
            passes += max(1, self.contenders >> stage) * objective.training.passes_between(before, steps)
            before = steps
        scored = rivals + 2 * self.contenders + 2
        evals, limits = passes + scored, objective.limits
        tokens = (passes + scored * sequences) * objective.tokens_per_sequence
        return tokens <= objective.tokens_left and (
            limits.evals is None or objective.spent.evals + evals <= limits.evals
        )

    def choose(
        self, objective: Objective, parent: Levels, rivals: Sequence[Levels], sample: Sequence[int]
    ) -> Levels | None:
        """The parent, or the rival that is better than it after training. Rivals whose training diverges leave.

        Returns None where every training of the last stage diverges, so that nothing can be compared after it.

        Args:
            objective: scores and trains.
            parent: the present answer.
            rivals: others, the best first; no more than `contenders` take part.
            sample: sequences, of which earlier stages take a part.

        Raises:
            LimitReached: the limits are spent.
        """
        left = [rival for rival in dict.fromkeys(rivals) if rival != parent][: self.contenders]
        for stage, steps in enumerate(self.steps[:-1]):
            part = sample[: max(1, len(sample) * (stage + 1) // len(self.steps))]
            left = _best(objective, left, part, steps, max(1, len(left) // 2))
        last = [parent, *left]
        chosen = _best(objective, last, sample, self.steps[-1], 1)[0]
        return chosen if np.isfinite(_after(objective, last, sample, self.steps[-1])).any() else None


@dataclass(frozen=True, kw_only=True)
class TrainsCandidates:
    """Settings of agents that compare candidates after training, and when they do.

    Args:
        train_tokens: tokens that candidates are trained on in the first of three stages, before they are compared. The
            other stages take 4 and 16 times as many. 0 compares without training.
        train_from: share of the limits on tokens or evaluations after which generations are compared after training. A
            search without such a limit trains all generations.
        trained: number of candidates in the first of these stages.
        trainer: what is trained: `refit`, `norms`, `lora` or `full`, the cheapest first. The loss after a refit ranks
            good policies best (docs/oracle.md).
        refit_sequences: number of sequences for a refit of each candidate before its training; 0 is none.
        train_lr: learning rate of this training; None is a fifth of that of fine-tuning.
    """

    train_tokens: NonNegativeInt = 0
    train_from: Annotated[float, Field(ge=0, le=1)] = 0.5
    trained: PositiveInt = 4
    trainer: Trainer = "refit"
    refit_sequences: NonNegativeInt = 0
    train_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def training_stages(self, objective: Objective) -> TrainingStages | None:
        """The stages; None where nothing is trained.

        Raises:
            UserError: networks cannot be trained here.
        """
        if not self.train_tokens:
            return None
        how = CandidateTraining(self.trainer, self.refit_sequences, lr=self.train_lr)
        return TrainingStages.of(objective, self.train_tokens, self.trained, how)

    def tell_too_little(self) -> None:
        """Warn that the limits have no room for a comparison after training."""
        warnings.warn(
            f"train_tokens={self.train_tokens}: what the limits leave is too little for one comparison after training, "
            "so candidates are compared without. Raise max_tokens or max_evals, or lower train_tokens, trained or "
            "train_from.",
            RuntimeWarning,
            stacklevel=2,
        )

    def tell_diverged(self) -> None:
        """Warn that the training of every candidate diverges."""
        smaller = f"a smaller train_lr than {self.train_lr:g}" if self.train_lr else "a train_lr"
        warnings.warn(
            f"train_tokens={self.train_tokens}: the training of every candidate diverged (trainer={self.trainer}), so "
            f"the search goes on without. Give {smaller}, or take trainer=refit, which has no learning rate.",
            RuntimeWarning,
            stacklevel=2,
        )

    def trains_now(self, objective: Objective) -> bool:
        """Whether enough of the limits is spent that a generation is compared after training."""
        limited = objective.limits.tokens is not None or objective.limits.evals is not None
        return objective.progress >= self.train_from or not limited


def shortlist(
    objective: Objective,
    incumbent: Levels,
    rivals: Sequence[Levels],
    sample: Sequence[int],
    count: int,
    tell: Tell = lambda _rival, _behind_S: None,
) -> list[Levels]:
    """The best rivals without training, the best first, also where the incumbent is better.

    Rounds double the sequences seen. After each, the worse half leaves, down to `count`.

    Args:
        objective: scores them.
        incumbent: whose losses they are compared with.
        rivals: others.
        sample: sequences.
        count: number of rivals that stay.
        tell: as of `race`.
    """
    seen, left = 1, [rival for rival in dict.fromkeys(rivals) if rival != incumbent]
    while left:
        losses_PS = objective.by_sequence([incumbent, *left], sample[:seen])
        behind_PS = losses_PS[1:] - losses_PS[0]
        ranked = [int(i) for i in np.argsort(losses_PS[1:].mean(axis=1), kind="stable")]
        last = seen >= len(sample)
        stay = ranked[:count] if last else ranked[: max(count, len(left) // 2)]
        for i in range(len(left)) if last else sorted(set(ranked) - set(stay)):
            tell(left[i], behind_PS[i])
        left = [left[i] for i in stay]
        if last:
            break
        seen = min(2 * seen, len(sample))
    return left


def finalists(objective: Objective, count: int) -> list[Levels]:
    """The best candidates of the search so far without training, by mean loss on at least as many sequences as half.

    Masks are left out.
    """
    known = [(policy, loss, n) for policy, loss, n in objective.archive() if isinstance(policy, tuple)]
    if not known:
        return []
    enough = np.median([n for _, _, n in known])
    ranked = sorted((row for row in known if row[2] >= enough and np.isfinite(row[1])), key=lambda row: row[1])
    return [policy for policy, _, _ in ranked[:count]]


def _best(
    objective: Objective, policies: Sequence[Levels], sample: Sequence[int], steps: int, count: int
) -> list[Levels]:
    losses_P = _after(objective, policies, sample, steps) if policies else np.zeros(0)
    return [policies[int(i)] for i in np.argsort(losses_P, kind="stable")[:count]]


def _after(objective: Objective, policies: Sequence[Levels], sample: Sequence[int], steps: int) -> NDArray[np.float64]:
    return np.asarray(objective.by_sequence(policies, sample, steps=steps).mean(axis=1))
