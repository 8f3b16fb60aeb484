"""Prefixes have numbers of their own, and hidden states never take more memory than they may."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.evaluation.prefixes import Prefixes, StateCache


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=2, max_size=8))
def test_paths_share_a_number_exactly_where_they_share_a_prefix(policies: list[list[int]]) -> None:
    prefixes = Prefixes()
    paths = [prefixes.path([(level,) for level in policy]) for policy in policies]
    for one, path in zip(policies, paths, strict=True):
        for other, others_path in zip(policies, paths, strict=True):
            for first in range(5):
                for length in range(5):
                    same = one[:first] == other[:length]
                    assert (path[first] == others_path[length]) == same


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3), st.booleans()), max_size=40))
def test_memory_is_counted_by_what_is_held_and_stays_within_the_limit(
    limit: int, steps: list[tuple[int, int, bool]]
) -> None:
    cache, kept = StateCache(4 * limit), dict[int, torch.Tensor]()
    for node, batch, look in steps:
        if look:
            found = cache.get((0, node))
            assert found is None or torch.equal(found, kept[node])
            continue
        states = torch.full((batch, 2, 3), float(node))
        for i in range(batch):
            if cache.get((0, node + i)) is None:
                kept[node + i] = states[i : i + 1]
            cache.put((0, node + i), states[i : i + 1])
        held = {s.untyped_storage().data_ptr(): s.untyped_storage().nbytes() for s in cache._states.values()}
        assert cache.nbytes == sum(held.values()) <= 4 * limit
    cache.clear()
    assert cache.nbytes == 0
    assert not cache._views


def test_the_least_recently_used_state_goes_first() -> None:
    cache = StateCache(2 * 4 * 6)
    for node in (1, 2):
        cache.put((0, node), torch.zeros(1, 2, 3))
    assert cache.get((0, 1)) is not None
    cache.put((0, 3), torch.zeros(1, 2, 3))
    assert [cache.get((0, node)) is not None for node in (1, 2, 3)] == [True, False, True]
