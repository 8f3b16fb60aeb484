"""Optimal brain surgeon on groups: exact elimination order, then reconstruction (default).

Hassibi & Stork 1993; on structures: ZipLM (Kurtic et al. 2023, sec. 3.1). Removing group g costs
sum_o w_og (Hinv_gg)^-1 w_og^T; the weights that stay and the inverse are then updated in closed form.
"""

import torch
from torch import Tensor

from autoprune.levels.criterion import damped
from autoprune.ports.criterion import Criterion

BATCH = 48
"""Eliminations of single inputs before the matrices are updated."""


class OptimalBrainSurgeon(Criterion):
    """Eliminate the group whose removal changes the output least after the best correction of the others."""

    reconstructs = True

    def order(self, weight_OD: Tensor, moments_DD: Tensor, groups: int) -> Tensor:
        """Groups in reverse order of elimination, `[G]`: the first is the last that would leave.

        One elimination at a time, each O(D^2 + O D); buffers shrink as groups leave.
        """
        size = weight_OD.shape[1] // groups
        w_OD = weight_OD.double().clone()
        inverse_DD = torch.linalg.inv(damped(moments_DD))
        inverse_DD = (inverse_DD + inverse_DD.T) / 2
        eliminated = _one_by_one(w_OD, inverse_DD) if size == 1 else _in_groups(w_OD, inverse_DD, size)
        return torch.tensor(eliminated[::-1], device=weight_OD.device)


def _one_by_one(w_OD: Tensor, inverse_DD: Tensor) -> list[int]:
    """Inputs in order of elimination. Changes what it is given.

    An elimination needs one row of the inverse, one column of the weights, and their squared norms. So the matrices
    are updated for many of them at once (as in GPTQ, Frantar et al. 2023, sec. 3.3), which reads memory far less often.
    """
    alive_D = torch.arange(len(inverse_DD), device=w_OD.device)
    eliminated: list[int] = []
    while len(alive_D):
        gone = _batch(w_OD, inverse_DD, min(BATCH, len(alive_D)))
        eliminated += alive_D[gone].tolist()
        stay_D = torch.ones(len(alive_D), dtype=torch.bool, device=w_OD.device)
        stay_D[gone] = False
        w_OD, inverse_DD, alive_D = w_OD[:, stay_D], inverse_DD[stay_D][:, stay_D], alive_D[stay_D]
    return eliminated


def _batch(w_OD: Tensor, inverse_DD: Tensor, count: int) -> Tensor:
    """The next inputs to leave, `[K]`, in order; weights and inverse are then as they are without them."""
    width = len(inverse_DD)
    rows_KD, shares_KD = (inverse_DD.new_zeros(count, width) for _ in range(2))
    columns_KO = w_OD.new_zeros(count, len(w_OD))
    gone = torch.zeros(count, dtype=torch.long, device=w_OD.device)
    squares_D, diagonal_D = w_OD.square().sum(0), inverse_DD.diagonal().clone()
    for k in range(count):
        cost_D = squares_D.clamp_min(0) / diagonal_D.clamp_min(1e-300)
        g = cost_D.index_fill(0, gone[:k], torch.inf).argmin(0, keepdim=True)
        row_D = inverse_DD[g][0] - rows_KD[:k, g].T[0] @ shares_KD[:k]
        column_O = w_OD[:, g][:, 0] - shares_KD[:k, g].T[0] @ columns_KO[:k]
        share_D = row_D / row_D[g]
        along_D = column_O @ w_OD - (columns_KO[:k] @ column_O) @ shares_KD[:k]
        squares_D += share_D * (share_D * column_O.square().sum() - 2 * along_D)
        diagonal_D -= row_D * share_D
        gone[k], rows_KD[k], shares_KD[k], columns_KO[k] = g[0], row_D, share_D, column_O
    inverse_DD.addmm_(rows_KD.T, shares_KD, alpha=-1)
    w_OD.addmm_(columns_KO.T, shares_KD, alpha=-1)
    return gone


def _in_groups(w_OD: Tensor, inverse_DD: Tensor, size: int) -> list[int]:
    """Groups of more than one input in order of elimination."""
    groups = w_OD.shape[1] // size
    alive_G = torch.arange(groups, device=w_OD.device)
    gone_G = torch.zeros(groups, dtype=torch.bool, device=w_OD.device)  # within the present buffers
    eliminated: list[int] = []
    while len(eliminated) < groups:
        cost_G = _costs(w_OD, inverse_DD, size).masked_fill(gone_G, torch.inf)
        g = int(cost_G.argmin())
        eliminated.append(int(alive_G[g]))
        _remove(w_OD, inverse_DD, slice(g * size, (g + 1) * size))
        gone_G[g] = True
        if int(gone_G.sum()) * 4 > len(gone_G):
            stay = ~gone_G
            entries = stay.repeat_interleave(size)
            w_OD, inverse_DD = w_OD[:, entries], inverse_DD[entries][:, entries]
            alive_G, gone_G = alive_G[stay], gone_G[stay]
    return eliminated


def _costs(w_OD: Tensor, inverse_DD: Tensor, size: int) -> Tensor:
    """Increase of the squared output error if each group left now, `[G]`."""
    groups = w_OD.shape[1] // size
    blocks_GSS = torch.stack([inverse_DD[i : i + size, i : i + size] for i in range(0, groups * size, size)])
    w_GOS = w_OD.view(-1, groups, size).transpose(0, 1)
    identity_GSS = torch.eye(size, dtype=w_OD.dtype, device=w_OD.device).expand_as(blocks_GSS)
    empty = blocks_GSS.diagonal(dim1=1, dim2=2).amax(1) == 0  # groups already gone
    safe_GSS = torch.where(empty[:, None, None], identity_GSS, blocks_GSS)
    cost_G: Tensor = (torch.linalg.solve(safe_GSS, w_GOS, left=False) * w_GOS).sum((1, 2))
    return cost_G


def _remove(w_OD: Tensor, inverse_DD: Tensor, group: slice) -> None:
    """Update weights and inverse in place as the inputs of `group` leave; their rows and columns become 0."""
    block_SS = inverse_DD[group, group].clone()
    rows_SD = torch.linalg.solve(block_SS, inverse_DD[group].clone())
    columns_DS = inverse_DD[:, group].clone()
    w_OD.addmm_(w_OD[:, group].clone(), rows_SD, alpha=-1)
    inverse_DD.addmm_(columns_DS, rows_SD, alpha=-1)
    w_OD[:, group] = 0
    inverse_DD[group] = 0
    inverse_DD[:, group] = 0
