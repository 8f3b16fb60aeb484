"""The port of a criterion: in which order groups leave, and what the consumer's weights become.

Shapes: O outputs, D inputs of the consumer (`groups * size`), G groups. Float64 where it matters.
"""

from typing import Protocol

import torch
from torch import Tensor

DAMPING = 0.01  # of the mean diagonal, as SparseGPT


class Criterion(Protocol):
    """What `autoprune/levels/*.py` implement. `reconstructs` says whether levels get new consumer weights."""

    reconstructs: bool

    def order(self, weight_OD: Tensor, moments_DD: Tensor, groups: int) -> Tensor:
        """Groups from the most to the least important, `[G]` int64."""
        ...


def damped(moments_DD: Tensor) -> Tensor:
    """Moments made safely invertible: a share of the mean diagonal is added, dead inputs get a unit."""
    h_DD = moments_DD.double().clone()
    diagonal = h_DD.diagonal()
    mean = float(diagonal.mean()) or 1.0
    diagonal.add_(DAMPING * mean)
    return h_DD


def reconstruct(weight_OD: Tensor, moments_DD: Tensor, kept: Tensor) -> Tensor:
    """The consumer's least-squares weights on the kept inputs, `[O, K]`.

    W_K = W H_{:,K} (H_{KK})^-1 minimises E|W x - W_K x_K|^2: the closed form of all OBS updates of one elimination
    (Hassibi & Stork 1993, eq. 5; SparseGPT, Frantar & Alistarh 2023, eq. 2). Damping acts as a ridge towards the
    plain removal, so that it is never worse than that.

    Args:
        weight_OD: dense weights.
        moments_DD: second moments of the inputs.
        kept: indices of the kept inputs, `[K]`.
    """
    h_DD = moments_DD.double()
    w_OD = weight_OD.double()
    ridge = DAMPING * float(h_DD.diagonal().mean()) or 1.0
    gone = torch.ones(h_DD.shape[0], dtype=torch.bool, device=h_DD.device)
    gone[kept] = False
    h_KK = h_DD[kept][:, kept] + ridge * torch.eye(len(kept), dtype=h_DD.dtype, device=h_DD.device)
    # correction = W_gone H_{gone,K} (H_KK + ridge)^-1
    cross_OK = w_OD[:, gone] @ h_DD[gone][:, kept]
    correction_OK: Tensor = torch.linalg.solve(h_KK, cross_OK, left=False)
    new_OK: Tensor = w_OD[:, kept] + correction_OK
    return new_OK.to(weight_OD.dtype)
