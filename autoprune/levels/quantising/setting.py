"""Reads what stands behind `bits` in the setting `forms`, and the options of levels.

bits                       8, 6, 5, 4, 3 and 2 bits
bits:8/4/3                 these alone
bits:4/3/group=64          64 weights of a row share a scale
bits:4/symmetric           grids with zero in the middle
bits:4/act-order           columns are rounded in the order of their moments
"""

from dataclasses import dataclass, field

from autoprune.errors import UserError
from autoprune.level import Level
from autoprune.levels.quantising.storage import BITS, GROUP, Grid, check_bits

LEAST_GROUP, MOST_GROUP = 8, 4096
HOW = "as in bits:8/4/3/group=64/symmetric/act-order"


@dataclass(frozen=True)
class Setting:
    """What a user asks of the form.

    Args:
        bits: the numbers of bits, most first.
        group: columns that share a scale, at most.
        symmetric: whether grids have their zero in the middle.
        by_importance: whether columns are rounded in the order of their moments.
    """

    bits: tuple[int, ...] = BITS
    group: int = GROUP
    symmetric: bool = False
    by_importance: bool = False

    def options(self, bits: int) -> tuple[tuple[str, int], ...]:
        """The options of a level: those that are not the default follow the bits."""
        own = {"group": self.group if self.group != GROUP else 0, "symmetric": int(self.symmetric)}
        own["act_order"] = int(self.by_importance)
        return (("bits", bits), *((name, value) for name, value in own.items() if value))


@dataclass
class _Read:
    bits: list[int] = field(default_factory=list)
    group: int = GROUP
    symmetric: bool = False
    by_importance: bool = False


def read(argument: str) -> Setting:
    """The setting in a text.

    Raises:
        UserError: it has a word or a number that is not offered.
    """
    found = _Read()
    for part in filter(None, (part.strip() for part in argument.split("/"))):
        name, _, value = part.partition("=")
        if name.isdecimal() and not value:
            found.bits.append(check_bits(name))
        elif name == "bits":
            found.bits.append(check_bits(value))
        elif name == "group":
            found.group = _group(value)
        elif part == "symmetric":
            found.symmetric = True
        elif part in ("act-order", "act_order"):
            found.by_importance = True
        else:
            raise UserError(
                f"the form bits has no setting '{part}': write bits, group, symmetric and act-order, {HOW}."
            )
    bits = tuple(sorted(set(found.bits), reverse=True)) or BITS
    return Setting(bits, found.group, found.symmetric, found.by_importance)


def grid_of(level: Level) -> Grid:
    """The grid of a level."""
    options = dict(level.options)
    return Grid(int(options["bits"]), int(options.get("group", GROUP)), bool(options.get("symmetric", 0)))


def by_importance(level: Level) -> bool:
    """Whether its columns are rounded in the order of their moments."""
    return bool(dict(level.options).get("act_order", 0))


def _group(value: str) -> int:
    if not value.isdecimal() or not LEAST_GROUP <= int(value) <= MOST_GROUP:
        raise UserError(
            f"group={value} is no number of weights that share a scale: {LEAST_GROUP} to {MOST_GROUP}, {HOW}."
        )
    return int(value)
