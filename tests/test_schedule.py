"""Batches cut into jobs: everything is covered once, prefixes stay together, workers end about together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.level import group_levels
from autoprune.mask import Mask
from autoprune.space import Levels, SearchSpace, Unit
from autoprune.testing.toys import counts
from autoprune.workers.schedule import Costs, makespan, plan

BLOCKS, LEVELS = 4, 4


def space() -> SearchSpace:
    """Two units a block, of 96 and 160 multiply-accumulates a group."""
    units = [
        Unit(
            f"{block}.{kind}", kind, block, 12, group_levels(12, (12, 8, 4, 0)), group_params=params, group_macs=params
        )
        for block in range(BLOCKS)
        for kind, params in (("attention", 96), ("mlp", 160))
    ]
    costs = {"macs": [[float(unit.macs(kept, 0)) for kept in counts(unit)] for unit in units]}
    groups = {"macs": [[float(unit.macs(kept, 0)) for kept in range(13)] for unit in units]}
    return SearchSpace(units, costs, {}, groups)


COSTS = Costs(space(), head=500.0)
policies = st.lists(st.tuples(*[st.integers(0, LEVELS - 1)] * (2 * BLOCKS)), min_size=1, max_size=20, unique=True)


@given(policies, st.integers(1, 9), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=200)
def test_tasks_cover_every_policy_and_sequence_once(
    batch: list[Levels], sequences: int, workers: int, chunk: int
) -> None:
    jobs = plan(COSTS, batch, sequences, workers, chunk)
    seen = np.zeros((len(batch), sequences), int)
    for job in jobs:
        assert job.policies
        assert job.sequences
        seen[np.ix_(job.policies, job.sequences)] += 1
        starts = {s // chunk for s in job.sequences}
        assert set(job.sequences) == {s for s in range(sequences) if s // chunk in starts}, "a chunk was cut"
    assert (seen == 1).all()


@given(policies, st.integers(1, 9), st.integers(1, 6))
@settings(max_examples=200)
def test_a_task_costs_the_distinct_prefixes_it_runs(batch: list[Levels], sequences: int, workers: int) -> None:
    for job in plan(COSTS, batch, sequences, workers, 1):
        paths = [COSTS.path(batch[p]) for p in job.policies]
        prefixes = {tuple(key for key, _ in path[: b + 1]): path[b][1] for path in paths for b in range(BLOCKS)}
        heads = len(paths) * 1.5 * 500.0
        assert job.cost == pytest.approx(len(job.sequences) * (sum(prefixes.values()) + heads))


@given(policies, st.integers(1, 12), st.integers(2, 4))
@settings(max_examples=200)
def test_workers_end_about_together(batch: list[Levels], sequences: int, workers: int) -> None:
    """Never later than the ideal by more than two dense passes: the last job, and prefixes that are run twice."""
    whole = plan(COSTS, batch, sequences, 1, 1)[0].cost
    jobs = plan(COSTS, batch, sequences, workers, 1)
    assert makespan([job.cost for job in jobs], workers) <= whole / workers + 2 * COSTS.dense + 1e-6


def test_sequences_are_cut_before_policies() -> None:
    """Eight sequences for two workers: every job has all policies, so that no prefix is run twice."""
    rng = np.random.default_rng(0)
    batch = [tuple(int(x) for x in rng.integers(0, LEVELS, 2 * BLOCKS)) for _ in range(6)]
    jobs = plan(COSTS, batch, 8, 2, 1)
    assert all(sorted(job.policies) == list(range(6)) for job in jobs)
    assert sum(job.cost for job in jobs) == pytest.approx(plan(COSTS, batch, 8, 1, 1)[0].cost)


def test_policies_that_share_a_prefix_go_together() -> None:
    families = [[(first,) * 6 + (last, last) for last in range(LEVELS)] for first in (0, 1)]
    mixed = [policy for pair in zip(*families, strict=True) for policy in pair]
    jobs = [{mixed[p][0] for p in job.policies} for job in plan(COSTS, mixed, 1, 2, 1)]
    assert sorted(map(sorted, jobs)) == [[0], [1]]


def test_masks_and_levels_share_a_batch() -> None:
    rng = np.random.default_rng(0)
    groups = space().groups
    masks = [Mask.pack([rng.random(n) < 0.5 for n in groups]) for _ in range(3)]
    jobs = plan(COSTS, [space().dense, *masks, space().sparsest], 2, 2, 1)
    assert sorted(p for job in jobs for p in job.policies) == sorted(list(range(5)) * 2)


def test_makespan_of_the_longest_first() -> None:
    assert makespan([3, 3, 2, 2, 2], 2) == 7
    assert makespan([], 3) == 0
