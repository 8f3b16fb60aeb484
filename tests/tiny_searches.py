"""A tiny network of every registered family with something to read, ready to be searched and exported.

What contracts over families share: a family that is registered is in all of them, if there is a tiny network of it in
`families.py` or `image_families.py`.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from autoprune import registry
from autoprune.networks.loading import family_of
from autoprune.networks.modules import family_of_module
from tests import families, image_families

SPLITS = {"reconstruction_sequences": 8, "search_sequences": 3, "validation_sequences": 3, "levels": 4}
TEXT = {"sequence_length": 16, "budgets": {"params": 0.6}}
IMAGES = {"sequence_length": 8, "budgets": {"macs": 0.7}}

PLAIN = """
import sys
sys.path.insert(0, {root!r})
from tests import image_families

def network():
    return image_families.tiny_model({name!r})
"""
"""A user's file whose function makes a plain module."""


@functools.cache
def networks() -> dict[str, str]:
    """Family -> the tiny network that stands for it."""
    found = {}
    for name in reversed(image_families.names()):
        model = image_families.tiny_model(name)
        plain = name in image_families.PLAIN
        found[(family_of_module(model) if plain else family_of(model.config.model_type)).name] = name
    for family in (registry.load("families", name) for name in registry.names("families")):
        if family.task == "text":
            found[family.name] = next((t for t in family.model_types if t == family.name), family.model_types[0])
    return found


def settings(name: str, folder: Path, text: str, **shape: Any) -> dict[str, Any]:
    """Settings of a search of a tiny network, as `load_config` and `autoprune.search` take them.

    Args:
        name: of the network, in `families.names()` or `image_families.names()`.
        folder: where the network and its images are written.
        text: a text file.
        shape: configuration of a language model that differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name in families.names():
        return {"model": str(families.save_tiny(name, folder / name, **shape)), "data": text, **SPLITS, **TEXT}
    if name in image_families.PLAIN:
        file = folder / f"{name.replace('-', '_')}.py"
        file.write_text(PLAIN.format(root=str(Path(__file__).parent.parent), name=name), encoding="utf-8")
        model = f"{file}:network"
    else:
        image_families.tiny_model(name).save_pretrained(folder / name)
        model = str(folder / name)
    data, side = folder / "images.npz", image_families.SIDE
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (128, side, side, 3), dtype=np.uint8)
    np.savez(data, images=images, labels=rng.integers(0, image_families.CLASSES, len(images)))
    return {"model": model, "data": str(data), **SPLITS, **IMAGES}
