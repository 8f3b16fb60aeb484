"""Matrices in few bits: packing, the grid, error compensation, and what they take in storage."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import UserError
from autoprune.levels.quantising.packing import pack, unpack
from autoprune.levels.quantising.rounding import Rounding, weights_of
from autoprune.levels.quantising.setting import Setting, read
from autoprune.levels.quantising.storage import BITS, Grid, group_of, groups_of, stored_bytes, words

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 200), st.sampled_from(BITS), st.integers(0, 2**20))


def rounding(bits: int = 4, group: int = 32, columns: int = 96, seed: int = 0, **settings: bool) -> Rounding:
    """Random rows that read inputs which are far from independent."""
    generator = torch.Generator().manual_seed(seed)
    weight_RD = torch.randn(24, columns, generator=generator)
    x_ND = torch.randn(400, 12, generator=generator) @ torch.randn(12, columns, generator=generator)
    x_ND += 0.1 * torch.randn(400, columns, generator=generator)
    h_DD = (x_ND.T @ x_ND).double() / 400
    symmetric, by_importance = settings.get("symmetric", False), settings.get("by_importance", False)
    of_row = torch.full((24,), float(bits))
    return Rounding(weight_RD, of_row, group, symmetric, h_DD, torch.bfloat16, by_importance)


@given(SHAPES)
def test_what_is_packed_comes_back(case: tuple[int, int, int, int]) -> None:
    rows, columns, bits, seed = case
    codes = torch.randint(0, 2**bits, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.int32
    assert packed.shape == (rows, words(columns, bits))
    assert torch.equal(unpack(packed, bits, columns), codes)


@given(SHAPES)
def test_the_layout_is_that_of_compressed_tensors(case: tuple[int, int, int, int]) -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    rows, columns, bits, seed = case
    codes = torch.randint(0, 2**bits, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    theirs = helpers.pack_to_int32((codes.int() - 2 ** (bits - 1)).to(torch.int8), bits)
    assert torch.equal(pack(codes, bits), theirs)


@given(st.integers(1, 4096), st.integers(8, 256))
def test_groups_divide_the_columns_or_are_what_was_wanted(columns: int, wanted: int) -> None:
    group = group_of(columns, wanted)
    assert 1 <= group <= wanted
    assert columns % group == 0 or group == wanted
    assert groups_of(columns, wanted) == -(-columns // group)


@pytest.mark.parametrize(("columns", "group"), [(4096, 128), (576, 96), (384, 128), (96, 96), (353, 128), (1, 1)])
def test_a_group_is_smaller_where_it_does_not_divide(columns: int, group: int) -> None:
    assert group_of(columns, 128) == group


def test_storage_is_a_recount() -> None:
    for bits in BITS:
        for symmetric in (False, True):
            grid, rows, columns = Grid(bits, 32, symmetric), 24, 100
            found = rounding(bits, group_of(columns, 32), columns, symmetric=symmetric).nearest()
            stored = [pack(found.codes, bits), found.scales, torch.tensor([rows, columns])]
            stored += [] if symmetric else [pack(found.zeros.T.contiguous(), bits)]
            assert sum(t.numel() * t.element_size() for t in stored) == stored_bytes(rows, columns, grid, 2)
    assert stored_bytes(24, 0, Grid(4), 2) == 0


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("settings", [{}, {"symmetric": True}, {"by_importance": True}], ids=str)
@pytest.mark.parametrize(("columns", "group"), [(96, 32), (100, 48), (7, 7)])
def test_compensation_is_never_worse_than_the_nearest(
    bits: int, settings: dict[str, bool], columns: int, group: int
) -> None:
    of = rounding(bits, group, columns, **settings)
    plain, best = of.errors(of.nearest()), of.errors(of.best())
    assert bool((best <= plain).all())
    assert float(best.sum()) < 0.8 * float(plain.sum()) or columns == 7
    found = of.best()
    assert int(found.codes.max()) < 2**bits
    assert int(found.zeros.max()) < 2**bits
    assert found.scales.dtype == torch.bfloat16


def test_more_bits_lose_less() -> None:
    errors = [float(rounding(bits).errors(rounding(bits).best()).sum()) for bits in BITS]
    assert errors == sorted(errors)


def test_rows_of_several_bits_go_through_as_if_alone() -> None:
    single = {bits: rounding(bits).best() for bits in (2, 4)}
    both = rounding(4)
    both._weight_RD = torch.cat([both._weight_RD] * 2)
    both._most_R = (2.0 ** torch.tensor([2.0] * 24 + [4.0] * 24)) - 1
    found = both.best()
    assert torch.equal(found.codes[:24], single[2].codes)
    assert torch.equal(found.codes[24:], single[4].codes)


def test_zeros_equal_weights_and_no_moments_are_rounded() -> None:
    weight = torch.zeros(3, 20)
    weight[1] = 0.5
    weight[2] = torch.linspace(-1, 1, 20)
    found = Rounding(weight, torch.full((3,), 4.0), 8, False, None, torch.float32).best()
    assert torch.equal(found.weights()[0], weight[0])
    assert torch.allclose(found.weights(), weight, atol=0.1)
    assert torch.equal(weights_of(found.codes, found.scales, found.zeros, 8), found.weights())
    dead = Rounding(weight, torch.full((3,), 4.0), 8, False, torch.zeros(20, 20), torch.float32).best()
    assert torch.allclose(dead.weights(), weight, atol=0.1)


def test_the_setting_is_read() -> None:
    assert read("") == Setting()
    assert read("3/8/4") == Setting(bits=(8, 4, 3))
    assert read("4/group=64/symmetric/act-order") == Setting((4,), 64, True, True)
    assert Setting().options(4) == (("bits", 4),)
    assert Setting(group=64, symmetric=True).options(3) == (("bits", 3), ("group", 64), ("symmetric", 1))


@pytest.mark.parametrize(
    ("text", "told"),
    [("1", "bits=1 is not offered: a weight has 8, 6, 5, 4, 3, 2 bits"), ("bits=7", "bits=7 is not offered"),
     ("16", "bits=16 is not offered"), ("4/group=3", "group=3 is no number of weights"),
     ("4/group=x", "group=x is no number of weights"), ("nf4", "the form bits has no setting 'nf4'")],
)  # fmt: skip
def test_what_is_not_offered_is_told(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read(text)
