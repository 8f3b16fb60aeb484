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
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

Baseline = Literal["leave-one-out", "moving-average"]
Array: TypeAlias = NDArray[np.float64]

MOST_CHOICES = 1024
LEAST_FLOOR = 1e-9  # logits stay finite
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
        self._settings = _Settings(learning_rate, natural, entropy, floor, dict(initial or {}))
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
        self._waiting: list[_Sample] = []
        self._advantages = LeaveOneOut() if self._baseline == "leave-one-out" else MovingAverage()
        self._intersection = IntersectionSearchSpace(include_pruned=True)
        self._policy = _Policy(self._settings)
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
        self._waiting.append(_Sample(rows_M, choices_M, reward))

    def _update(self) -> None:
        while len(self._waiting) >= self._batch:
            batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            reward_B = clipped(np.array([sample.reward for sample in batch]))
            if reward_B is not None:
                self._policy.update(batch, self._advantages(reward_B))


def learned(distribution: BaseDistribution) -> bool:
    """Whether a distribution has choices, and few enough."""
    if isinstance(distribution, CategoricalDistribution):
        return True
    if not isinstance(distribution, IntDistribution):
        return False
    return (distribution.high - distribution.low) // distribution.step < MOST_CHOICES


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution)
    return range(distribution.low, distribution.high + 1, distribution.step)


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


# -- probabilities -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Settings:
    learning_rate: float
    natural: bool
    entropy: float
    floor: float
    initial: dict[str, Sequence[float]]


@dataclass(frozen=True)
class _Sample:
    """A finished trial: of these rows it had these choices. `reward`: more is better."""

    rows: NDArray[np.int64]
    choices: NDArray[np.int64]
    reward: float


class _Policy:
    """A row of probabilities for every parameter, or for each of its ranges if these change between trials."""

    def __init__(self, settings: _Settings) -> None:
        self._settings = settings
        self._rows: dict[tuple[str, str], int] = {}
        self._values: list[Sequence[Any]] = []
        self._latest: dict[str, int] = {}
        self._p_NK = np.zeros((0, 1))
        self._sizes_N = np.zeros(0, dtype=np.int64)

    def row(self, name: str, distribution: BaseDistribution) -> int:
        """The row of a parameter, made when it is new."""
        values = _values(distribution)
        key = (name, repr(values))  # distributions are slow to compare, and no NaN among choices equals another
        if key not in self._rows:
            self._rows[key] = self._add(name, values)
        self._latest[name] = self._rows[key]
        return self._rows[key]

    def _add(self, name: str, values: Sequence[Any]) -> int:
        logits_K = np.asarray(self._settings.initial.get(name, np.zeros(len(values))), dtype=np.float64)
        if logits_K.shape != (len(values),):
            raise ValueError(f"initial[{name!r}] has {logits_K.size} logits, but {name!r} has {len(values)} choices")
        if not np.isfinite(logits_K).all():
            raise ValueError(f"initial[{name!r}] must be finite, not {logits_K.tolist()}")
        (n, widest), size = self._p_NK.shape, len(values)
        p_NK = np.zeros((n + 1, max(widest, size)))
        p_NK[:n, :widest] = self._p_NK
        p_NK[n, :size] = at_least(self._settings.floor, softmax(logits_K[None]), np.array([size]))[0]
        self._p_NK, self._sizes_N = p_NK, np.append(self._sizes_N, size)
        self._values.append(values)
        return n

    def draw(self, rows_M: NDArray[np.int64], rng: np.random.Generator) -> list[Any]:
        """A value for each of the rows."""
        below_MK = np.cumsum(self._p_NK[rows_M], axis=1) <= rng.random((len(rows_M), 1))
        choices_M = np.minimum(below_MK.sum(axis=1), self._sizes_N[rows_M] - 1)  # a sum may end just below 1
        return [self._values[row][choice] for row, choice in zip(rows_M.tolist(), choices_M.tolist(), strict=True)]

    def encode(self, trial: FrozenTrial) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and choices of a trial's parameters; fixed values that are out of range are left out."""
        distributions = trial.distributions
        rows, choices = [], []
        for name, value in trial.params.items():
            if learned(distributions[name]):
                row = self.row(name, distributions[name])
                if value in self._values[row]:
                    rows.append(row)
                    choices.append(self._values[row].index(value))
        return np.array(rows, dtype=np.int64), np.array(choices, dtype=np.int64)

    def update(self, batch: Sequence[_Sample], advantage_B: Array) -> None:
        """One step; only rows that the batch has are touched, so that other rows do not depend on its being made."""
        g_NK, weight_N = np.zeros_like(self._p_NK), np.zeros(len(self._p_NK))
        had_N = np.zeros(len(self._p_NK), dtype=bool)
        for sample, advantage in zip(batch, advantage_B, strict=True):
            g_NK[sample.rows, sample.choices] += advantage
            weight_N[sample.rows] += advantage
            had_N[sample.rows] = True
        p_MK = self._p_NK[had_N]
        log_p_MK = np.log(p_MK, out=np.full_like(p_MK, -np.inf), where=p_MK > 0)
        g_MK = (g_NK[had_N] - weight_N[had_N, None] * p_MK) / len(batch)
        g_MK += self._settings.entropy * entropy_gradient(p_MK, log_p_MK)
        step_MK = self._settings.learning_rate * g_MK
        moved_MK = p_MK + step_MK if self._settings.natural else softmax(log_p_MK + step_MK)
        self._p_NK[had_N] = at_least(self._settings.floor, moved_MK, self._sizes_N[had_N])

    def probabilities(self, name: str) -> Array:
        """A copy of the row of a parameter."""
        if name not in self._latest:
            raise KeyError(f"no parameter {name!r} among the {len(self._latest)} that the sampler has met")
        row = self._latest[name]
        return self._p_NK[row, : self._sizes_N[row]].copy()

    def mode(self) -> dict[str, Any]:
        """The most likely values."""
        best_N = self._p_NK.argmax(axis=1)
        return {name: self._values[row][best_N[row]] for name, row in self._latest.items()}


def softmax(logits_MK: Array) -> Array:
    """Along the last axis, -inf being 0."""
    e_MK: Array = np.exp(logits_MK - logits_MK.max(axis=-1, keepdims=True))
    return e_MK / totals(e_MK)


def totals(values_MK: Array) -> Array:
    """Sums of the rows [M, 1], the same to the last bit however wide the padding is, which `sum` does not promise."""
    return np.cumsum(values_MK, axis=-1)[..., -1:]


def entropy_gradient(p_MK: Array, log_p_MK: Array) -> Array:
    """dH/dlogits = -p (log p + H)."""
    surprise_MK = -np.where(p_MK > 0, log_p_MK, 0.0)
    return p_MK * (surprise_MK - totals(p_MK * surprise_MK))


def at_least(floor: float, p_MK: Array, sizes_M: NDArray[np.int64]) -> Array:
    """Distributions of which no choice is below floor / K: what lies above is scaled down to pay for the rest.

    Distributions that hold it are left as they are, but for rounding. Values may be below 0 before; rows sum to 1.
    """
    least_M1 = max(floor, LEAST_FLOOR) / sizes_M[:, None]
    real_MK = np.arange(p_MK.shape[1]) < sizes_M[:, None]
    above_MK = np.where(real_MK, np.maximum(p_MK - least_M1, 0.0), 0.0)
    free_M1 = 1 - least_M1 * sizes_M[:, None]
    return np.where(real_MK, least_M1 + free_M1 * above_MK / totals(above_MK), 0.0)
