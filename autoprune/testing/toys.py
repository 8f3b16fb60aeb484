"""Search spaces without a network, with a known optimum, for agents, rewards and environments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.envs import sensitivity
from autoprune.envs.episodes import EpisodeRules
from autoprune.envs.rewards.record import Reward
from autoprune.level import Level, group_levels
from autoprune.objective import Limits, Objective
from autoprune.ports.scorer import Scorer
from autoprune.space import Levels, Proposal, SearchSpace, Unit
from autoprune.task_choice import DEFAULT, built_in
from autoprune.unit_statistics import UnitStatistics


def counts(unit: Unit) -> list[int]:
    """Groups kept at each level."""
    return [level.kept for level in unit.levels]


def at(unit: Unit, kept: int) -> Level:
    """The level of a unit that keeps so many groups."""
    return Level.of_groups(kept, unit.groups)


def toy_space(
    units: int = 10, levels: int = 5, budget: float = 0.5, seed: int = 0, latency: float | None = None, more: int = 0
) -> SearchSpace:
    """Units of different sizes with `params` costs and a budget that half of everything fits.

    Args:
        latency: share of dense of a second budget, whose costs have a step that grows with the unit; None is none.
        more: further budgets, whose costs are drawn, at shares of dense around `budget`.
    """
    rng = np.random.default_rng(seed)
    made = []
    for u in range(units):
        kept = tuple(range(levels - 1, -1, -1))
        kind = "attention" if u % 2 == 0 else "mlp"
        made.append(
            Unit(
                f"{u // 2}.{kind}",
                kind,
                u // 2,
                levels - 1,
                group_levels(levels - 1, kept),
                int(rng.integers(2, 9) if kind == "mlp" else 3),
            )
        )
    costs: dict[str, list[list[float]]] = {"params": [[unit.params(k) for k in counts(unit)] for unit in made]}
    budgets = {"params": budget * sum(row[0] for row in costs["params"])}
    if latency is not None:
        costs["latency"] = [[(k > 0) * (u + 1) + 0.7 * k for k in counts(unit)] for u, unit in enumerate(made)]
        budgets["latency"] = latency * sum(row[0] for row in costs["latency"])
    for m in range(more):
        price_U = rng.exponential(1.0, units) + 0.05
        costs[f"metric{m}"] = [
            [price * k for k in counts(unit)] for unit, price in zip(made, price_U.tolist(), strict=True)
        ]
        budgets[f"metric{m}"] = rng.uniform(0.9, 1.2) * budget * sum(row[0] for row in costs[f"metric{m}"])
    # with one group less at each level, masks cost what levels do
    masked = {metric: [row[::-1] for row in rows] for metric, rows in costs.items()}
    return SearchSpace(made, costs, budgets, masked, words=built_in()[DEFAULT])


class ToyScorer(Scorer):
    """Additive convex losses with noise that a sequence shares over policies, and a pairwise term.

    Args:
        space: the units.
        seed: of what matters and of the noise.
        noise: times the noise; 0 makes all sequences alike.
        pairs: weight of the pairwise term; 0 makes the losses additive.
    """

    n_sequences = 16
    tokens_per_sequence = 32

    def __init__(self, space: SearchSpace, seed: int = 0, noise: float = 1.0, pairs: float = 0.05) -> None:
        rng = np.random.default_rng(seed)
        self.space, self.seed, self.pairs = space, seed, pairs
        self.importance_U = rng.exponential(1.0, len(space.units)) ** 2 + 0.02
        self.common_S = noise * rng.normal(0, 0.2, self.n_sequences)
        self.noise_SU = noise * rng.normal(0, 0.05, (self.n_sequences, len(space.units)))
        self.calls = 0
        self.batches: list[int] = []

    def depth(self, policy: Proposal) -> NDArray[np.float64]:
        """Share that is gone of each unit, `[U]`."""
        return np.asarray(1 - np.array(self.space.kept(policy)) / np.array(self.space.groups))

    def true_loss(self, policy: Proposal) -> float:
        """Nats that a policy loses on all sequences, without their noise."""
        depth_U = self.depth(policy)
        pairs = float((depth_U[:-1] * depth_U[1:]).sum())
        return float((self.importance_U * depth_U**2).sum()) + self.pairs * pairs

    def dense_losses(self, sequences: Sequence[int]) -> NDArray[np.float64]:
        """The noise that sequences share over policies, `[S]`."""
        return np.asarray(self.common_S[list(sequences)])

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> NDArray[np.float64]:
        """Losses `[P, S]`."""
        self.calls += len(policies)
        self.batches.append(len(policies))
        rows = []
        for policy in policies:
            depth_U = self.depth(policy)
            rows.append(
                [self.true_loss(policy) + self.common_S[s] + float(self.noise_SU[s] @ depth_U) for s in sequences]
            )
        return np.array(rows)


def toy_statistics(space: SearchSpace) -> list[UnitStatistics]:
    """Statistics that differ from unit to unit; output errors grow with the square of what is gone."""
    return [
        UnitStatistics(0.1 * (u + 1), 0.5 / (u + 1), 3.0 + u, 0.5, 2.0 + u, 1 / (u + 1), tuple(_errors(unit)))
        for u, unit in enumerate(space.units)
    ]


def _errors(unit: Unit) -> list[float]:
    return [(1 - kept / unit.groups) ** 2 for kept in counts(unit)]


def toy_rules(reward: Reward, scorer: ToyScorer, reference: Levels | None = None, **options: Any) -> EpisodeRules:
    """Episodes on a toy with statistics and sensitivities; `options` are those of `EpisodeRules`."""
    objective = Objective(scorer.space, scorer, Limits(), statistics=toy_statistics(scorer.space))
    added_UL = sensitivity.measure(objective, range(1))
    return EpisodeRules(objective, reward, added_UL=added_UL, reference=reference, **options)


def best_loss(scorer: ToyScorer, restarts: int = 30) -> float:
    """The optimum, by exhaustive single and pair moves from many starts (exact on these convex toys)."""
    space, rng = scorer.space, np.random.default_rng(1)
    best = np.inf
    for _ in range(restarts):
        current = space.sample(rng)
        loss = scorer.true_loss(current)
        improved = True
        while improved:
            improved = False
            for neighbour in _neighbours(space, current):
                if scorer.true_loss(neighbour) < loss - 1e-12:
                    current, loss, improved = neighbour, scorer.true_loss(neighbour), True
                    break
        best = min(best, loss)
    return best


def _neighbours(space: SearchSpace, levels: Levels) -> list[Levels]:
    found = []
    for u in range(len(levels)):
        for v in range(len(levels)):
            for du in (-1, -2):
                for dv in (0, 1, 2, 3):
                    trial = list(levels)
                    trial[u] += du
                    if v != u:
                        trial[v] += dv
                    if all(0 <= x < n for x, n in zip(trial, space.n_levels_U, strict=True)) and space.feasible(
                        tuple(trial)
                    ):
                        found.append(tuple(trial))
    return found
