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


@pytest.mark.parametrize("name", sorted(set(tiny_searches.networks().values())))
def test_levels_of_bits_placed_are_levels_exported(name: str, tmp_path: Path, text_file: str) -> None:
    settings = tiny_searches.settings(name, tmp_path, text_file) | {"budgets": {"memory": 0.6}}
    assembly = assemble(load_config(overrides=settings | {"forms": "groups,bits:8/4/3"}))
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


def test_two_widths_that_are_cut_as_one_have_no_bits(tmp_path: Path, text_file: str) -> None:
    settings = tiny_searches.settings("resnet-bottleneck", tmp_path, text_file) | {"budgets": {"memory": 0.6}}
    with pytest.raises(UserError, match=r"the form bits cannot be had for the unit .* cut as one"):
        assemble(load_config(overrides=settings | {"forms": "groups,bits"}))
