"""REINFORCE as an Optuna sampler: a probability for every choice of every parameter, moved towards what did well.

Parameters are independent of each other: p_NK holds one categorical distribution a row (a Bernoulli where there are two
choices). After each batch of B finished trials with advantages A, the score-function gradient of the expected reward in
the logits of p (Williams 1992) is

    g = mean_B A (m - p)        m_NK: 1 where the trial chose k

- plain: logits + learning_rate · g, then softmax.
- natural: the Fisher metric of the logits is F = diag(p) - p pᵀ, and since g sums to 0 over choices, F⁺ g = g / p up to
  a constant, which has no bound as p → 0. The same direction in the coordinates p is F F⁺ g = g, so the step taken is
  p + learning_rate · g: PBIL's, as the natural gradient of Ollivier et al. 2017, with nothing divided.

Shapes: N parameters, K choices of the widest one (rows are padded with 0), B trials of a batch, M rows of interest.
"""

import threading
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autoprune.agents.choice_probabilities import Array, Choices, ChoiceSettings, Sample, learned

Baseline = Literal["leave-one-out", "moving-average"]
MEMORY = 0.92  # of the moving average, for each trial: about the last dozen
HUGE = 1e100  # what is larger counts as infinite, so that squares stay finite

# Optuna's threads (n_jobs) share a sampler. One lock for all, since a sampler that held it could not be pickled.
_LOCK = threading.RLock()


