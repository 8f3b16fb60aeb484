"""How to fine-tune: one frozen record, with defaults for kinds of networks, for all weights and for adapters."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from autoprune.errors import UserError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeast0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Tuning:
    """How to fine-tune. The defaults here are those of networks with BatchNorm; `tuning_of` has the others.

    Args:
        epochs: passes over the sequences or images; with 0 there is the refit alone.
        refit: whether what reads the pruned widths is solved once more before (refit.py).
        seed: of their order, of shifts and mirrors, of adapters.
        lora: rank of the adapters that are trained in the place of the weights; 0 trains all weights.
        alpha: adapters count `alpha / lora` times (Hu et al. 2021, sec. 4.1).
        lr: learning rate at its highest.
        batch: sequences or images a step.
        at_once: of them a forward pass, the gradients of a step summed up; 0 is all of them.
        weight: of the dense network's opinion, against the labels'.
        temperature: of both networks' probabilities where they are compared.
        decay: of weights.
        warmup: share of the steps on which the learning rate rises.
        clip: length that the gradient has at most; 0 is any.
        optimizer: SGD with Nesterov's momentum, or AdamW.
        augment: shift and mirror images.
    """

    epochs: Annotated[int, Field(ge=0)]
    refit: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    lora: Annotated[int, Field(ge=0)] = 0
    alpha: Positive = 16.0
    lr: Positive = 0.05
    batch: Annotated[int, Field(ge=1)] = 128
    at_once: Annotated[int, Field(ge=0)] = 0
    weight: Share = 0.5
    temperature: Positive = 4.0
    decay: AtLeast0 = 5e-4
    warmup: Share = 0.0
    clip: AtLeast0 = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    augment: bool = True


Kind = Literal["text", "images", "images-layernorm"]
"""Of networks: language models, and those that read images, with BatchNorm or without (ViT, ConvNeXt)."""

LAYERNORM: dict[str, Any] = {"lr": 3e-4, "decay": 0.0, "warmup": 0.1, "clip": 1.0, "optimizer": "adamw"}
DEFAULTS: dict[Kind, dict[str, Any]] = {
    "text": LAYERNORM | {"batch": 8, "at_once": 4, "temperature": 1.0, "augment": False},
    "images": {},
    "images-layernorm": LAYERNORM,
}
"""What is different from the record's own."""
ADAPTERS: dict[str, Any] = {"lr": 3e-3, "decay": 0.0, "optimizer": "adamw"}
"""What is different again for adapters, which take larger steps."""


def tuning_of(kind: Kind, given: Mapping[str, Any]) -> Tuning:
    """Settings that were given over the defaults of a kind of networks.

    Args:
        kind: of the network.
        given: by name; `epochs` is among them.

    Raises:
        UserError: no such setting (with near misses), or not such a value.
    """
    known = [field.name for field in fields(Tuning)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
            raise UserError(f"fine-tuning has no setting '{name}'. {hint}")
    if kind == "text" and given.get("augment"):
        raise UserError("augment shifts and mirrors images: this run is of a language model.")
    defaults = DEFAULTS[kind] | (ADAPTERS if given.get("lora") else {})
    try:
        return TypeAdapter(Tuning).validate_python({**defaults, **given})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"the setting {where} of fine-tuning: {first['msg']} (got {first['input']!r}).") from error
