"""The refit of one policy: the weights with which its network is validated and exported.

A search scores levels of the level store. Once the best policy is known, its consumers are fitted to each other on the
reconstruction split (training/refit.py). The weights are rounded to the checkpoint's dtype and kept in
`<cache>/refits/<key>/refit.safetensors`. The policy file has the hash of that file, so that the network that is
exported is the one that was validated. Where the file is gone, the refit is computed again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from autoprune.assembly import Assembly
from autoprune.calibration.moments import links_of
from autoprune.cutting.live import LiveWidth
from autoprune.errors import UserError
from autoprune.files.arrays import read_tensors
from autoprune.files.cache import cache_directory
from autoprune.files.writing import replacing
from autoprune.levels.placing import Placer
from autoprune.ports.task import Progress
from autoprune.space import Proposal
from autoprune.training.refit import place_refitted

VERSION = 1
FILE = "refit.safetensors"


@dataclass(frozen=True)
class Refitted:
    """A proposal and the weights of its consumers.

    Args:
        proposal: the levels or the mask.
        tensors: `BLOCK.NUMBER.weight`, `.bias` and `.mean` of every consumer that is kept, by its number in the block;
            where a constant or a map is in the place of a sub-block, its own.
        digest: SHA-256 of the file that holds them.
        seconds: what computing them took; 0 where they were there.
    """

    proposal: Proposal
    tensors: Mapping[str, Tensor]
    digest: str
    seconds: float = 0.0

    def place(self, placer: Placer) -> None:
        """Put the network in place, until the next is placed or the dense network released."""
        placer.place(self.proposal)
        for name, tensor in _standing(placer).items():
            if name in self.tensors:
                new = self.tensors[name]
                if new.shape != tensor.shape:
                    raise UserError(f"the refit in the cache does not fit this network: delete '{cache_directory()}'.")
                tensor.data = new.to(tensor.device, tensor.dtype)


def refit(
    assembly: Assembly,
    proposal: Proposal,
    digest: str | None = None,
    progress: Progress = lambda stage, share: None,
) -> Refitted:
    """The refit of a proposal: from the cache, or computed now.

    Args:
        assembly: its network is on the device as a whole.
        proposal: the levels or the mask.
        digest: of the file that is wanted; None takes what is there.
        progress: called with the share that is done.

    Raises:
        UserError: the reconstruction split cannot be read, or the cache cannot be written.
    """
    path = cache_directory() / "refits" / _key(assembly, proposal) / FILE
    known = _kept(path, digest)
    if known is not None:  # which needs no data
        return Refitted(proposal, known, _digest(path))
    begun = time.monotonic()
    tensors = _computed(assembly, proposal, partial(progress, "refitting"))
    _save(path, tensors)
    return Refitted(proposal, tensors, _digest(path), time.monotonic() - begun)


def _computed(assembly: Assembly, proposal: Proposal, progress: Callable[[float], None]) -> dict[str, Tensor]:
    config, dtype = assembly.config, assembly.loaded.checkpoint_dtype
    tokens_NT = assembly.splits.reconstruction.to(config.device)
    try:
        place_refitted(assembly.placer, proposal, tokens_NT, config.batch_size(), progress)
        return {name: tensor.data.to("cpu", dtype).clone() for name, tensor in _standing(assembly.placer).items()}
    finally:
        assembly.placer.release()


def _standing(placer: Placer) -> dict[str, Tensor]:
    """The tensors of the live network that a refit may change, by name."""
    found: dict[str, Tensor] = {}
    for block, widths in enumerate(placer.view.widths):
        for number, link in enumerate(links_of(widths)):
            if link.kept or link.dropping.replacement is not None:
                found |= {f"{block}.{number}.{what}": tensor for what, tensor in _tensors(link).items()}
    return found


def _tensors(link: LiveWidth) -> dict[str, Tensor]:
    if link.dropping.replacement is not None:
        return dict(link.dropping.replacement.named_parameters())
    consumer, norm = link.consumer, link.norm
    mean = None if norm is None else norm.running_mean
    named = {"weight": consumer.weight, "bias": consumer.bias, "mean": mean}
    return {what: tensor for what, tensor in named.items() if isinstance(tensor, Tensor)}


def _key(assembly: Assembly, proposal: Proposal) -> str:
    """Of everything that the weights depend on: the levels, the reconstruction split, the proposal and the rounding."""
    config = assembly.config
    chosen = [[choice.hex() if isinstance(choice, bytes) else choice for choice in row]
              for row in assembly.placer.choices(proposal)]  # fmt: skip
    described = [
        VERSION, assembly.store.directory.name, chosen, config.criterion, config.device, config.dtype,
        config.batch_size(), str(assembly.loaded.checkpoint_dtype),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _kept(path: Path, digest: str | None) -> dict[str, Tensor] | None:
    """The tensors in the cache; None where they are not there, damaged, or others than are wanted."""
    try:
        if digest is not None and _digest(path) != digest:
            return None
        return read_tensors(path)
    except (OSError, ValueError):
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the cache '{path.parent}' cannot be written ({error}): set AUTOPRUNE_CACHE.") from error
