"""The share of a network that is in units, and what is outside. A budget on units bounds nothing outside of them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from autoprune.networks.blocks import BlockView
from autoprune.space import SearchSpace

LEAST = 0.01  # of the parameters: less that is left out is told together
SHOWN = 0.001  # of the parameters: less would be shown as 0.0%
FEW = 0.5  # of the network: if units are less, it is a warning


@dataclass(frozen=True)
class Left:
    """Layers that are left out for one reason.

    Args:
        why: the reason, as the end of a sentence that begins with "layers" or "layer".
        layers: how many.
        params: their share of the network's parameters.
    """

    why: str
    layers: int
    params: float


@dataclass(frozen=True)
class Coverage:
    """The share of a network that is in units.

    Args:
        units: how many.
        shares: metric -> share of the whole network that can be pruned.
        left: what is outside of the units, the largest share first.
    """

    units: int
    shares: Mapping[str, float]
    left: Sequence[Left]

    def told(self) -> str:
        """The coverage in one or two sentences."""
        shares = [f"{share:.0%} of its {metric}" for metric, share in self.shares.items()]
        told = f"{self.units} unit{'s'[: self.units - 1]} of the network can be pruned: {_listed(shares)}"
        left = [_layers(one) for one in self.left]
        return f"{told}. Left as they are: {'; '.join(left)}." if left else f"{told}."

    def warning(self, of: str = "prunable") -> str | None:
        """A warning where units are the smaller part of a metric; otherwise None. `of` is what budgets are of."""
        few = [f"{share:.0%} of the network's {metric}" for metric, share in self.shares.items() if share < FEW]
        if not few:
            return None
        if of == "model":
            return f"what can be pruned is only {_listed(few)}: nothing else can be removed."
        return f"what can be pruned is only {_listed(few)}: a budget on units bounds that part alone."


def cover(view: BlockView, space: SearchSpace, params: int, macs: float) -> Coverage:
    """Compare units with the whole network.

    Args:
        view: the dense network.
        space: its units and their costs.
        params: of the whole network.
        macs: of the whole network, as the space's metric counts.
    """
    whole = {"params": float(params), "macs": macs}
    shares = {}
    for metric in dict.fromkeys(["params", "macs", *space.budgets]):
        if metric not in space.peaks:
            dense = space.cost(space.dense, metric)
            total = whole.get(metric, dense)
            shares[metric] = min(1.0, (dense - space.fixed.get(metric, 0.0)) / total) if total else 0.0
    layers: dict[str, list[int]] = defaultdict(list)
    ends = any(unit.block == len(view.blocks) for unit in space.units)
    for why, size in _outside(view, ends):
        layers[why].append(size)
    found = [Left(why, len(sizes), sum(sizes) / params) for why, sizes in layers.items()]
    most = sorted((one for one in found if one.params >= LEAST), key=lambda one: -one.params)
    rest = [one for one in found if one.params < LEAST]
    small = [Left("of small size", sum(one.layers for one in rest), sum(one.params for one in rest))] if rest else []
    return Coverage(len(space.units), shares, [*most, *small])


def _outside(view: BlockView, ends: bool) -> Iterator[tuple[str, int]]:
    """Why, and parameters, of each module that no unit takes anything of. `ends`: embeddings and head are units."""
    widths = [width for row in (*view.widths, view.ends if ends else []) for width in row]
    inside = {id(module) for width in widths for module in width.modules()}
    seen: set[int] = set()
    for path, module in view.model.named_modules():
        own = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in seen}
        seen |= own.keys()
        if own and id(module) not in inside:
            yield _why(view, path, module), sum(own.values())


def _why(view: BlockView, path: str, module: nn.Module) -> str:
    if isinstance(module, nn.Embedding):
        return "of embeddings"
    return view.left_out(path, module)


def _layers(one: Left) -> str:
    share = f"{one.params:.1%}" if one.params >= SHOWN else f"less than {SHOWN:.1%}"
    return f"{one.layers} layer{'s' * (one.layers != 1)} {one.why} ({share} of the params)"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
