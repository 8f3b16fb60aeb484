"""The observation table: features of the unit to be set next, on the same scale for every model.

Shapes: N episodes, U units, F features, M budgeted metrics.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.envs.walk import Walk
from autoprune.objective import Objective
from autoprune.space import Levels

Floats = NDArray[np.float64]

KINDS = ("attention", "mlp")
"""Kinds of units with a column of their own. A unit of any other kind has 0 in all of these columns. Its sizes,
statistics and sensitivities still describe it, so an agent that was trained on some kinds works on others."""

POINTS = 3  # levels at which sensitivities are shown: kept 2/3, 1/3 and nothing
FREQUENCIES = 3


@dataclass(frozen=True)
class Feature:
    """One row of the table. `group` is its part of a `Dict` observation: layer, sensitivity, budget or episode."""

    name: str
    meaning: str
    unit: str
    low: float
    high: float
    group: str


def _row(name: str, meaning: str, unit: str, low: float = -1.0, group: str = "layer") -> Feature:
    return Feature(name, meaning, unit, low, 1.0, group)


TABLE: tuple[Feature, ...] = (
    _row("position", "units before this one / units", "share", 0),
    _row("depth", "block / blocks", "share", 0),
    *(
        _row(f"depth_{f}_{2**k}", f"{f} of 2 pi x {2**k} x depth", "-")
        for k in range(FREQUENCIES)
        for f in ("sin", "cos")
    ),
    _row("attention", "the unit is an attention", "0 or 1", 0),
    _row("mlp", "the unit is an MLP", "0 or 1", 0),
    _row("groups", "log2 of its groups / 20", "share", 0),
    _row("group_params", "log2 of the parameters of one group / 30", "share", 0),
    _row("levels", "its levels / levels of the unit that has most", "share", 0),
    _row("params_share", "its share of all units' parameters", "share", 0),
    _row("macs_share", "its share of all units' MACs", "share", 0),
    _row("weight_norm", "root mean square of its weights", "z-score of log / 3"),
    _row("weight_spread", "spread of its groups' norms", "z-score / 3"),
    _row("weight_kurtosis", "kurtosis of its weights", "z-score of log / 3"),
    _row("pq_index", "PQ-index of its groups' norms (compressibility)", "index", 0),
    _row("activation_norm", "root mean square of the consumer's inputs", "z-score of log / 3"),
    _row("activation_rank", "participation ratio of these inputs", "share", 0),
    _row("error_75", "output error of the consumer with 3/4 kept", "share", 0),
    _row("error_50", "with 1/2 kept", "share", 0),
    _row("error_25", "with 1/4 kept", "share", 0),
    *(
        _row(f"sensitivity_{i + 1}", f"loss that level {i + 1}/{POINTS} of this unit alone adds", "z-score of log / 3",
             group="sensitivity")
        for i in range(POINTS)
    ),
    _row("reference", "share that the reference policy keeps of it", "share", 0, group="sensitivity"),
    _row("used", "budget spent by the units set, most of any metric", "share of budget", 0, group="budget"),
    _row("room", "budget that it may use at most, least of any metric", "share of budget", 0, group="budget"),
    _row("to_come", "cost of it and the units to come if dense", "share of dense", 0, group="budget"),
    _row("pace", "common share of all units to come that would meet the budget", "share", 0, group="budget"),
    _row("sparsest", "least it may keep now", "share", 0, group="budget"),
    _row("densest", "most it may keep now", "share", 0, group="budget"),
    _row("previous", "share that the previous step kept; 1 at the first", "share", 0, group="episode"),
    _row("loss", "loss so far over dense / (4 x uniform over dense), if paid at every step", "share", 0,
         group="episode"),
)  # fmt: skip

NAMES = tuple(feature.name for feature in TABLE)
GROUPS = tuple(dict.fromkeys(feature.group for feature in TABLE))
LOW_F = np.array([feature.low for feature in TABLE], dtype=np.float32)
HIGH_F = np.array([feature.high for feature in TABLE], dtype=np.float32)


class Observer:
    """Computes the table.

    Args:
        objective: gives the units and their statistics.
        added_UL: single-unit sensitivities, nats per token; None where they were not measured.
        reference: the policy that the `reference` column shows.
    """

    def __init__(self, objective: Objective, added_UL: Floats | None, reference: Levels) -> None:
        n_units = len(objective.space.units)
        columns = _shape_columns(objective) | _statistics_columns(objective)
        if added_UL is not None:
            columns |= _sensitivity_columns(objective, added_UL)
        columns["reference"] = objective.space.density_UL[np.arange(n_units), list(reference)]
        self.static_UF = np.zeros((n_units, len(TABLE)))
        for name, values_U in columns.items():
            self.static_UF[:, NAMES.index(name)] = values_U

    def observe(self, walk: Walk, running_N: Floats) -> NDArray[np.float32]:
        """The table for the unit to be set next in every episode, `[N, F]` float32.

        Args:
            running_N: (loss so far - dense) / (uniform - dense); 0 where it is not known.
        """
        u = walk.unit
        observed_NF = np.repeat(self.static_UF[[u]], walk.episodes, axis=0)
        allowed_NL, density_L = walk.allowed(), walk.density_UL[u]
        pace_NM = walk.left() / np.maximum(walk.to_come_MU[:, u], walk.slack_M)
        dynamic = {
            "used": (walk.used_NM / np.maximum(walk.bound_M, walk.slack_M)).max(axis=1),
            "room": walk.room().min(axis=1),
            "to_come": (walk.to_come_MU[:, u] / walk.dense_M).mean(),
            "pace": pace_NM.min(axis=1),
            "sparsest": np.where(allowed_NL, density_L, np.inf).min(axis=1),
            "densest": np.where(allowed_NL, density_L, -np.inf).max(axis=1),
            "previous": walk.density_UL[walk.step - 1, walk.levels_NU[:, walk.step - 1]] if walk.step else 1.0,
            "loss": running_N / 4,
        }
        for name, values_N in dynamic.items():
            observed_NF[:, NAMES.index(name)] = values_N
        return np.clip(observed_NF.astype(np.float32), LOW_F, HIGH_F)


def split(observed_F: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """A `Dict` observation: the table's groups, each `[..., features of the group]`."""
    return {group: observed_F[..., columns_of(group)] for group in GROUPS}


