"""Layer statistics from the dense weights and the moments, computed while the level store is built.

Shapes: O outputs, D inputs of the consumer, G groups, K kept inputs.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autoprune.cutting.counting import weights_of
from autoprune.cutting.live import LiveWidth
from autoprune.level import Level
from autoprune.levels.form import live_form
from autoprune.space import Unit
from autoprune.unit_statistics import MAGNITUDE_STEP, MAGNITUDES, UnitStatistics


def measure(
    unit: Unit,
    width: LiveWidth,
    h_DD: Tensor,
    levels: Mapping[str, Tensor],
    owned: Sequence[Mapping[str, Tensor]] | None = None,
) -> UnitStatistics:
    """Statistics of one unit.

    Args:
        h_DD: second moments of the consumer's inputs.
        levels: what the store keeps of the unit: `order` and, where reconstructed, `level.<l>`.
        owned: of each level, the tensors that only its form knows; None where there are none.
    """
    weight_OD, h_DD = width.consumer_weight.double(), h_DD.double().to(width.consumer_weight.device)
    norm_G = weight_OD.square().sum(0).view(unit.groups, -1).sum(1).sqrt()
    weights = torch.cat([weight.double().flatten() for weight in weights_of(width)])
    diagonal_D = h_DD.diagonal()
    return UnitStatistics(
        weight_rms=_finite(weights.square().mean().sqrt()),
        weight_spread=_finite(norm_G.std(correction=0) / norm_G.mean()),
        weight_kurtosis=_kurtosis(weights),
        pq_index=_pq_index(norm_G),
        activation_rms=_finite(diagonal_D.clamp_min(0).mean().sqrt()),
        activation_rank=_finite(diagonal_D.sum().square() / (len(diagonal_D) * h_DD.square().sum())),
        output_errors=_output_errors(unit, width, weight_OD, h_DD, levels, owned or [{}] * len(unit.levels)),
        magnitudes=_magnitudes(weights),
    )


def _output_errors(
    unit: Unit,
    width: LiveWidth,
    weight_OD: Tensor,
    h_DD: Tensor,
    levels: Mapping[str, Tensor],
    owned: Sequence[Mapping[str, Tensor]],
) -> tuple[float, ...]:
    """E|Wx - W_K x_K|^2 / E|Wx|^2 at every level, and what producers lose; never falling as less is kept of a form."""
    size = weight_OD.shape[1] // unit.groups
    order_G = levels["order"].to(weight_OD.device)
    inputs = (order_G[:, None] * size + torch.arange(size, device=order_G.device)).flatten()
    whole = float((weight_OD @ h_DD * weight_OD).sum())
    errors = [0.0]
    for number, level in enumerate(unit.levels[1:], 1):
        form, own = live_form(level), owned[number]
        stored = levels[f"level.{number}"] if f"level.{number}" in levels else form.unpacked(level, width, own)
        difference_OD = weight_OD - form.consumer(level, stored, width, inputs)
        error = float((difference_OD @ h_DD * difference_OD).sum()) / whole if whole > 0 else 0.0
        error += form.lost(level, own)
        denser = zip(unit.levels, errors, strict=False)
        alike = [known for other, known in denser if _comparable(level, other)]
        errors.append(min(1.0, max([error, *alike])))
    return tuple(errors)


def _comparable(level: Level, denser: Level) -> bool:
    """Whether a level of the same form differs in one respect alone: by rounding, the sparser could seem better."""
    return denser.form == level.form and (denser.kept == level.kept or denser.options == level.options)


def _magnitudes(weights: Tensor) -> tuple[float, ...]:
    """Shares of the weights up to each magnitude; empty where all of them are alike."""
    ratios = weights.abs() / weights.std(correction=0)
    if not torch.isfinite(ratios).all():
        return ()
    counts = torch.histc(ratios.cpu(), MAGNITUDES, 0, MAGNITUDES * MAGNITUDE_STEP)
    return tuple((counts.cumsum(0) / len(weights)).tolist())


def _kurtosis(weights: Tensor) -> float:
    centred = weights - weights.mean()
    return _finite(centred.pow(4).mean() / centred.square().mean().square(), otherwise=3.0)


def _pq_index(norm_G: Tensor, p: float = 0.5, q: float = 1.0) -> float:
    ratio = norm_G.pow(p).sum().pow(1 / p) / norm_G.pow(q).sum().pow(1 / q)
    return min(1.0, max(0.0, _finite(1 - len(norm_G) ** (1 / q - 1 / p) * ratio)))


def _finite(value: Tensor, otherwise: float = 0.0) -> float:
    """A number even where a network's weights or inputs are all zero."""
    number = float(value)
    return number if torch.isfinite(value) else otherwise
