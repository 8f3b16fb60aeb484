"""How to fine-tune: one frozen record, with defaults for kinds of networks, for all weights and for adapters."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from autoprune.errors import UserError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeast0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeast1 = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class TrainingSettings:
    """How to fine-tune. The defaults here are those of networks with BatchNorm; `settings_of` has the others.

    Args:
        epochs: passes over the sequences or images; with 0 there is the refit alone, None is as many as limits allow.
        max_steps: at most.
        max_tokens: trained on at most; of images these.
        max_time: seconds of training at most.
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

    epochs: Annotated[int, Field(ge=0)] | None = None
    max_steps: AtLeast1 | None = None
    max_tokens: AtLeast1 | None = None
    max_time: Positive | None = None
    refit: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    lora: Annotated[int, Field(ge=0)] = 0
    alpha: Positive = 16.0
    lr: Positive = 0.05
    batch: AtLeast1 = 128
    at_once: Annotated[int, Field(ge=0)] = 0
    weight: Share = 0.5
    temperature: Positive = 4.0
    decay: AtLeast0 = 5e-4
    warmup: Share = 0.0
    clip: AtLeast0 = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    augment: bool = True

    def steps(self, count: int, tokens: int) -> int | None:
        """Steps of the whole training; None where time alone ends it.

        Args:
            count: examples to learn from.
            tokens: of an example; 1 of an image.

        Raises:
            UserError: the limit on tokens is less than those of one step.
        """
        of_epoch = math.ceil(count / self.batch)
        bounds = [] if self.epochs is None else [of_epoch * self.epochs]
        bounds += [] if self.max_steps is None else [self.max_steps]
        if self.max_tokens is not None:
            last = count - self.begins(of_epoch - 1, count)
            epochs, left = divmod(self.max_tokens // tokens, (of_epoch - 1) * self.batch + last)
            bounds.append(epochs * of_epoch + left // self.batch)
            if not bounds[-1] and self.epochs != 0:
                raise UserError(
                    f"max_tokens={self.max_tokens} are fewer than a step takes, {min(self.batch, count) * tokens:,}: "
                    f"raise it, or take fewer examples a step than batch={self.batch}."
                )
        return min(bounds, default=None)

    def begins(self, index: int, count: int) -> int:
        """The first example of an epoch's step; BatchNorm needs two, so no step is of a single one, unless all are."""
        return max(0, min(index * self.batch, count - min(2, self.batch)))


LAYERNORM: dict[str, Any] = {"lr": 3e-4, "decay": 0.0, "warmup": 0.1, "clip": 1.0, "optimizer": "adamw"}
"""What is different from the record's own for networks without BatchNorm."""
ENDS = ("epochs", "max_steps", "max_tokens", "max_time")
ADAPTERS: dict[str, Any] = {"lr": 3e-3, "decay": 0.0, "optimizer": "adamw"}
"""What is different again for adapters, which take larger steps."""


def settings_of(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> TrainingSettings:
    """Settings that were given over the defaults of a network.

    Args:
        defaults: what its task has set otherwise than the record (`TrainingSet.defaults`).
        given: by name; `epochs` or a limit is among them.

    Raises:
        UserError: no such setting (with near misses), or not such a value, or nothing says when to end.
    """
    known = [field.name for field in fields(TrainingSettings)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
            raise UserError(f"fine-tuning has no setting '{name}'. {hint}")
    if all(given.get(name) is None for name in ENDS):
        raise UserError(f"nothing says how long to fine-tune: give one of {', '.join(ENDS)}.")
    try:
        chosen = {**defaults, **(ADAPTERS if given.get("lora") else {}), **given}
        return TypeAdapter(TrainingSettings).validate_python(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"the setting {where} of fine-tuning: {first['msg']} (got {first['input']!r}).") from error
