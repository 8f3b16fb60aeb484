"""What a user may not have meant, and is told before a search begins: a budget that bounds nothing, smaller splits."""

import warnings
from collections.abc import Iterator

from autoprune.assembly import Assembly
from autoprune.calibration.text import SHARES
from autoprune.space import SLACK
from autoprune.wording import words

GUESSED = 8
"""Samples of images that the dense network is tried on."""


def warn(assembly: Assembly) -> None:
    """Warn of everything that `cautions` finds."""
    for caution in cautions(assembly):
        warnings.warn(caution, UserWarning, stacklevel=3)


def cautions(assembly: Assembly) -> Iterator[str]:
    """A sentence for each."""
    yield from _loose_budgets(assembly)
    yield from _smaller_splits(assembly)


def foreign_labels(assembly: Assembly) -> Iterator[str]:
    """A sentence where the dense network is right no more often than a guess: its accuracy then says nothing."""
    if assembly.loaded.family.task != "images":
        return
    some_NT = assembly.splits.search[:GUESSED]
    errors = assembly.evaluator(some_NT, "error", once=True).score([assembly.space.dense], range(len(some_NT)))
    labels: list[int] = assembly.view.labels(some_NT.to(assembly.config.device)).flatten().tolist()
    accuracy, kinds = 1 - float(errors.mean()), len(set(labels))
    if accuracy * kinds <= 1:
        yield (
            f"the dense network names {accuracy:.1%} of the images as their labels do, no more than a guess among "
            f"{kinds} would: see that the labels number the classes as the network does, and that image_mean and "
            "image_std are those that it was trained with."
        )


def _loose_budgets(assembly: Assembly) -> Iterator[str]:
    space = assembly.space
    dense = {metric: space.cost(space.dense, metric) for metric in space.budgets}
    loose = {metric: bound for metric, bound in space.budgets.items() if bound >= dense[metric] * (1 - SLACK)}
    whole = {"params": assembly.loaded.n_params}
    for metric, bound in loose.items():
        besides = f" (of {whole[metric]:,} in the whole network)" if metric in whole else ""
        yield (
            f"the budget {metric}={_exact(bound)} bounds nothing: the dense network has {_exact(dense[metric])} that "
            f"count{besides}. Give less, or a share, as {metric}=0.5."
        )
    if len(loose) == len(space.budgets):
        yield "no budget bounds anything, so that nothing need be pruned: the dense network is an answer."


def _smaller_splits(assembly: Assembly) -> Iterator[str]:
    config, splits = assembly.config, assembly.splits
    sizes = {name: len(getattr(splits, name)) for name in SHARES}
    asked = {name: getattr(config, f"{name}_sequences") for name in SHARES}
    smaller = [f"{name} has {size} of {asked[name]}" for name, size in sizes.items() if size < (asked[name] or 0)]
    if smaller:
        said = words(assembly.space.task)
        yield (
            f"the data hold too few {said.sample}s for all that are asked for: {', '.join(smaller)}. "
            f"Give more with --data, or ask for fewer."
        )


def _exact(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.6g}"
