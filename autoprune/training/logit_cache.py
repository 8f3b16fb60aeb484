"""The dense network's most likely classes for every training sequence, on disk, for every epoch and later runs.

`$AUTOPRUNE_CACHE/logits/KEY/` has safetensors files of some sequences each: `which` int32 `[n, T, K]`, and `log`
float32 `[n, T, K + 1]`, the log-probabilities with that of all other classes last. The key is a hash of the dense
network, the sequences, K and the temperature. Files that are there and whole are not written again, so an interrupted
writing goes on.

Shapes: N sequences, T tokens, K most likely classes.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from autoprune.errors import UserError
from autoprune.files.arrays import open_tensors
from autoprune.files.cache import cache_directory
from autoprune.files.reading import DAMAGE
from autoprune.files.writing import own_folder, replacing
from autoprune.training.top_k import TopK

FILE_BYTES = 2**28
NUMBER_BYTES = 4
SPARE = 2**28
"""Bytes of the disk that are left free."""


class LogitCache:
    """Args:
    key: everything that decides the answers, as text.
    count: number of sequences.
    shape: T and K.
    others: whether there are classes besides the K.
    """

    def __init__(self, key: str, count: int, shape: tuple[int, int], others: bool = True) -> None:
        self._count, (self._length, self._k), self._others = count, shape, others
        self.folder = cache_directory() / "logits" / hashlib.sha256(key.encode()).hexdigest()[:32]
        self._each = max(1, FILE_BYTES // self._bytes(1))

    def fill(self, answers: Callable[[Tensor], TopK], at_once: int) -> None:
        """Write the files that are missing.

        Args:
            answers: the dense network's for some sequences, by number: `[n, T, K]`.
            at_once: number of sequences that it is asked for.

        Raises:
            UserError: the disk is too small, full or not writable.
        """
        missing = [first for first in range(0, self._count, self._each) if not self._is_whole(first)]
        if missing:
            self._check_disk(len(missing) * min(self._each, self._count))
        for first in missing:
            numbers = torch.arange(first, min(self._count, first + self._each))
            found = [answers(some) for some in torch.split(numbers, at_once)]
            tensors = {
                "which": torch.cat([one.which.to(torch.int32).cpu() for one in found]),
                "log": torch.cat([one.log.float().cpu() for one in found]),
            }
            try:
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                own_folder(self.folder)
                with replacing(self._path(first)) as new:
                    save_file(tensors, new)
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"the dense network's logits could not be kept in '{self.folder}' ({error})."
                ) from error

    def read(self, some: Tensor) -> TopK:
        """The answers for some sequences, by number, `[n * T, K]`.

        Raises:
            UserError: a file is damaged or gone.
        """
        which, log = [], []
        for number in some.tolist():
            first = number // self._each * self._each
            try:
                with open_tensors(self._path(first)) as file:
                    which.append(file.get_slice("which")[number - first])
                    log.append(file.get_slice("log")[number - first])
            except (OSError, *DAMAGE) as error:
                raise UserError(
                    f"the dense network's logits in '{self.folder}' are damaged or gone ({error}): delete that folder, "
                    "and the same command writes it anew."
                ) from error
        return TopK(torch.cat(which).long(), torch.cat(log))

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:09d}.safetensors"

    def _is_whole(self, first: int) -> bool:
        count = min(self._each, self._count - first)
        shapes = [count, self._length, self._k], [count, self._length, self._k + self._others]
        try:
            with open_tensors(self._path(first)) as file:
                return all(
                    file.get_slice(name).get_shape() == shape
                    for name, shape in zip(("which", "log"), shapes, strict=True)
                )
        except (OSError, *DAMAGE):
            return False

    def _bytes(self, sequences: int) -> int:
        return NUMBER_BYTES * sequences * self._length * (2 * self._k + 1)

    def _check_disk(self, sequences: int) -> None:
        folder = next(path for path in self.folder.parents if path.exists())
        free, needed = shutil.disk_usage(folder).free, self._bytes(sequences)
        if needed + SPARE > free:
            raise UserError(
                f"the dense network's logits need {needed / 1e9:,.1f} GB in '{self.folder.parent}', and "
                f"{free / 1e9:,.1f} GB are free there: give a smaller top_k, leave cached=true, or set AUTOPRUNE_CACHE."
            )
