"""What is said where a search found nothing better than the uniform policy, and what may help."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.config import SearchConfig

MORE = 4  # times of a limit, as advice
LIMITS = ("max_tokens", "max_evals", "max_time")


def not_below_uniform(
    rows: Sequence[Mapping[str, Any]], config: SearchConfig, found: float | None = None
) -> str | None:
    """The sentence; None where the best policy is better, or where nothing was searched.

    Args:
        rows: of the final table, as `result.json` has them.
        config: of the search.
        found: the loss of the best policy without its refit, which the uniform one has not; None if it has no refit.
    """
    losses = {row["name"]: row["validation_loss"] for row in rows}
    dense, uniform, best = (losses.get(name) for name in ("dense", "uniform", "best"))
    best = best if found is None else found
    if dense is None or uniform is None or best is None or config.agent == "uniform":
        return None
    if best < uniform or uniform <= dense or not math.isfinite(uniform):
        return None
    limits = {name: value for name in LIMITS if (value := getattr(config, name)) is not None}
    more = " or ".join(f"--{name.replace('_', '-')} {MORE * value:.0f}" for name, value in limits.items())
    had = ", ".join(f"{value:,.0f}" for value in limits.values())
    advice = (
        f"Give the search more evaluations: {more} (now {had}), or take another agent."
        if limits
        else "Search longer, or with another agent."
    )
    if best == uniform:
        nothing = f"The search found nothing better than the uniform policy (loss {best:.4f} on the validation split)."
        return f"{nothing} {advice}"
    return (
        f"The best policy is not below the uniform one on the validation split: loss {best:.4f}, uniform "
        f"{uniform:.4f}. {advice}"
    )
