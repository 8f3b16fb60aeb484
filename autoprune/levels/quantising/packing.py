"""Packs codes of few bits into 32-bit words, the lowest bits first, and unpacks them.

The layout is that of compressed-tensors: the codes of a row follow each other without gaps, across words.

Shapes: O rows, D columns, W words.
"""

import numpy as np
import torch
from torch import Tensor

from autoprune.levels.quantising.storage import words


def pack(codes_OD: Tensor, bits: int) -> Tensor:
    """Codes in `[0, 2^bits)` as words, `[O, W]` int32.

    Args:
        codes_OD: uint8.
        bits: of a code.
    """
    rows, columns = codes_OD.shape
    single = np.unpackbits(codes_OD.cpu().contiguous().numpy()[..., None], axis=-1, count=bits, bitorder="little")
    packed = np.packbits(single.reshape(rows, columns * bits), axis=-1, bitorder="little")
    whole = np.zeros((rows, 4 * words(columns, bits)), dtype=np.uint8)
    whole[:, : packed.shape[1]] = packed
    return torch.from_numpy(whole.view("<i4").astype(np.int32, copy=False))


def unpack(packed_OW: Tensor, bits: int, columns: int) -> Tensor:
    """The other way, `[O, D]` uint8, on the device of the words."""
    bytes_OB = packed_OW.contiguous().view(torch.uint8)
    if bits == 8:
        return bytes_OB[:, :columns]
    begin_D = torch.arange(columns, device=packed_OW.device) * bits
    first_D, shift_D = begin_D // 8, (begin_D % 8).to(torch.int16)
    second_D = (first_D + 1).clamp_max(bytes_OB.shape[1] - 1)  # read, and not used, at the very end
    both_OD = bytes_OB[:, first_D].to(torch.int16) | (bytes_OB[:, second_D].to(torch.int16) << 8)
    # the sign of 16-bit integers is copied by the shift: what is kept lies below it
    codes_OD: Tensor = (both_OD >> shift_D) & ((1 << bits) - 1)
    return codes_OD.to(torch.uint8)
