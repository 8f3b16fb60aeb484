"""Cuts a batch of policies x sequences into jobs by their costs.

The evaluator shares prefixes among the policies of one call, separately for each chunk of sequences. So a cut between
sequences costs nothing. A cut between policies costs the prefixes that both sides then run; it is made only where a
batch has too few sequences. Policies are cut in the order of their choices, which keeps shared prefixes together.

Costs are multiply-accumulates per token. Only their ratios matter.

Shapes: P policies, S sequences.
"""

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.mask import Mask
from autoprune.space import Proposal, SearchSpace

PER_WORKER = (1, 2, 3, 4, 6, 8)  # jobs that a batch is cut into; more of them even out, and run more prefixes twice
OVERHEAD = 0.03  # of a dense pass, for a job by itself
FIXED = 0.1  # of a dense block, for what it computes whatever is kept: norms, residuals, launches
LOSS = 0.5  # of the head, for the loss on its logits

Path = tuple[tuple[Hashable, float], ...]
"""What a policy keeps of each block, and what that block then costs."""


@dataclass(frozen=True)
class Job:
    """Some policies and sequences of a batch, by their positions in it, and their cost."""

    policies: tuple[int, ...]
    sequences: tuple[int, ...]
    cost: float


class Costs:
    """Computes costs of policies from the costs of their levels.

    Args:
        space: units and their `macs`.
        head: multiply-accumulates of the head for a token.
    """

    def __init__(self, space: SearchSpace, head: float) -> None:
        self._space, self._head = space, (1 + LOSS) * head
        blocks = range(1 + max(unit.block for unit in space.units))
        self._units = [[u for u, unit in enumerate(space.units) if unit.block == b] for b in blocks]
        self._macs_UL = space.costs["macs"]
        self._fixed = [FIXED * float(self._macs_UL[units, 0].sum()) for units in self._units]
        self.dense = self.of([self.path(space.dense)])

    def path(self, proposal: Proposal) -> Path:
        """What a policy keeps of each block, and the costs."""
        if isinstance(proposal, Mask):
            bits, kept = proposal.split(self._space.groups), self._space.kept(proposal)
            rows = self._space.group_costs["macs"]
            keys: list[Hashable] = [part.tobytes() for part in bits]
            costs = [float(rows[u][kept[u]]) for u in range(len(keys))]
        else:
            keys = list(proposal)
            costs = [float(self._macs_UL[u, level]) for u, level in enumerate(proposal)]
        return tuple(
            (tuple(keys[u] for u in units), fixed + sum(costs[u] for u in units))
            for units, fixed in zip(self._units, self._fixed, strict=True)
        )

    def of(self, paths: Sequence[Path]) -> float:
        """The cost of policies that are scored together, in the order of their choices."""
        return sum(self.marginal(path, before) for before, path in itertools.pairwise([(), *paths]))

    def marginal(self, path: Path, before: Path) -> float:
        """The cost of a policy after another: the blocks from the first difference on, and the head."""
        shared = 0
        for (key, _), (other, _) in zip(path, before, strict=False):
            if key != other:
                break
            shared += 1
        return sum(cost for _, cost in path[shared:]) + self._head


def plan(costs: Costs, proposals: Sequence[Proposal], sequences: int, workers: int, chunk: int) -> list[Job]:
    """Jobs that cover every policy and sequence once, such that the workers end about together.

    Args:
        costs: the costs of policies.
        proposals: the policies of the batch.
        sequences: the number of sequences.
        workers: the number of workers.
        chunk: the number of sequences that go through the network together. Chunks are not cut.
    """
    paths = [costs.path(proposal) for proposal in proposals]
    order = sorted(range(len(paths)), key=lambda p: [_sortable(key) for key, _ in paths[p]])
    chunks = [range(sequences)[start : start + chunk] for start in range(0, sequences, chunk)]
    if workers == 1:
        return [_job(costs, paths, order, chunks)]
    plans = [_cut(costs, paths, order, chunks, workers * k) for k in PER_WORKER]
    even = len(chunks) // workers * workers
    if 0 < even < len(chunks):  # sequences that go round, and what is left over cut between policies
        first = _cut(costs, paths, order, chunks[:even], workers)
        plans += [first + _cut(costs, paths, order, chunks[even:], workers * k) for k in PER_WORKER]
    return min(plans, key=lambda jobs: makespan([t.cost + OVERHEAD * costs.dense for t in jobs], workers))


def makespan(costs: Sequence[float], workers: int) -> float:
    """When the last of the workers ends if the longest jobs go first (Graham 1969, LPT)."""
    ends = [0.0] * workers
    for cost in sorted(costs, reverse=True):
        first = int(np.argmin(ends))
        ends[first] += cost
    return max(ends)


def _cut(costs: Costs, paths: Sequence[Path], order: list[int], chunks: Sequence[range], parts: int) -> list[Job]:
    """About `parts` jobs: between sequences as far as there are enough, then between policies."""
    if len(chunks) >= parts:
        bounds = np.linspace(0, len(chunks), parts + 1).round().astype(int)
        return [_job(costs, paths, order, chunks[a:b]) for a, b in itertools.pairwise(bounds)]
    pieces = _pieces(costs, paths, order, -(-parts // len(chunks)))
    return [_job(costs, paths, piece, [one]) for one in chunks for piece in pieces]


def _pieces(costs: Costs, paths: Sequence[Path], order: list[int], parts: int) -> list[list[int]]:
    """Policies in the order of their choices, cut into at most `parts` such that the dearest piece is cheap.

    A bound on a piece is met greedily, and found by bisection: a piece that begins later never costs more.
    """
    whole_P = [costs.of([paths[p]]) for p in order]
    further_P = [costs.marginal(paths[p], paths[q]) for q, p in itertools.pairwise(order)]
    low, high = max(whole_P), sum(whole_P)
    best = _filled(order, whole_P, further_P, high)
    while high - low > 0.01 * costs.dense:
        middle = (low + high) / 2
        pieces = _filled(order, whole_P, further_P, middle)
        if len(pieces) <= parts:
            best, high = pieces, middle
        else:
            low = middle
    return best


def _filled(
    order: Sequence[int], whole_P: Sequence[float], further_P: Sequence[float], bound: float
) -> list[list[int]]:
    """Pieces of which none but a single policy costs more than the bound."""
    pieces, cost = [[order[0]]], whole_P[0]
    for p, whole, further in zip(order[1:], whole_P[1:], further_P, strict=True):
        if cost + further <= bound:
            pieces[-1].append(p)
            cost += further
        else:
            pieces.append([p])
            cost = whole
    return pieces


def _job(costs: Costs, paths: Sequence[Path], policies: Sequence[int], chunks: Sequence[range]) -> Job:
    sequences = tuple(itertools.chain.from_iterable(chunks))
    return Job(tuple(policies), sequences, costs.of([paths[p] for p in policies]) * len(sequences))


def _sortable(key: Hashable) -> tuple[str, Hashable]:
    """Levels and masks are not compared with each other."""
    first = next(iter(key), None) if isinstance(key, tuple) else key
    return type(first).__name__, key
