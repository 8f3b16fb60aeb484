"""Every family: a pruned and trained network at the dense shapes gives what the small one gives."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.networks.starting import FILE, save_start
from autoprune.space import Levels
from autoprune.training.candidate import cut_out
from tests import families, image_families
from tests.conftest import WORDS
from tests.tiny_searches import settings


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng, path = random.Random(0), tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(rng.choice(WORDS) for _ in range(1000)), encoding="utf-8")
    return str(path)


def drawn(assembly: Assembly, seed: int) -> Levels:
    """Levels of which the first unit's is the last: as a rule, nothing is left of it."""
    rng, space = np.random.default_rng(seed), assembly.space
    return (int(space.n_levels_U[0]) - 1, *(int(level) for level in rng.integers(space.n_levels_U)[1:]))


def logits(network: Any, assembly: Assembly) -> torch.Tensor:
    numbers = assembly.splits.validation
    with torch.no_grad():
        if assembly.task.read_by == "tokenizer":
            found: torch.Tensor = network(input_ids=numbers, use_cache=False).logits
            return found
        view: Any = assembly.view
        out = network(view.pixels(numbers.flatten()))
        return (out if isinstance(out, torch.Tensor) else out.logits).reshape(*numbers.shape, -1)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [*families.names(), *image_families.names()])
def test_padded_weights_give_what_the_small_network_gives(name: str, text: str, tmp_path: Path) -> None:
    config = load_config(None, settings(name, tmp_path / "network", text) | {"budgets": {"params": 1.0}})
    assembly = assemble(config)
    policy = drawn(assembly, 1)
    student = cut_out(assembly.placer, policy).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    wanted = logits(student, assembly)
    kept = assembly.space.kept(policy)
    orders = [[order[:k] for order in assembly.store.orders(u)] for u, k in enumerate(kept)]
    names = [unit.name for unit in assembly.space.units]
    save_start(tmp_path / FILE, assembly.view, student, orders, dict(zip(names, kept, strict=True)))

    again = assemble(config, run=tmp_path)
    assert again.space.floor == policy
    assert again.loaded.digest != assembly.loaded.digest
    scale = float(wanted.abs().max())
    again.placer.release()
    found = again.view(again.splits.validation)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-3 * scale)
    again.placer.place(again.space.floor)
    torch.testing.assert_close(again.view(again.splits.validation), wanted, rtol=1e-3, atol=2e-3 * scale)
    assert again.dense is not None
    dense = again.dense.view(again.splits.validation)
    torch.testing.assert_close(dense, assembly.view(again.splits.validation), rtol=1e-4, atol=1e-4 * scale)