class PolicyGradientSampler(BaseSampler):
    """Learns independent probabilities of choices by policy gradients; for many categorical or integer parameters.

    Integers are the values from low to high by step, each a choice without an order (log or not). Floats, and integers
    of more than 1,024 values, are drawn at random and not learned. Parameters that only some trials have are learned
    from those. Constraints are not looked at; a study of several objectives is refused.

    What trial n draws depends on the seed, n and the trials that finished before, and not on the life of the process:
    a new sampler on a stored study first learns what it would have learned. That is exact when one process asks and
    tells, and the clock does not go back; the order is that of `datetime_complete`. Several processes can share a
    study: each learns every finished trial once, with its next tell or ask after its batch is full. Such batches are
    cut differently in each process, and, as with many trials asked at once, drawn from slightly older probabilities
    than those that they move (off-policy, not corrected for). So are enqueued trials.

    Failed trials (NaN among them) are ignored. A pruned trial counts as the worst of its batch, an infinite value (or
    one beyond 1e100) as the worst or the best; a batch without a finite value, or with equal ones, teaches nothing.

    Args:
        seed: of all draws, 0 or more; None takes one from the operating system now.
        batch: finished trials for each update.
        learning_rate: step of each update, in logits (plain) or probabilities (natural) for an advantage of one
            standard deviation; None is 2 plain and 0.5 natural.
        baseline: what a reward is compared with. `leave-one-out`: the mean of the others in the batch (Kool et al.
            2019), in units of the batch's standard deviation; needs a batch of 2. `moving-average`: mean and scale of
            about the last dozen trials before it.
        natural: follow the natural gradient.
        entropy: weight of the entropy of p in what is maximised, in standard deviations of the objective per nat.
        floor: least probability of any choice, as a fraction of uniform, from 0 to below 1: no choice dies.
        initial: logits to start from, for each parameter by name; uniform for those not named.
        search_space: what is drawn at once. None is what all finished trials have in common; the rest, and all of the
            first trial, is drawn one by one from the same probabilities.

    Raises:
        ValueError: for an argument out of its range, with the value.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        batch: int = 8,
        learning_rate: float | None = None,
        baseline: Baseline = "leave-one-out",
        natural: bool = False,
        entropy: float = 0.0,
        floor: float = 0.01,
        initial: Mapping[str, Sequence[float]] | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        if learning_rate is None:
            learning_rate = 0.5 if natural else 2.0
        if baseline not in get_args(Baseline):
            raise ValueError(f"baseline must be one of {', '.join(get_args(Baseline))}, not {baseline!r}")
        least = 2 if baseline == "leave-one-out" else 1
        if batch < least:
            raise ValueError(f"batch must be {least} or more with the baseline {baseline}, not {batch}")
        for name, value in (("seed", seed or 0), ("learning_rate", learning_rate), ("entropy", entropy)):
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} must be 0 or more and finite, not {value}")
        if not 0 <= floor < 1:
            raise ValueError(f"floor must be from 0 to below 1, not {floor}")
        self._seed = _fresh_seed() if seed is None else seed
        self._batch, self._baseline = batch, baseline
        self._settings = ChoiceSettings(learning_rate, natural, entropy, floor, dict(initial or {}))
        self._search_space = None if search_space is None else dict(search_space)
        self._forget(None)

    def reseed_rng(self) -> None:
        """A new seed from the operating system, which Optuna asks for when it runs trials in threads."""
        self._seed = _fresh_seed()

    def probabilities(self, name: str) -> Array:
        """The probability of every choice of a parameter [K], in the order of its choices or values.

        Raises:
            KeyError: the sampler has not met the parameter.
        """
        with _LOCK:
            return self._policy.probabilities(name)

    def mode(self) -> dict[str, Any]:
        """The most likely value of every parameter seen, the first of equals."""
        with _LOCK:
            return self._policy.mode()

    # -- what Optuna calls ---------------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The static search space, or what finished trials have in common, as far as it is learned."""
        with _LOCK:
            self._learn(study)
            found = self._intersection.calculate(study) if self._search_space is None else self._search_space
        return {name: each for name, each in found.items() if not each.single() and learned(each)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One draw for all parameters."""
        if not search_space:
            return {}
        with _LOCK:
            rows_M = np.array([self._policy.row(name, each) for name, each in search_space.items()])
            values = self._policy.draw(rows_M, np.random.default_rng([self._seed, trial.number]))
        return dict(zip(search_space, values, strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One parameter from its own probabilities; at random if it is not learned."""
        _refuse_several_objectives(study)
        rng = np.random.default_rng([self._seed, trial.number, zlib.crc32(param_name.encode())])
        if not learned(param_distribution):
            fallback = RandomSampler(seed=int(rng.integers(2**32)))
            return fallback.sample_independent(study, trial, param_name, param_distribution)
        with _LOCK:
            (value,) = self._policy.draw(np.array([self._policy.row(param_name, param_distribution)]), rng)
        return value

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Count the trial in, which the storage does not know as finished yet, and learn when a batch is full."""
        with _LOCK:
            self._learn(study)
            self._count(study, trial, state, values)
            self._update()

    # -- learning ------------------------------------------------------------------------------------------------

    def _forget(self, study_name: str | None) -> None:
        """As if new, for a study."""
        self._study_name = study_name
        self._seen: set[int] = set()
        self._waiting: list[Sample] = []
        self._advantages = LeaveOneOut() if self._baseline == "leave-one-out" else MovingAverage()
        self._intersection = IntersectionSearchSpace(include_pruned=True)
        self._policy = Choices(self._settings)
        if self._search_space is not None:
            for name, distribution in self._search_space.items():
                if learned(distribution):
                    self._policy.row(name, distribution)
            unknown = sorted(self._settings.initial.keys() - self._search_space.keys())
            if unknown:
                raise ValueError(f"initial has logits of {unknown[0]!r}, which is not in search_space")

    def _learn(self, study: Study) -> None:
        """Learn from trials of the storage that were not counted in: earlier lives', other processes', added ones."""
        _refuse_several_objectives(study)
        if study.study_name != self._study_name:
            self._forget(study.study_name)
        new = [t for t in study.get_trials(deepcopy=False) if t.number not in self._seen and t.state.is_finished()]
        for trial in sorted(new, key=_finished):
            self._count(study, trial, trial.state, trial.values)
        if new:
            self._update()

    def _count(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._seen.add(trial.number)
        if state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        reward = -np.inf
        if state == TrialState.COMPLETE and values is not None:
            reward = values[0] if study.direction == StudyDirection.MAXIMIZE else -values[0]
        rows_M, choices_M = self._policy.encode(trial)
        self._waiting.append(Sample(rows_M, choices_M, reward))

    def _update(self) -> None:
        while len(self._waiting) >= self._batch:
            batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            reward_B = clipped(np.array([sample.reward for sample in batch]))
            if reward_B is not None:
                self._policy.update(batch, self._advantages(reward_B))


def _finished(trial: FrozenTrial) -> tuple[datetime, int]:
    assert trial.datetime_complete is not None
    return trial.datetime_complete, trial.number


def _refuse_several_objectives(study: Study) -> None:
    if len(study.directions) > 1:
        raise ValueError(f"PolicyGradientSampler takes a study of one objective; this one has {len(study.directions)}")


def _fresh_seed() -> int:
    entropy = np.random.SeedSequence().entropy
    assert isinstance(entropy, int)
    return entropy


# -- advantages --------------------------------------------------------------------------------------------------


def clipped(reward_B: Array) -> Array | None:
    """Infinite rewards as the worst or best finite one; None if there is none."""
    finite = reward_B[np.abs(reward_B) < HUGE]
    return np.clip(reward_B, finite.min(), finite.max()) if len(finite) else None


def scaled(ahead_B: Array, scale: float, reward_B: Array) -> Array:
    """In units of the scale; 0 where that is no more than rounding."""
    return ahead_B / scale if scale > 1e-12 * np.abs(reward_B).max() else np.zeros_like(ahead_B)


class LeaveOneOut:
    """Each reward minus the mean of the others in its batch (Kool et al. 2019), in standard deviations of the batch."""

    def __call__(self, reward_B: Array) -> Array:
        """Advantages of a batch of 2 or more."""
        ahead_B = (reward_B - reward_B.mean()) * len(reward_B) / (len(reward_B) - 1)
        return scaled(ahead_B, float(reward_B.std()), reward_B)


class MovingAverage:
    """Rewards minus the mean of the dozen trials before, in standard deviations from it; the first batch's own."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._variance = self._weight = 0.0

    def __call__(self, reward_B: Array) -> Array:
        """Advantages of a batch, which then joins the average."""
        mean = float(reward_B.mean()) if self._mean is None else self._mean
        ahead_B = reward_B - mean
        kept = MEMORY ** len(reward_B)
        self._mean = mean + (1 - kept) * float(ahead_B.mean())
        self._variance = kept * self._variance + (1 - kept) * float((ahead_B**2).mean())
        self._weight = kept * self._weight + (1 - kept)
        return scaled(ahead_B, (self._variance / self._weight) ** 0.5, reward_B)
