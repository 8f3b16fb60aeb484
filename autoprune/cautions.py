"""Warnings about settings that are probably mistakes, such as a budget that bounds nothing."""

import warnings
from collections.abc import Iterator

from autoprune import live
from autoprune.assembly import Assembly
from autoprune.data.splits import SHARES
from autoprune.space import SLACK
from autoprune.whole import whole_network
from autoprune.wording import OF_UNITS

TINY = 0.01  # of dense
NOTHING = " So nothing need be pruned, and the dense network is an answer."


def warn(assembly: Assembly) -> None:
    """Print every sentence of `cautions` as a warning."""
    for caution in cautions(assembly):
        warnings.warn(caution, UserWarning, stacklevel=3)


def cautions(assembly: Assembly) -> Iterator[str]:
    """One sentence for each caution."""
    yield from _loose_budgets(assembly)
    yield from _tiny_budgets(assembly)
    yield from _smaller_splits(assembly)


def _loose_budgets(assembly: Assembly) -> Iterator[str]:
    space = assembly.space
    dense = {metric: space.cost(space.dense, metric) for metric in space.budgets}
    loose = {metric: bound for metric, bound in space.budgets.items() if bound >= dense[metric] * (1 - SLACK)}
    whole: dict[str, float] = {}
    if assembly.config.of == "prunable" and loose.keys() & OF_UNITS.keys():
        assembly.placer.place(space.dense)
        whole = whole_network(assembly, assembly.task)
    all_loose = len(loose) == len(space.budgets)
    for i, (metric, bound) in enumerate(loose.items(), 1):
        called, besides = live.shown(metric), ""
        meant = f"Give less, or a share, as {called}=0.5."
        if metric in whole:
            besides = f" (of {_exact(whole[metric])} in the whole network)"
            if assembly.config.budgets[metric] > 1 and bound < whole[metric] * (1 - SLACK):
                meant = f"Give less, or --of model if the bound is meant for the whole network, or {metric}=0.5."
        yield (
            f"the budget {called}={_exact(bound)} bounds nothing: the dense network has {_exact(dense[metric])} that "
            f"count{besides}.{NOTHING if all_loose and i == len(loose) else ''} {meant}"
        )


def _tiny_budgets(assembly: Assembly) -> Iterator[str]:
    """Shares below 1 %, which are 50 % written as 0.5% perhaps."""
    for metric, bound in assembly.config.budgets.items():
        if 0 < bound < TINY:
            share = f"{100 * bound:.3g}%"
            called = live.shown(metric)
            yield f"the budget {called}={share} keeps next to nothing: a half is {called}=0.5 or {called}=50%."


def _smaller_splits(assembly: Assembly) -> Iterator[str]:
    config, splits = assembly.config, assembly.splits
    sizes = {name: len(getattr(splits, name)) for name in SHARES}
    asked = config.split_sizes()
    smaller = [f"{name} has {size} of {asked[name]}" for name, size in sizes.items() if size < (asked[name] or 0)]
    if smaller:
        said = assembly.space.words
        yield (
            f"the data hold too few {said.sample}s for all that are asked for: {', '.join(smaller)}. "
            f"Give more with --data, or ask for fewer."
        )


def _exact(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.6g}"
