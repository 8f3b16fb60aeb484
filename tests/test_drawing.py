"""Tokens drawn by inverting the distribution function: the right ones, of vocabularies of any size."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.networks import head as heads
from autoprune.networks.head import Draw, LinearHead

LARGE = 262_144


def drawn(p_NV: Tensor, uniform_N: Tensor, *pieces: int) -> Tensor:
    draw = Draw(uniform_N)
    for piece_NV in torch.split(p_NV, list(pieces) or p_NV.shape[1], dim=1):
        draw.look(piece_NV)
    return draw.tokens_N


@pytest.mark.parametrize("pieces", [(), (1, LARGE - 1), (100_000, 7, LARGE - 100_007)])
def test_of_a_large_vocabulary_each_token_owns_its_interval(pieces: tuple[int, ...]) -> None:
    """Most is one token's, and all others are equal: sums in float32 do not grow behind it, and lose them all."""
    p_V = torch.full((LARGE,), 0.005 / (LARGE - 1))
    p_V[0] = 0.995
    uniform_N = 0.995 + 0.005 * (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    tokens_N = drawn(p_V.expand(64, LARGE), uniform_N, *pieces)
    assert bool((tokens_N - (torch.arange(64) + 0.5) / 64 * LARGE).abs().max() < 40)  # p itself is float32
    sums_V = np.cumsum(p_V.numpy(), dtype=np.float64)
    assert (sums_V[tokens_N - 1] <= uniform_N.numpy() + 1e-12).all()
    assert (uniform_N.numpy() < sums_V[tokens_N] + 1e-12).all()
    assert np.cumsum(p_V.numpy(), dtype=np.float32)[-1] == p_V[0]


def test_what_has_no_probability_is_never_drawn() -> None:
    p_V = torch.tensor([0.0, 0.25, 0.0, 0.0, 0.25, 0.5, 0.0, 0.0])
    edges_N = torch.tensor([0.0, 0.25, 0.5, 1 - 2**-53, 0.25 - 2**-54, 0.75], dtype=torch.float64)
    for pieces in ((), (1, 7), (3, 3, 2), (2, 2, 2, 2), (6, 2)):
        assert drawn(p_V.expand(6, 8), edges_N, *pieces).tolist() == [1, 4, 5, 5, 1, 5]
    less_V = p_V * (1 - 1e-6)  # rounding of the softmax: the last that has any probability takes what is left
    assert drawn(less_V[None], edges_N[3:4], 6, 2).tolist() == [5]
    random_N = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sparse_V = torch.rand(500, generator=torch.Generator().manual_seed(1)) * (torch.arange(500) % 3 == 1)
    sparse_V /= sparse_V.sum()
    assert bool((sparse_V[drawn(sparse_V.expand(2000, 500), random_N, 200, 300)] > 0).all())


def test_frequencies_are_the_softmax_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pearson's chi-squared of 20,000 draws of 400 tokens: its mean is 399, its standard deviation 28."""
    monkeypatch.setattr(heads, "PIECE_BYTES", {"cpu": 1})  # pieces of 256
    monkeypatch.setattr(heads, "DRAWN_BYTES", 8 * 20_000 * 100)  # of these parts of 100
    torch.manual_seed(0)
    head, draws = LinearHead(nn.Identity(), nn.Linear(6, 400), factor=1.5), 20_000
    read_D = torch.randn(6)
    draw = Draw(torch.rand(draws, dtype=torch.float64))
    head.expected(read_D.expand(draws, 6), draw.look)
    with torch.no_grad():
        p_V = (1.5 * head.matrix(read_D)).double().softmax(-1)
    counted = torch.bincount(draw.tokens_N, minlength=400).double()
    chi = ((counted - draws * p_V).square() / (draws * p_V)).sum()
    assert 399 - 4 * 28 < float(chi) < 399 + 4 * 28


def test_a_network_that_overflows_is_no_error() -> None:
    p_NV = torch.full((3, 10), torch.nan)
    tokens_N = drawn(p_NV, torch.rand(3, dtype=torch.float64), 4, 6)
    assert bool(((tokens_N >= 0) & (tokens_N < 10)).all())
