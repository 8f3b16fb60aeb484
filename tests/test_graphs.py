"""Blocks as CUDA graphs compute what they compute without; needs a GPU."""

from typing import Any

import numpy as np
import pytest
import torch

from autoprune.assembly import assemble
from autoprune.config import load_config
from autoprune.evaluation.graphs import SIZES, Graphs

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_batches_are_cut_into_the_sizes_that_are_recorded() -> None:
    for states in range(1, 40):
        left, sizes = states, []
        while left:
            sizes.append(Graphs.size(left))
            left -= sizes[-1]
        assert sum(sizes) == states
        assert set(sizes) <= set(SIZES)
        assert sizes == sorted(sizes, reverse=True)


@needs_gpu
def test_losses_are_those_without_graphs(quick: dict[str, Any]) -> None:
    assembly = assemble(load_config(None, quick | {"device": "cuda", "dtype": "float32"}))
    rng, space = np.random.default_rng(0), assembly.space
    policies = [space.sample(rng) for _ in range(30)]
    recorded = assembly.evaluator(assembly.splits.search, "kl")
    plain = assembly.evaluator(assembly.splits.search, "kl")
    plain.runner._graphs = None
    expected = plain.score(policies, range(8))
    for _ in range(3):
        found = np.concatenate([recorded.score(policies[i : i + 5], range(8)) for i in range(0, 30, 5)])
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
        recorded.runner.cache.clear()
    assert recorded.runner._graphs
    assert recorded.runner._graphs._graphs
