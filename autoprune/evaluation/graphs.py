"""Blocks as CUDA graphs, so that a block is launched once and not kernel by kernel.

Small networks are bound by Python and launches: a block of thirty kernels takes a millisecond, and the device works for
a tenth of it. A graph records the addresses of the weights, which are views that do not move. Afterwards, no levels are
put in place and no Python of the block runs.

In most families, sub-blocks such as attention and MLP follow each other. A block with all other units dropped then adds
what its one unit does, and blocks are composed of such parts. This takes units x levels graphs, not their products.
Whether it holds is checked on the network itself. Results are the same.

Shapes: B states of a forward pass, T tokens, D hidden.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoprune.evaluation.prefixes import Choices
from autoprune.levels.placing import Choice, Placer

MOST = 4096
"""The number of graphs that are kept; the least recently used ones are dropped. One takes some 100 KiB."""
SIZES = (16, 4, 1)
"""Batch sizes. They are few, so that few graphs serve all batches."""
PATIENCE = 3  # recordings that may fail before no more are tried

Key = tuple[int, int | None, Choices | Choice, int]
"""A block, one of its units or all, what is kept, and states in the pass."""


class Graphs:
    """Args:
    placer: of a network that is on a CUDA device.
    """

    def __init__(self, placer: Placer) -> None:
        self._placer, self._view = placer, placer.view
        self._graphs: OrderedDict[Key, tuple[torch.cuda.CUDAGraph, list[Any]]] = OrderedDict()
        self._buffers: dict[int, Tensor] = {}
        self._failures = 0
        # graphs run one after another, and what one leaves is copied: they may work in the same memory
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @staticmethod
    def size(states: int) -> int:
        """How many of so many states go together."""
        return next(size for size in SIZES if size <= states)

    def run(self, block: int, choices: Choices, states: Sequence[Tensor]) -> Tensor | None:
        """A block's output, `[B, T, D]`; None where it cannot be recorded.

        Args:
            block: its index.
            choices: what is kept of it.
            states: `[1, T, D]` each.
        """
        if self._failures >= PATIENCE or not all(isinstance(choice, int) for choice in choices):
            return None  # what is kept of a mask is copied each time, to anywhere
        batch = len(states)
        if batch not in self._buffers:
            self._buffers[batch] = torch.cat(list(states))
        parts = [self._graph(key) for key in self._keys(block, choices, batch)]
        if any(part is None for part in parts):
            return None
        torch.cat(list(states), out=self._buffers[batch])
        for part in parts:
            part.replay()  # type: ignore[union-attr] # from the buffer into it
        return self._buffers[batch].clone()

    def _keys(self, block: int, choices: Choices, batch: int) -> list[Key]:
        if not self._placer.separable(block, self._buffers[batch]):  # besides, kernels are loaded there
            return [(block, None, choices, batch)]
        kept = [(i, choice) for i, choice in enumerate(choices) if self._placer.keeps(block, i, choice)]
        return [(block, i, choice, batch) for i, choice in kept]

    def _graph(self, key: Key) -> torch.cuda.CUDAGraph | None:
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key][0]
        block, unit, choice, batch = key
        self._place(block, unit, choice)
        graph = self._recorded(block, batch)
        if graph is None:
            self._failures += 1
            return None
        # whatever has an address in the graph must live as long: fused projections are copied when put in place
        whole = self._view.blocks[block]
        weights = [tensor.data for tensor in (*whole.parameters(), *whole.buffers())]
        self._graphs[key] = graph, [*weights, self._view.call(block, self._buffers[batch])]
        if len(self._graphs) > MOST:
            self._graphs.popitem(last=False)
        return graph

    def _place(self, block: int, unit: int | None, choice: Any) -> None:
        if unit is None:
            self._placer.place_block(block, choice)
        else:
            self._placer.place_alone(block, unit, choice)

    def _recorded(self, block: int, batch: int) -> torch.cuda.CUDAGraph | None:
        """The block as it stands, from the buffer into it."""
        hidden_BTD = self._buffers[batch]
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        self._view.call(block, hidden_BTD)  # made outside of the recording
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream), torch.no_grad():
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    hidden_BTD.copy_(self._view.run(block, hidden_BTD))
                finally:
                    graph.capture_end()
        except RuntimeError:
            return None
        current.wait_stream(self._stream)
        return graph
