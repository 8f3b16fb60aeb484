"""Settings of what the dense network and the labels teach: what they mean together, and which exclude each other."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoprune.distillation.targets import targets_of
from autoprune.errors import UserError

if TYPE_CHECKING:
    from autoprune.training.settings import TrainingSettings

LABELS = "labels"
"""Another way to write `weight`: the share of the labels, 1 - weight."""
UNTAUGHT: Mapping[str, Any] = {
    "distill": "kl", "top_k": 0, "cached": False, "separate_documents": False, "answers_only": False,
}  # fmt: skip
"""What the settings were before they existed."""


def with_labels(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with `labels`, the share of the cross-entropy against the labels, written as `weight`.

    Raises:
        UserError: both are given, or it is no share.
    """
    named = dict(given)
    if LABELS not in named:
        return named
    share = named.pop(LABELS)
    if named.get("weight") is not None:
        raise UserError(
            f"labels={share} and weight={named['weight']} are the same setting (weight is 1 - labels): one."
        )
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise UserError(f"labels is the share of the cross-entropy, from 0 to 1 (got {share!r}).")
    return named | {"weight": 1.0 - share}


def check_teaching(settings: "TrainingSettings", given: Mapping[str, Any]) -> None:
    """Refuse settings that exclude each other, before any work.

    Raises:
        UserError: a distillation is unknown, or a setting would have no effect.
    """
    targets = targets_of(settings.distill)
    if settings.weight == 0 and any(given.get(name) for name in ("distill", "top_k", "cached")):
        raise UserError("the labels alone teach with weight=0 (labels=1): leave distill, top_k and cached.")
    if settings.top_k and all(target.distillation.of_blocks for target in targets):
        raise UserError(f"top_k={settings.top_k} is of logits, and distill={settings.distill} compares none: leave it.")
    if settings.cached and not settings.top_k:
        raise UserError("cached=true keeps the dense network's most likely classes on disk: say how many, as top_k=64.")
    if settings.cached and any(target.distillation.of_blocks for target in targets):
        raise UserError(f"cached=true keeps logits alone, and distill={settings.distill} compares outputs of blocks.")
