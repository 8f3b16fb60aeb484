"""Whether the memory is enough for a fine-tuning, and which settings would take less."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autoprune.errors import UserError
from autoprune.training.memory import WORD, free_bytes
from autoprune.training.settings import TrainingSettings

RANK = 8
"""The rank of the adapters that are proposed."""
FULL = ("can't allocate memory", "not enough memory")
"""What torch says where a CPU has no memory left."""


def check_room(student: nn.Module, settings: TrainingSettings, free: Callable[[Any], int] = free_bytes) -> None:
    """Raise a UserError where weights, gradients and the optimizer's state alone are more than the free memory.

    Args:
        student: the network, before anything of it is made trainable.
        settings: settings of the training.
        free: returns the bytes that are free on a device.
    """
    device = next(student.parameters()).device
    available, needs = free(device), _needs(student, settings)
    if needs[_kind(settings)] <= available:
        return
    fitting = {kind: need for kind, need in needs.items() if need <= available}
    way = " or ".join(f"{kind}, which needs about {_gib(need)}" for kind, need in fitting.items())
    raise UserError(
        f"fine-tuning needs about {_gib(needs[_kind(settings)])} for weights, gradients and the optimizer's state "
        f"alone, and {_gib(available)} are free on {device}: "
        + (f"take {way}." if way else f"nothing smaller fits either{_spread(device)}.")
    )


def out_of_memory(settings: TrainingSettings, least: int, device: torch.device) -> UserError:
    """The error of a training that has run out of memory.

    Args:
        settings: settings of the training.
        least: the smallest number of examples that a forward pass can have.
        device: where it was trained.
    """
    at_once = min(settings.at_once or settings.batch, settings.batch)
    ways = [f"at_once={least}, which changes nothing but the time"] if at_once > least else []
    if not (settings.lora or settings.norms_only):
        ways += [f"lora={RANK} or norms_only=true, which need little beside the weights"]
    if settings.dtype != "bfloat16":
        ways += ["dtype=bfloat16, which halves what passes keep"]
    told = "; or ".join(ways) if ways else f"shorter sequences or a smaller network{_spread(device)}"
    return UserError(f"fine-tuning has run out of memory on {device} with {at_once} examples in a pass: take {told}.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was too small, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)


def _needs(student: nn.Module, settings: TrainingSettings) -> dict[str, int]:
    """Bytes beside the network as it is, by the setting that needs them."""
    weights = [weight for weight in student.parameters() if weight.numel()]
    held = sum(weight.numel() * weight.element_size() for weight in weights)
    whole = sum(weight.numel() for weight in weights)
    rank = settings.lora or RANK
    adapters = sum(rank * (len(weight) + weight[0].numel()) for weight in weights if weight.dim() > 1)
    norms = sum(weight.numel() for weight in weights if weight.dim() < 2)
    each = 3 if settings.optimizer == "adamw" else 2  # gradient, and one or two moments
    return {
        "all weights": WORD * whole - held + WORD * each * whole,
        f"lora={rank}": WORD * (1 + each) * adapters,
        "norms_only=true": WORD * whole - held + WORD * each * norms,
    }


def _kind(settings: TrainingSettings) -> str:
    if settings.lora:
        return f"lora={settings.lora}"
    return "norms_only=true" if settings.norms_only else "all weights"


def _spread(device: torch.device) -> str:
    more = torch.cuda.device_count() if device.type == "cuda" else 1
    return f"; --workers {more} sharding=fsdp spreads it over {more} GPUs" if more > 1 else ""


def _gib(count: int) -> str:
    return f"{count / 2**30:.2g} GiB"
