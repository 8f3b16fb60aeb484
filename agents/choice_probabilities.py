"""Independent probabilities of choices, and a step of a policy gradient on them (policy_gradient_sampler.py).

Shapes: N parameters, K choices of the widest one (rows are padded with 0), B trials of a batch, M rows of interest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial

Array: TypeAlias = NDArray[np.float64]

MOST_CHOICES = 1024
LEAST_FLOOR = 1e-9  # logits stay finite


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


@dataclass(frozen=True)
class ChoiceSettings:
    """How probabilities move: see `PolicyGradientSampler`, whose arguments these are."""

    learning_rate: float
    natural: bool
    entropy: float
    floor: float
    initial: dict[str, Sequence[float]]


@dataclass(frozen=True)
class Sample:
    """A finished trial: of these rows it had these choices. `reward`: more is better."""

    rows: NDArray[np.int64]
    choices: NDArray[np.int64]
    reward: float


class Choices:
    """A row of probabilities for every parameter, or for each of its ranges if these change between trials."""

    def __init__(self, settings: ChoiceSettings) -> None:
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

    def update(self, batch: Sequence[Sample], advantage_B: Array) -> None:
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