def columns_of(group: str) -> list[int]:
    """The table's rows that make up one group."""
    return [i for i, feature in enumerate(TABLE) if feature.group == group]


def _shape_columns(objective: Objective) -> dict[str, Floats]:
    units = objective.space.units
    blocks = max(unit.block for unit in units) + 1
    depth_U = np.array([unit.block / blocks for unit in units])
    columns = {
        "position": np.arange(len(units)) / len(units),
        "depth": depth_U,
        **{kind: np.array([float(unit.kind == kind) for unit in units]) for kind in KINDS},
        "groups": np.log2([unit.groups for unit in units]) / 20,
        "group_params": np.log2([max(1, unit.group_params) for unit in units]) / 30,
        "levels": objective.space.n_levels_U / objective.space.n_levels_U.max(),
        "params_share": _shares([unit.params(unit.groups) for unit in units]),
        "macs_share": _shares([unit.macs(unit.groups, objective.tokens_per_sequence) for unit in units]),
    }
    for k in range(FREQUENCIES):
        columns[f"depth_sin_{2**k}"] = np.sin(2 * np.pi * 2**k * depth_U)
        columns[f"depth_cos_{2**k}"] = np.cos(2 * np.pi * 2**k * depth_U)
    return columns


def _statistics_columns(objective: Objective) -> dict[str, Floats]:
    known = objective.statistics
    if not known:
        return {}
    errors = {
        f"error_{percent}": np.array(
            [
                np.interp(1 - percent / 100, 1 - density_L[: len(one.output_errors)], one.output_errors)
                for density_L, one in zip(objective.space.density_UL, known, strict=True)
            ]
        )
        for percent in (75, 50, 25)
    }
    return errors | {
        "weight_norm": standard(_log([one.weight_rms for one in known])),
        "weight_spread": standard(np.array([one.weight_spread for one in known])),
        "weight_kurtosis": standard(_log([one.weight_kurtosis for one in known])),
        "pq_index": np.array([one.pq_index for one in known]),
        "activation_norm": standard(_log([one.activation_rms for one in known])),
        "activation_rank": np.array([one.activation_rank for one in known]),
    }


def _sensitivity_columns(objective: Objective, added_UL: Floats) -> dict[str, Floats]:
    last_U = objective.space.n_levels_U - 1
    columns = {}
    for i in range(POINTS):
        level_U = np.round(last_U * (i + 1) / POINTS).astype(int)
        columns[f"sensitivity_{i + 1}"] = standard(_log(added_UL[np.arange(len(last_U)), level_U]))
    return columns


def standard(values_U: Floats) -> Floats:
    """z-scores over the units, divided by 3 and clipped to [-1, 1]; 0 where all are equal."""
    spread = float(values_U.std())
    return np.clip((values_U - values_U.mean()) / spread / 3, -1, 1) if spread > 1e-12 else np.zeros_like(values_U)


def _log(values: list[float] | Floats) -> Floats:
    """Logarithms that small or zero values do not dominate: a thousandth of the mean is added."""
    array = np.maximum(np.asarray(values, dtype=np.float64), 0)
    return np.asarray(np.log(array + 1e-3 * array.mean() + 1e-12))


def _shares(values: list[int]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    return np.asarray(array / max(1e-300, array.sum()))
