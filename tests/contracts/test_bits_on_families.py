"""Every family whose weights are plain matrices has levels of bits: what is placed is what is exported."""

from pathlib import Path

import numpy as np
import pytest
import torch

from autoprune import exporting
from autoprune.assembly import assemble
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.provenance import make_policy
from tests import tiny_searches

BOTTLENECKS = {"resnet-hf"}
"""Families whose network here has two widths that are cut as one."""


@pytest.mark.parametrize(("family", "name"), sorted(tiny_searches.networks().items()))
def test_levels_of_bits_placed_are_levels_exported(family: str, name: str, tmp_path: Path, text_file: str) -> None:
    settings = tiny_searches.settings(name, tmp_path, text_file) | {"budgets": {"memory": 0.6}}
    config = load_config(overrides=settings | {"forms": "groups,bits:8/4/3"})
    if family in BOTTLENECKS:
        with pytest.raises(UserError, match=r"the form bits cannot be had for the unit .* cut as one"):
            assemble(config)
        return
    assembly = assemble(config)
    space = assembly.space
    policy = space.uniform()
    assert any(level.form == "bits" for level in space.levels_of(policy))
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    scored = evaluator.score([policy, space.dense], range(2))
    assert np.isfinite(scored).all()
    tokens = assembly.splits.search[:2]
    assembly.placer.place(policy)
    placed = assembly.view(tokens)
    assembly.placer.release()
    dense = assembly.view(tokens)
    assert not torch.allclose(placed, dense)
    own = exporting.own_exporter_of(assembly.config)
    network = exporting.network_in_memory(assembly, make_policy(assembly, policy, {}), own)
    for name_of, tensor in network.state_dict().items():
        assert torch.isfinite(tensor.float()).all(), name_of
