"""Estimates of the memory that training takes, and which trainer of candidates fits."""

import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from autoprune.errors import UserError
from autoprune.networks.blocks import BlockView
from autoprune.ports.candidate_training import TRAINERS, CandidateTraining, Trainer

WORD = 4
"""Bytes of a weight, gradient, or number in an optimizer's state, which are float32."""
STATES = 12
"""Hidden states that a block keeps for the backward pass, in sizes of its own output."""


def free_bytes(device: str | torch.device) -> int:
    """Memory that is free on a device."""
    if torch.device(device).type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError, StopIteration):  # Linux counts its cache of files as used, this does not
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    return available


def training_bytes(student: nn.Module, view: BlockView, sequences: int, length: int, how: CandidateTraining) -> int:
    """A rough estimate of the memory for the training of one candidate.

    Args:
        student: its network.
        view: the view of the dense network.
        sequences: number of sequences, or images, in a forward pass.
        length: number of tokens in each.
        how: the trainer.
    """
    weights = [parameter for parameter in student.parameters() if parameter.numel()]
    if how.trainer == "refit":
        widest = max((weight.shape[-1] for weight in weights if weight.dim() > 1), default=0)
        return 4 * 8 * widest**2
    trained = {
        "norms": sum(weight.numel() for weight in weights if weight.dim() < 2),
        "lora": sum(how.rank * (len(weight) + weight[0].numel()) for weight in weights if weight.dim() > 1),
        "full": sum(weight.numel() for weight in weights),
    }[how.trainer]
    states = STATES * len(view.blocks) * view.state_bytes(sequences * length)
    frozen = sum(weight.numel() for weight in weights)
    return WORD * (frozen + 3 * trained) + states + view.activation_bytes(sequences, length)


def check_memory(needs: dict[Trainer, int], how: CandidateTraining, free: int) -> None:
    """Raise a UserError where the chosen trainer needs more memory than is free. It names a trainer that would fit.

    Args:
        needs: bytes that each trainer needs.
        how: with the chosen trainer.
        free: bytes that are free.
    """
    if needs[how.trainer] > free:
        raise too_little(needs, how, free)


def too_little(needs: dict[Trainer, int], how: CandidateTraining, free: int) -> UserError:
    """The error for too little memory, as of `check_memory`."""
    fitting = [name for name in reversed(TRAINERS) if needs[name] <= min(free, needs[how.trainer] - 1)]
    instead = (
        f"take trainer={fitting[0]}, which needs about {_gib(needs[fitting[0]])}"
        if fitting
        else "no trainer fits, so leave train_tokens"
    )
    return UserError(
        f"the training of a candidate with trainer={how.trainer} needs about {_gib(needs[how.trainer])}, and "
        f"{_gib(free)} are free: {instead}."
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.2g} GiB"
