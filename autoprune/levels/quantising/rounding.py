"""Rounds matrices to a grid: to the nearest, or with the error of each column compensated in those behind it (GPTQ).

Rows are independent of each other. So rows of several matrices that read the same inputs, and of several numbers of
bits, go through together.

Frantar et al. 2023, "GPTQ: Accurate Post-training Quantization for Generative Pre-trained Transformers", sec. 3.3.

Shapes: R rows, D columns, N groups of columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

DAMPING = 0.01  # of the mean diagonal, as SparseGPT and GPTQ
BLOCK = 64
"""Columns whose errors are added to the columns behind them at once."""
SHRINKS = tuple(1 - 0.05 * step for step in range(9))
"""Shares of the range of a group that its grid may span. Fewer bits do better without the outermost weights."""


@dataclass(frozen=True)
class Rounded:
    """Rows on a grid: weight = (code - zero) * scale.

    Args:
        codes: `[R, D]` uint8.
        scales: `[R, N]`, in the dtype in which they are stored.
        zeros: `[R, N]` uint8.
        group: columns of a group; the last may have fewer.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    group: int

    def weights(self) -> Tensor:
        """`[R, D]` float32."""
        return weights_of(self.codes, self.scales, self.zeros, self.group)

    def rows(self, some: slice) -> "Rounded":
        """Some of the rows."""
        return Rounded(self.codes[some], self.scales[some], self.zeros[some], self.group)


def weights_of(codes_RD: Tensor, scales_RN: Tensor, zeros_RN: Tensor, group: int) -> Tensor:
    """The weights that codes stand for, `[R, D]` float32."""
    columns = codes_RD.shape[1]
    scale_RD = scales_RN.float().repeat_interleave(group, 1)[:, :columns]
    zero_RD = zeros_RN.float().repeat_interleave(group, 1)[:, :columns]
    return (codes_RD.float() - zero_RD) * scale_RD


