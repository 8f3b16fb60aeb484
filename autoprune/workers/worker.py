"""The actor that scores. It maps the bundle's files and writes to none of them."""

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.space import Proposal
from autoprune.workers.bundle import FileBundle, Part, is_here, open_bundle, receive


class Worker:
    """Args:
    threads: of torch.
    """

    def __init__(self, threads: int) -> None:
        import torch
        import transformers.models.llama.modeling_llama  # noqa: F401 (imports take longest, whatever the network)

        torch.set_num_threads(threads)
        self._evaluator: Any = None

    def ping(self) -> None:
        """Answer, which shows that the worker is alive."""

    def load(self, bundle: FileBundle, parts: Sequence[Part] | None = None) -> tuple[int, float] | None:
        """Open a bundle. Returns None if its files are neither on this machine nor in `parts`.

        Args:
            bundle: the bundle to open.
            parts: its files, as references to Ray's object store.

        Returns:
            The process, and the seconds of a dense pass over one sequence.

        Raises:
            UserError: the files are damaged, or the device is not usable here.
        """
        import ray

        node = ray.get_runtime_context().get_node_id()
        if not is_here(bundle, node):
            if parts is None:
                return None
            receive(bundle, parts)
        self._evaluator = open_bundle(bundle, node)
        dense = [self._evaluator.space.dense]
        self.score(dense, [0])  # what is slow the first time is not measured
        return os.getpid(), self.score(dense, [0])[1]

    def score(self, policies: Sequence[Proposal], sequences: Sequence[int]) -> tuple[NDArray[np.float64], float]:
        """Losses `[P, S]` of policies on some sequences of the split, and the seconds that they took."""
        begun = time.perf_counter()
        losses_PS = self._evaluator.score(policies, sequences)
        return losses_PS, time.perf_counter() - begun
