"""What a form is asked about when it says which levels a unit has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoprune.config import SearchConfig
    from autoprune.cutting.live import LiveWidth
    from autoprune.networks.blocks import BlockView
    from autoprune.unit import Unit


@dataclass(frozen=True)
class Offer:
    """A unit without levels, and what a form may look at to give it some.

    Args:
        unit: the unit, whose only level is the dense one.
        width: the live width, dense, with the groups in their own order.
        view: the network that it is of.
        config: the settings of the search.
        argument: what the user wrote behind the form's name; empty where nothing.
        round_to: levels keep multiples of this many groups.
    """

    unit: "Unit"
    width: "LiveWidth"
    view: "BlockView"
    config: "SearchConfig"
    argument: str = ""
    round_to: int = 1

    @property
    def fractions(self) -> Sequence[float]:
        """The fractions of a unit that the setting `levels` asks for, largest first: 1 is dense, 0 is nothing."""
        return self.config.fractions()