class Rounding:
    """Rounds rows that read the same inputs.

    Args:
        weight_RD: the rows.
        bits_R: bits of each row.
        group: columns that share a scale.
        symmetric: whether zero is in the middle of every grid.
        moments_DD: second moments of the inputs; None rounds every weight for itself.
        dtype: of the scales.
        by_importance: whether columns are rounded in the order of their moments, the largest first (GPTQ's act-order).
            Scales are then those of the unchanged weights.
    """

    def __init__(
        self,
        weight_RD: Tensor,
        bits_R: Tensor,
        group: int,
        symmetric: bool,
        moments_DD: Tensor | None,
        dtype: torch.dtype,
        by_importance: bool = False,
    ) -> None:
        self._weight_RD = weight_RD.float()
        self._most_R = (2.0**bits_R - 1).to(weight_RD.device)
        self._group, self._symmetric, self._dtype = group, symmetric, dtype
        self._h_DD = None if moments_DD is None else moments_DD.double().to(weight_RD.device)
        self._by_importance = by_importance

    def nearest(self) -> Rounded:
        """Every weight rounded to the nearest."""
        columns = self._weight_RD.shape[1]
        starts = range(0, columns, self._group)
        found = [self._grid(self._weight_RD[:, start : start + self._group], start) for start in starts]
        scales_RN, zeros_RN = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
        codes = [
            self._codes(self._weight_RD[:, start : start + self._group], scales_RN[:, n], zeros_RN[:, n])
            for n, start in enumerate(starts)
        ]
        return self._rounded(torch.cat(codes, 1), scales_RN, zeros_RN)

    def best(self) -> Rounded:
        """The better of both ways for every row, by the error of its output."""
        plain = self.nearest()
        if self._h_DD is None or not bool(torch.isfinite(self._h_DD).all()):
            return plain
        other = self.compensated(plain)
        better_R = self.errors(other) < self.errors(plain)
        chosen = [
            torch.where(better_R[:, None], new, old)
            for new, old in zip(
                (other.codes, other.scales, other.zeros), (plain.codes, plain.scales, plain.zeros), strict=True
            )
        ]
        return Rounded(chosen[0], chosen[1], chosen[2], self._group)

    def errors(self, found: Rounded) -> Tensor:
        """Mean squared error of each row's output, `[R]` float64."""
        assert self._h_DD is not None
        lost_RD = self._weight_RD.double() - found.weights().double()
        return (lost_RD @ self._h_DD * lost_RD).sum(1)

    def compensated(self, plain: Rounded) -> Rounded:
        """Rounded column after column; each error is made up for by the columns that are still to come.

        Args:
            plain: the same to the nearest, whose grids serve where columns go by importance.
        """
        assert self._h_DD is not None
        order_D = torch.arange(len(self._h_DD), device=self._h_DD.device)
        if self._by_importance:
            order_D = torch.argsort(self._h_DD.diagonal(), descending=True, stable=True)
        upper_DD = _upper(self._h_DD[order_D][:, order_D])
        if upper_DD is None:
            return plain
        work_RD = self._weight_RD[:, order_D].clone()
        scales_RN, zeros_RN = plain.scales.float(), plain.zeros.float()
        codes_RD = torch.zeros_like(work_RD)
        for begin in range(0, len(order_D), BLOCK):
            end = min(begin + BLOCK, len(order_D))
            lost_RB = torch.zeros(len(work_RD), end - begin, device=work_RD.device)
            for i in range(begin, end):
                column = int(order_D[i])
                n = column // self._group
                if not self._by_importance and column % self._group == 0:
                    # what is behind the block has not been told of its errors yet
                    ahead = work_RD[:, i : i + self._group].clone()
                    ahead[:, end - i :] -= lost_RB @ upper_DD[begin:end, end : i + self._group]
                    scales_RN[:, n], zeros_RN[:, n] = self._grid(ahead, i)
                scale_R, zero_R = scales_RN[:, n], zeros_RN[:, n]
                codes_RD[:, i] = self._codes(work_RD[:, i : i + 1], scale_R, zero_R)[:, 0]
                lost_R = (work_RD[:, i] - (codes_RD[:, i] - zero_R) * scale_R) / upper_DD[i, i]
                work_RD[:, i + 1 : end].addr_(lost_R, upper_DD[i, i + 1 : end], alpha=-1)
                lost_RB[:, i - begin] = lost_R
            work_RD[:, end:] -= lost_RB @ upper_DD[begin:end, end:]
        back_D = torch.argsort(order_D)
        return self._rounded(codes_RD[:, back_D], scales_RN, zeros_RN)

    # -- grids -------------------------------------------------------------------------------------------------

    def _grid(self, weight_RG: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Scale and zero point of a group of each row, `[R]` each, with the least error, weighted by the moments."""
        low_R, high_R = weight_RG.amin(1).clamp_max(0), weight_RG.amax(1).clamp_min(0)
        if self._symmetric:
            high_R = torch.maximum(-low_R, high_R)
            low_R = -high_R
        share_G = self._shares(start, weight_RG.shape[1])
        least_R = torch.full_like(low_R, torch.inf)
        scale_R, zero_R = torch.ones_like(low_R), torch.zeros_like(low_R)
        for shrink in SHRINKS:
            tried_R = self._scale((high_R - low_R) * shrink)
            middle_R = (self._most_R + 1) / 2 if self._symmetric else (-low_R * shrink / tried_R).round()
            middle_R = middle_R.clamp_min(0).minimum(self._most_R)
            codes_RG = self._codes(weight_RG, tried_R, middle_R)
            back_RG = (codes_RG - middle_R[:, None]) * tried_R[:, None]
            error_R = ((weight_RG - back_RG).square() * share_G).sum(1)
            better_R = error_R < least_R
            least_R = torch.where(better_R, error_R, least_R)
            scale_R, zero_R = torch.where(better_R, tried_R, scale_R), torch.where(better_R, middle_R, zero_R)
        return scale_R, zero_R

    def _scale(self, span_R: Tensor) -> Tensor:
        """A step of the grid in the dtype in which it is stored; 1 for rows of zeros."""
        tiny = torch.finfo(self._dtype).tiny
        step_R = (span_R / self._most_R).to(self._dtype).float()
        return torch.where(step_R > tiny, step_R, torch.where(span_R > 0, tiny, 1.0))

    def _shares(self, start: int, count: int) -> Tensor:
        if self._h_DD is None:
            return torch.ones(count, device=self._weight_RD.device)
        diagonal_G = self._h_DD.diagonal()[start : start + count].clamp_min(0).float()
        return diagonal_G + DAMPING * self._h_DD.diagonal().mean().float()

    def _codes(self, weight_RG: Tensor, scale_R: Tensor, zero_R: Tensor) -> Tensor:
        codes_RG = (weight_RG / scale_R[:, None]).round_() + zero_R[:, None]
        return codes_RG.clamp_min_(0).minimum(self._most_R[:, None])

    def _rounded(self, codes_RD: Tensor, scales_RN: Tensor, zeros_RN: Tensor) -> Rounded:
        codes = codes_RD.nan_to_num(0).to(torch.uint8)  # weights that are NaN have scales that are, too
        return Rounded(codes, scales_RN.to(self._dtype), zeros_RN.nan_to_num(0).to(torch.uint8), self._group)


def _upper(h_DD: Tensor) -> Tensor | None:
    """The upper Cholesky factor of the damped moments' inverse, float32; None where there is none."""
    damped_DD = h_DD.clone()
    damped_DD.diagonal().add_(DAMPING * float(damped_DD.diagonal().mean()) or 1.0)
    lower_DD, failed = torch.linalg.cholesky_ex(damped_DD)
    if failed:
        return None
    upper_DD, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower_DD), upper=True)
    return None if failed else upper_DD.float()
