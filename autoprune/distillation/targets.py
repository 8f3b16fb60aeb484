"""The setting `distill`: names of distillations with their shares, as `kl` or `kl,hidden-mse=0.5`."""

import functools
import math
from dataclasses import dataclass

from autoprune import registry, usercode
from autoprune.errors import UserError
from autoprune.ports.distillation import Distillation


@dataclass(frozen=True)
class Target:
    """One distillation of a training.

    Args:
        name: as it was given.
        share: it counts so many times.
        distillation: the part.
    """

    name: str
    share: float
    distillation: Distillation


@functools.lru_cache(maxsize=16)
def targets_of(written: str) -> tuple[Target, ...]:
    """The distillations of a setting, in the order given.

    Raises:
        UserError: a name is unknown or given twice, or a share is no number above 0.
    """
    found: list[Target] = []
    for part in written.split(","):
        name, separator, number = (piece.strip() for piece in part.partition("="))
        if not name:
            raise UserError(f"distill='{written}' lacks a name: give names with commas, as kl,hidden-mse=0.5.")
        if any(name == target.name for target in found):
            raise UserError(f"distill='{written}' names {name} twice: give it once.")
        loaded = registry.load("distillations", name)
        part_of = usercode.call("distillation", loaded) if isinstance(loaded, type) else loaded
        if not isinstance(part_of, Distillation):
            raise UserError(f"the distillation '{name}' is no subclass of autoprune.extend.Distillation.")
        found.append(Target(name, _share(number, part) if separator else 1.0, part_of))
    return tuple(found)


def _share(number: str, part: str) -> float:
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not 0 < share < math.inf:
        raise UserError(f"the share in distill='{part.strip()}' must be a number above 0, as hidden-mse=0.5.")
    return share
