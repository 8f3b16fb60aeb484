"""Global magnitude: single weights of the whole network compete by their size, with a floor for every matrix.

The network has one threshold (Han et al. 2015; Blalock et al. 2020, "global magnitude weight"). A matrix keeps at
least a share of what the level asks for (levels/threshold.py), because otherwise whole layers can collapse. Groups are
ordered as by `magnitude`.
"""

from typing import ClassVar, Literal

from autoprune.levels.magnitude import Magnitude


class GlobalMagnitude(Magnitude):
    """Order by weights alone, and compare single weights over the network."""

    compares: ClassVar[Literal["row", "matrix", "network"]] = "network"
