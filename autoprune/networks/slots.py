"""The slots of transformers' cache of keys and values when some layers have no attention any more.

transformers makes a slot for each layer, by its type. It reads lengths from slot 0 and masks from the first slot of a
type, so these slots must be written. Slots that are never written must not exist, because cropping them, as prompt
lookup and assisted generation do, fails.
"""

from collections.abc import Sequence
from typing import Any


def layer_types(config: Any) -> list[str]:
    """The attention type of every layer; models that do not tell have one."""
    return list(getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers)


def cache_slots(attends: Sequence[bool], types: Sequence[str]) -> list[int]:
    """The cache slot of every layer: those that attend take the first slots of their type."""
    slots = [0] * len(types)
    for kind in dict.fromkeys(types):
        places = [i for i, other in enumerate(types) if other == kind]
        for slot, layer in zip(places, sorted(places, key=lambda i: not attends[i]), strict=True):
            slots[layer] = slot
    return slots


def sharing_modes(attends: Sequence[bool], types: Sequence[str]) -> list[str | None]:
    """What transformers calls `kv_sharing_modes`: a slot marked `reuse` holds nothing of its own."""
    modes: list[str | None] = [None] * len(types)
    for attending, slot in zip(attends, cache_slots(attends, types), strict=True):
        modes[slot] = None if attending else "reuse"
    return modes


def can_cache(attends: Sequence[bool], types: Sequence[str]) -> bool:
    """Whether some layer attends from slot 0; without one, generation must go without a cache."""
    return any(attending and kind == types[0] for attending, kind in zip(attends, types, strict=True))
