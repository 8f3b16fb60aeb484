"""Settings of training, with defaults for kinds of networks, for all weights and for adapters."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from autoprune.amounts import parse_count, parse_seconds
from autoprune.arguments import TRUTH, truth_astray
from autoprune.errors import UserError
from autoprune.training.teaching import LABELS, check_teaching, with_labels

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeast0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeast1 = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of training. The defaults here are for networks with BatchNorm; `settings_of` applies others.

    Args:
        epochs: passes over the sequences or images. 0 only refits; None is as many as the other limits allow.
        max_steps: limit on the number of steps.
        max_tokens: limit on the tokens, or images, trained on.
        max_time: limit on the seconds of training.
        patience: number of epochs without a smaller loss on the validation split after which training ends. The network
            of the best epoch is handed over. None trains to the end and hands over the last.
        refit: whether the consumers of pruned widths are refitted before training.
        seed: random seed of the order of examples, of shifts and mirrors, and of adapters.
        lora: rank of the adapters that are trained instead of the weights; 0 trains all weights.
        norms_only: whether norms, biases and scales alone are trained (Zimmer et al. 2023, "PERP").
        save_adapters: whether the adapters are also saved apart, in peft's format, beside the network without them.
        alpha: adapters count `alpha / lora` times (Hu et al. 2021, sec. 4.1).
        lr: the highest learning rate.
        batch: number of sequences or images in a step; of each worker, and for each time that `accumulate` counts.
        at_once: number of sequences or images in a forward pass. Gradients of a step are summed. 0 is all of them.
        accumulate: number of batches whose gradients are summed in a step.
        workers: number of processes that share the examples of a step, each on its own GPU where there are some.
        sharding: `none` (every worker has the whole network) or `fsdp` (weights, gradients and the optimizer's state
            are spread over the workers).
        dtype: what the network computes in while it is trained. With `bfloat16` its weights, their gradients and the
            optimizer's state are float32. `auto` is bfloat16 where the dense network is in half precision.
        save_every: number of steps between two saved states. One is saved after every epoch and every few minutes, too.
        weight: weight of the distances from the dense network in the loss; the labels have the rest.
        temperature: temperature of both networks' probabilities when they are compared.
        distill: distances from the dense network, by name, as `kl` or `kl,hidden-mse=0.5` (`list distillations`).
        top_k: number of the dense network's most likely classes that are compared, with all others as one more class.
            0 compares all.
        cached: whether the dense network answers once for each text, and its answers are kept on disk. Needs `top_k`.
        separate_documents: whether no token attends to another document of its sequence.
        answers_only: whether only what the assistant says in chats is learned.
        law: the largest share of the training that measuring the validation loss on the way may take. From these losses
            it is said what more tokens would buy. 0 measures none.
        decay: weight decay.
        warmup: share of the steps in which the learning rate rises.
        clip: the largest norm of the gradient; 0 is no limit.
        optimizer: `sgd` (with Nesterov's momentum) or `adamw`.
        augment: whether images are shifted and mirrored.
    """

    epochs: Annotated[int, Field(ge=0)] | None = None
    max_steps: AtLeast1 | None = None
    max_tokens: AtLeast1 | None = None
    max_time: Positive | None = None
    patience: AtLeast1 | None = None
    refit: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    lora: Annotated[int, Field(ge=0)] = 0
    norms_only: bool = False
    save_adapters: bool = False
    alpha: Positive = 16.0
    lr: Positive = 0.05
    batch: AtLeast1 = 128
    at_once: Annotated[int, Field(ge=0)] = 0
    accumulate: AtLeast1 = 1
    workers: AtLeast1 = 1
    sharding: Literal["none", "fsdp"] = "none"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    save_every: AtLeast1 | None = None
    weight: Share = 0.5
    temperature: Positive = 4.0
    distill: str = "kl"
    top_k: Annotated[int, Field(ge=0)] = 0
    cached: bool = False
    separate_documents: bool = False
    answers_only: bool = False
    law: Share = 0.1
    decay: AtLeast0 = 5e-4
    warmup: Share = 0.0
    clip: AtLeast0 = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    augment: bool = True

    @property
    def step_examples(self) -> int:
        """Number of examples in a step, of all workers."""
        return self.batch * self.accumulate * self.workers

    def in_bfloat16(self, half: bool) -> bool:
        """Whether the network computes in bfloat16 while it is trained, if the dense network is in half precision."""
        return half if self.dtype == "auto" else self.dtype == "bfloat16"

    def steps(self, count: int, tokens: int) -> int | None:
        """The number of steps of the whole training; None if only time ends it.

        Args:
            count: number of training examples.
            tokens: number of tokens in an example; 1 for an image.

        Raises:
            UserError: the limit on tokens is smaller than one step.
        """
        of_epoch = math.ceil(count / self.step_examples)
        bounds = [] if self.epochs is None else [of_epoch * self.epochs]
        bounds += [] if self.max_steps is None else [self.max_steps]
        if self.max_tokens is not None:
            last = count - self.begins(of_epoch - 1, count)
            epochs, left = divmod(self.max_tokens // tokens, (of_epoch - 1) * self.step_examples + last)
            bounds.append(epochs * of_epoch + left // self.step_examples)
            if not bounds[-1] and self.epochs != 0:
                least = min(self.step_examples, count) * tokens
                raise UserError(
                    f"max_tokens={self.max_tokens} are fewer than a step takes, {least:,}: "
                    f"raise it, or take fewer examples a step than batch={self.batch}."
                )
        return min(bounds, default=None)

    def begins(self, index: int, count: int) -> int:
        """The first example of a step of an epoch. A step has at least two examples, because BatchNorm needs two."""
        return max(0, min(index * self.step_examples, count - min(2, self.step_examples)))


LAYERNORM: dict[str, Any] = {"lr": 3e-4, "decay": 0.0, "warmup": 0.1, "clip": 1.0, "optimizer": "adamw"}
"""Defaults for networks without BatchNorm that differ from those of the record."""
WRITTEN = {"max_steps": parse_count, "max_tokens": parse_count, "max_time": parse_seconds}
"""How limits that are written as `50k` or `10min` are read, as a search reads its own."""
ENDS = ("epochs", "max_steps", "max_tokens", "max_time")
ADAPTERS: dict[str, Any] = {"lr": 3e-3, "decay": 0.0, "optimizer": "adamw"}
"""Further defaults for adapters, which take larger steps."""


def settings_of(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> TrainingSettings:
    """Combine given settings with the defaults of a network.

    Args:
        defaults: defaults of the task for this network (`TrainingSet.defaults`).
        given: settings by name. They must include `epochs` or a limit.

    Raises:
        UserError: a setting is unknown or has a wrong value, or no setting ends the training.
    """
    known, hints = [field.name for field in fields(TrainingSettings)], get_type_hints(TrainingSettings)
    named = with_labels(given)
    given = named | {name: _written(name, text) for name in WRITTEN if isinstance(text := named.get(name), str)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, LABELS], n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
            raise UserError(f"fine-tuning has no setting '{name}'. {hint}")
        if truth_astray(given[name], hints[name]):
            raise UserError(f"the setting {name} of fine-tuning: {TRUTH} (got {given[name]!r}).")
    if all(given.get(name) is None for name in ENDS):
        raise UserError(f"nothing says how long to fine-tune: give one of {', '.join(ENDS)}.")
    try:
        chosen = {**defaults, **(ADAPTERS if given.get("lora") else {}), **given}
        settings = TypeAdapter(TrainingSettings).validate_python(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"the setting {where} of fine-tuning: {first['msg']} (got {first['input']!r}).") from error
    if settings.sharding != "none" and settings.workers == 1:
        raise UserError(f"sharding={settings.sharding} spreads a network over several workers: give --workers, too.")
    if settings.save_adapters and not settings.lora:
        raise UserError("save_adapters=true saves what --lora trains: give its rank, or leave save_adapters.")
    if settings.lora and settings.norms_only:
        raise UserError(
            f"lora={settings.lora} trains adapters alone, norms_only=true norms and biases alone: leave one of them."
        )
    check_teaching(settings, given)
    return settings


def _written(name: str, text: str) -> float:
    try:
        return WRITTEN[name](text)
    except UserError as error:
        raise UserError(f"the setting {name} of fine-tuning: {error}") from error
