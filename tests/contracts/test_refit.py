"""Every family: a refitted policy follows the dense network more closely than the same policy with dense weights."""

import copy

import pytest
import torch
from torch import Tensor

from autoprune.cutting.live import AS_DENSE, LevelWeights
from autoprune.levels.placing import Placer
from autoprune.levels.store import LevelStore
from autoprune.networks.blocks import BlockView
from autoprune.networks.loading import family_of
from autoprune.networks.text import TextView
from autoprune.space import Levels, SearchSpace, kept_groups
from autoprune.testing.toys import counts
from autoprune.training.refit import place_refitted
from tests import families, image_families

IMAGES = image_families.names()
NAMES = [*families.names(), *IMAGES]


class Prefixes(LevelStore):
    """Nothing is reconstructed."""

    def __init__(self) -> None:
        pass

    def weights(self, u: int, level: int) -> LevelWeights:
        """Prefixes of the dense ones."""
        return AS_DENSE

    def own(self, u: int, level: int) -> dict[str, Tensor]:
        """Nothing more."""
        return {}


def placer_of(name: str) -> tuple[Placer, Tensor]:
    """A tiny network, and what it is refitted on."""
    view: BlockView
    if name in IMAGES:
        view, tokens_NT = image_families.view_of(name, 96), torch.arange(96).view(24, 4)
    else:
        model = families.tiny_model(name)
        view, tokens_NT = TextView(model, family_of(model.config.model_type)), families.random_tokens(8, 16)
    units = [
        width.unit(b, kept_groups(width.width.groups, (1.0, 0.75, 0.5, 0.25)))
        for b, row in enumerate(view.widths)
        for width in row
    ]
    space = SearchSpace(units, {"params": [[u.params(k) for k in counts(u)] for u in units]}, {})
    return Placer(view, space, Prefixes()), tokens_NT


def states(placer: Placer, tokens_NT: Tensor) -> Tensor:
    """Hidden states behind the last block."""
    hidden = placer.view.embed(tokens_NT)
    with torch.no_grad():
        for block in range(len(placer.view.blocks)):
            hidden = placer.view.run(block, hidden)
    return hidden


@pytest.mark.parametrize("name", NAMES)
def test_the_refitted_network_is_nearer(name: str) -> None:
    placer, tokens_NT = placer_of(name)
    dense, weights = states(placer, tokens_NT), copy.deepcopy(placer.view.model.state_dict())
    policy: Levels = tuple(len(unit.levels) // 2 for unit in placer.space.units)
    placer.place(policy)
    found = float((states(placer, tokens_NT) - dense).norm())
    place_refitted(placer, policy, tokens_NT, 3)
    refitted = float((states(placer, tokens_NT) - dense).norm())
    assert refitted < found
    placer.release()
    assert all(torch.equal(weight, weights[key]) for key, weight in placer.view.model.state_dict().items())
