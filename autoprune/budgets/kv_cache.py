"""Bytes of the cache of keys and values for one token, of all layers, in the dtype that the network computes in.

Families without a cache, as those of images, have nothing to count.
"""

from autoprune.errors import UserError
from autoprune.level import Level, form_of
from autoprune.ports.metric import Metric, Network, of_network
from autoprune.space import Unit
from autoprune.workload import Workload


class Cache(Metric):
    """Bytes of cache.

    Args:
        itemsize: bytes of an entry.
    """

    def __init__(self, itemsize: int) -> None:
        self._itemsize = itemsize

    def __call__(self, unit: Unit, level: Level, workload: Workload) -> float:
        """Bytes of a unit's keys and values for one token at a level."""
        form = form_of(level)
        return 0.0 if form.drops(level) else form.cache(unit, level) * self._itemsize

    @property
    def whole(self) -> bool:
        """Only units have a cache: the total is of the whole network."""
        return True

    @property
    def measure(self) -> str:
        """Bytes for each token."""
        return "B/token"


@of_network
def kv_cache(network: Network) -> Cache:
    """The metric of a network.

    Raises:
        UserError: no unit has a cache of keys and values.
    """
    if not any(unit.group_cache for unit in network.units):
        raise UserError("the budget kv_cache bounds the cache of keys and values, and no unit of this network has one.")
    return Cache(network.itemsize or 2)
