"""Several sources in one order, in which every piece has the shares of the whole.

A weight is the share of the sequences that a source gives: of `a=1` and `b=3` one of four sequences is of `a`. No
sequence is read twice, so the source that runs out first ends the mix. Without weights everything is read, and the
shares are those of the sizes.
"""

from collections.abc import Sequence


def interleaved(sizes: Sequence[int], weights: Sequence[float] | None) -> list[tuple[int, int]]:
    """Pairs of source and number of its sequence. After n of them, each source has its share of n, to less than one.

    Args:
        sizes: number of sequences of each source.
        weights: their shares; None is by size.
    """
    shares = [float(size) for size in sizes] if weights is None else list(weights)
    total = sum(shares)
    taken = [0] * len(sizes)
    order: list[tuple[int, int]] = []
    while total:
        owed = [share * (len(order) + 1) / total - have for share, have in zip(shares, taken, strict=True)]
        which = max(range(len(sizes)), key=owed.__getitem__)
        if taken[which] == sizes[which]:
            break
        order.append((which, taken[which]))
        taken[which] += 1
    return order


def told_of_mix(names: Sequence[str], sizes: Sequence[int], weights: Sequence[float] | None) -> list[str]:
    """How many sequences of each source are in the mix."""
    order = interleaved(sizes, weights)
    taken = [sum(1 for which, _ in order if which == i) for i in range(len(names))]
    counts = ", ".join(
        f"{have:,} of {size:,} of '{name}'" for name, have, size in zip(names, taken, sizes, strict=True)
    )
    told = f"the sequences are {counts}"
    if weights is None:
        return [f"{told}."]
    first = next((name for name, have, size in zip(names, taken, sizes, strict=True) if have == size), None)
    return [
        f"{told}{f': more of {first!r} would let the others give more' if first and sum(taken) < sum(sizes) else ''}."
    ]
