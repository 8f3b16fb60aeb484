"""Every type of every family: losses are those of a plain evaluator, whatever is shared, kept or put together."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune import registry
from autoprune.cutting.live import AS_DENSE, LevelWeights
from autoprune.evaluation.evaluator import Evaluator
from autoprune.levels.placing import Placer
from autoprune.levels.store import LevelStore
from autoprune.networks.head import linear_head
from autoprune.networks.loading import family_of
from autoprune.networks.text import TextView
from autoprune.space import Levels, SearchSpace, kept_groups
from autoprune.testing.toys import counts
from tests import families

LENGTH = 11
CAPPED = {"gemma2", "vaultgemma"}
"""Their logits are capped by a hyperbolic tangent."""


class Bare(LevelStore):
    """Nothing is reconstructed."""

    def __init__(self) -> None:
        pass

    def consumer(self, u: int, level: int) -> Tensor | None:
        """The dense weight's own columns."""
        return None

    def weights(self, u: int, level: int) -> LevelWeights:
        """Prefixes of the dense ones."""
        return AS_DENSE

    def own(self, u: int, level: int) -> dict[str, Tensor]:
        """Nothing more."""
        return {}


def placer_of(name: str, dtype: torch.dtype = torch.float32) -> Placer:
    model = families.tiny_model(name).to(dtype)
    view = TextView(model, family_of(model.config.model_type))
    units = [
        width.unit(b, kept_groups(width.width.groups, (1.0, 0.5, 0.0)))
        for b, row in enumerate(view.widths)
        for width in row
    ]
    return Placer(view, SearchSpace(units, {"params": [[u.params(k) for k in counts(u)] for u in units]}, {}), Bare())


def plain(placer: Placer, policies: Sequence[Levels], tokens_NT: Tensor) -> NDArray[np.float64]:
    """KL and cross-entropy from whole forward passes, in float64, `[2, P, N]`."""
    rows = []
    with torch.no_grad():
        placer.release()
        logp_BTV = placer.view.model(input_ids=tokens_NT, use_cache=False).logits.double().log_softmax(-1)
        for policy in policies:
            placer.place(policy)
            logq_BTV = placer.view.model(input_ids=tokens_NT, use_cache=False).logits.double().log_softmax(-1)
            kl_B = (logp_BTV.exp() * (logp_BTV - logq_BTV)).sum(-1).mean(-1)
            ce_B = -logq_BTV[:, :-1].gather(-1, tokens_NT[:, 1:, None]).squeeze(-1).mean(-1)
            rows.append([kl_B.numpy(), ce_B.numpy()])
    return np.array(rows).transpose(1, 0, 2)


def _random(space: SearchSpace, rng: np.random.Generator) -> Levels:
    return tuple(int(level) for level in rng.integers(space.n_levels_U))


@pytest.mark.parametrize("name", families.names())
def test_losses_are_those_of_plain_forward_passes(name: str) -> None:
    placer, tokens_NT = placer_of(name), families.random_tokens(4, LENGTH)
    rng = np.random.default_rng(0)
    state = placer.view.embed(tokens_NT[:1]).untyped_storage().nbytes()
    losses = [registry.load("losses", loss)() for loss in ("kl", "ce")]
    for batch, states in ((1, 1), (1, 12), (3, 1000), (8, 7)):
        evaluator = Evaluator(placer, tokens_NT, losses, batch, state_bytes=2 * state * states)
        for _ in range(3):
            policies = [_random(placer.space, rng) for _ in range(int(rng.integers(1, 6)))]
            policies += [placer.space.dense, policies[0]]
            sequences = [int(s) for s in rng.integers(4, size=int(rng.integers(1, 5)))]
            found = evaluator.score_each(policies, sequences)
            expected = plain(placer, policies, tokens_NT)[:, :, sequences]
            assert found == pytest.approx(expected, rel=1e-5, abs=2e-6)
            assert evaluator.runner.cache.nbytes <= state * states


@pytest.mark.parametrize("name", families.names())
def test_heads_are_linear_but_for_those_that_cap(name: str) -> None:
    head = linear_head(placer_of(name).view)
    assert (head is None) == (name in CAPPED)
