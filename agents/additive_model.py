"""A model of what each level of each unit adds to the loss. It learns from the comparisons of a search.

Losses of similar policies nearly add up. So a comparison of two policies says something about every unit in which they
differ, and thereby about policies that were never scored. The model learns increments: what a level adds to the next
denser one. They are Gaussian and independent a priori, so that learning is Bayesian linear regression (Bishop 2006,
section 3.3). Proposals are made under tables drawn from the posterior (Thompson 1933). In this way uncertain levels are
tried and levels that are known to be bad are not.

Shapes: U units, L levels, D = U x (L - 1) increments, S sequences, N tables.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.space import Levels, SearchSpace

Floats = NDArray[np.float64]

MISFIT = 0.1  # of a mean increment: what each unit contributes other than a sum says, however long the sample
LEAST = 0.1  # of a mean increment: standard deviation of one that is thought to be nothing


class AdditiveModel:
    """Args:
    added_UL: the prior mean, nats per token, never falling along a row. The prior standard deviation of an increment
        is the increment itself.
    """

    def __init__(self, added_UL: Floats) -> None:
        self._shape = added_UL.shape
        mean_D = np.diff(added_UL, axis=1).ravel()
        self._typical = max(float(mean_D.mean()), 1e-12)
        precision_D = 1 / (mean_D + LEAST * self._typical) ** 2
        # the posterior's precision matrix, and the same times its mean
        self._precision_DD, self._weighted_D = np.diag(precision_D), precision_D * mean_D
        self._squares, self._degrees = 0.0, 0

    def learn(self, before: Levels, after: Levels, differences_S: Floats) -> None:
        """Learn from the differences in loss between `after` and `before`, one for each sequence."""
        count = len(differences_S)
        difference = float(differences_S.mean())
        if not np.isfinite(difference):
            return
        # the noise of a comparison grows with the units that differ
        units = max(1, sum(a != b for a, b in zip(before, after, strict=True)))
        self._squares += float(((differences_S - difference) ** 2).sum()) / units
        self._degrees += count - 1
        noise = self._squares / self._degrees if self._degrees else self._typical**2
        precision = 1 / (units * (noise / count + (MISFIT * self._typical) ** 2))
        change_D = self._present(after) - self._present(before)
        changed = change_D.nonzero()[0]
        self._precision_DD[np.ix_(changed, changed)] += precision * np.outer(change_D[changed], change_D[changed])
        self._weighted_D += precision * difference * change_D

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Tables of added losses from the posterior, `[N, U, L]`."""
        root_DD = np.linalg.cholesky(self._precision_DD)
        noise_DN = root_DD @ rng.standard_normal((len(root_DD), count))
        # with precision P = R R', P^-1 (P m + R z) has mean m and covariance P^-1
        increments_DN = np.linalg.solve(self._precision_DD, self._weighted_D[:, None] + noise_DN)
        units, levels = self._shape
        added_NUL = np.zeros((count, units, levels))
        added_NUL[:, :, 1:] = increments_DN.T.reshape(count, units, levels - 1).cumsum(axis=2)
        return added_NUL

    def _present(self, levels: Levels) -> Floats:
        """1 for each increment that a policy has, `[D]`."""
        return (np.array(levels)[:, None] > np.arange(self._shape[1] - 1)).astype(np.float64).ravel()


def added(added_UL: Floats, policies: Sequence[Levels]) -> Floats:
    """The sum of a table for each policy."""
    return np.asarray(added_UL[np.arange(len(added_UL)), np.array(policies)].sum(axis=1))


def guess(space: SearchSpace, policy: Levels, loss: float) -> Floats:
    """A table without measurements: the squared removed share of each unit, scaled to sum to a policy's loss."""
    squares_UL = (1 - space.density_UL) ** 2
    return squares_UL * max(loss, 0.0) / max(float(added(squares_UL, [policy])[0]), 1e-12)
