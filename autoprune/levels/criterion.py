"""The common part of criteria: the order in which groups leave, and the reconstruction of the consumer's weights.

Shapes: O outputs, D inputs of the consumer (`groups * size`), G groups. Float64 where it matters.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autoprune import usercode
from autoprune.errors import UserError
from autoprune.ports.criterion import Criterion

DAMPING = 0.01  # of the mean diagonal, as SparseGPT


def damped(moments_DD: Tensor) -> Tensor:
    """Moments made safely invertible: a share of the mean diagonal is added, dead inputs get a unit."""
    h_DD = moments_DD.double().clone()
    diagonal = h_DD.diagonal()
    mean = float(diagonal.mean()) or 1.0
    diagonal.add_(DAMPING * mean)
    return h_DD


def workspace_bytes(weight_OD: Tensor) -> int:
    """What ordering a consumer's inputs and reconstructing its weights may need at once: float64 matrices."""
    outputs, inputs = weight_OD.shape
    return 8 * (4 * inputs**2 + 5 * outputs * inputs)


class Reconstruction:
    """The consumer's least-squares weights on any kept inputs.

    W_K = W H_{:,K} (H_{KK})^-1 minimises E|W x - W_K x_K|^2: the closed form of all OBS updates of one elimination
    (Hassibi & Stork 1993, eq. 5; SparseGPT, Frantar & Alistarh 2023, eq. 2). A ridge r towards the dense weights makes
    it (W H + r W)_{:,K} (H_{KK} + r)^-1, which is never worse than plain removal.

    Args:
        weight_OD: dense weights.
        moments_DD: second moments of the inputs.
    """

    def __init__(self, weight_OD: Tensor, moments_DD: Tensor) -> None:
        h_DD, w_OD = moments_DD.double(), weight_OD.double()
        self._ridge = DAMPING * float(h_DD.diagonal().mean()) or 1.0
        self._moments_DD, self._dtype = moments_DD, weight_OD.dtype
        self._target_DO = (w_OD @ h_DD + self._ridge * w_OD).T.contiguous()  # what depends on no choice, once

    def on(self, kept: Tensor) -> Tensor:
        """Weights on the inputs `kept`, `[K]` indices: `[O, K]`."""
        h_KK = self._moments_DD[kept][:, kept].double()
        h_KK.diagonal().add_(self._ridge)
        factor_KK, failed = torch.linalg.cholesky_ex(h_KK)
        if failed:  # moments that are NaN give weights that are: the dense network's loss tells it better
            new_KO: Tensor = torch.linalg.solve(h_KK, self._target_DO[kept])
        else:
            new_KO = torch.cholesky_solve(self._target_DO[kept], factor_KK)
        return new_KO.T.to(self._dtype)


def reconstruct(weight_OD: Tensor, moments_DD: Tensor, kept: Tensor) -> Tensor:
    """`Reconstruction` for one choice: `[O, K]`."""
    return Reconstruction(weight_OD, moments_DD).on(kept)


def order_of(
    criterion: Criterion,
    weight_OD: Tensor,
    moments_DD: Tensor,
    groups: int,
    bundle: int,
    evidence: Mapping[str, Tensor],
) -> Tensor:
    """Groups from the most to the least important, `[G]` int64; those of a bundle follow each other.

    Bundles leave as a whole, until one is left. The groups of this bundle are then ordered by its own weights.

    Args:
        criterion: orders.
        groups: pieces of the width.
        bundle: neighbouring groups that use some weights together.
        evidence: what the criterion needs besides (evidence.py).
    """
    if bundle == 1:
        return _ordered(criterion, weight_OD, moments_DD, groups, evidence)
    # a gate on a whole bundle has the sum of its groups' derivatives
    apart = {name: tensor.view(-1, groups // bundle, bundle) for name, tensor in evidence.items()}
    whole = {name: tensor.sum(-1) for name, tensor in apart.items()}
    order_B = _ordered(criterion, weight_OD, moments_DD, groups // bundle, whole)
    first, size = int(order_B[0]), weight_OD.shape[1] // groups * bundle
    inputs = torch.arange(first * size, (first + 1) * size, device=weight_OD.device)
    alone_OK = Reconstruction(weight_OD, moments_DD).on(inputs) if criterion.reconstructs else weight_OD[:, inputs]
    of_first = {name: tensor[:, first] for name, tensor in apart.items()}
    within = _ordered(criterion, alone_OK, moments_DD[inputs][:, inputs], bundle, of_first)
    order_BG = order_B[:, None] * bundle + torch.arange(bundle, device=order_B.device)
    order_BG[0] = first * bundle + within
    return order_BG.flatten()


def _ordered(
    criterion: Criterion, weight_OD: Tensor, moments_DD: Tensor, groups: int, evidence: Mapping[str, Tensor]
) -> Tensor:
    """What a criterion gives, which is the user's own perhaps: every group once."""
    order: Any = criterion.order(weight_OD, moments_DD, groups, **evidence)
    whole = isinstance(order, Tensor) and order.shape == (groups,) and order.dtype == torch.int64
    if not whole or order.sort().values.tolist() != list(range(groups)):
        raise UserError(
            f"the criterion {usercode.located(criterion)} gives {usercode.shown(order)} as the order of {groups} "
            "groups: it is a tensor of int64 that names every group once, the most important first."
        )
    placed: Tensor = order.to(weight_OD.device)
    return placed
