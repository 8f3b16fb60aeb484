"""Blocks as CUDA graphs: what is run again and again is launched once, not kernel by kernel.

A small network is bound by Python and launches, a block of twenty kernels by some hundred microseconds. A block that is
run at levels and a batch for the second time is recorded, with the addresses of its weights, which are views that stay
where they are; from then on neither its weights are put in place nor its Python is run. What is computed is the same.

Shapes: B states of a forward pass, T tokens, D hidden.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoprune.evaluation.prefixes import Choices
from autoprune.models.blocks import BlockView

MOST = 4096
"""Graphs that are kept, the least recently used go first; one takes some 100 KiB."""

Key = tuple[int, Choices, int]
"""A block, what is kept of it, and states in the pass."""


class Graphs:
    """Args:
    view: the network, on a CUDA device.
    """

    def __init__(self, view: BlockView) -> None:
        self._view, self._works = view, True
        self._graphs: OrderedDict[Key, tuple[torch.cuda.CUDAGraph, list[Any]]] = OrderedDict()
        self._seen: set[Key] = set()
        self._inputs: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensor] = {}
        # graphs run one after another, and what one leaves is copied: they may work in the same memory
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @staticmethod
    def size(states: int) -> int:
        """How many of so many states go together: a power of two, so that few graphs serve all batches."""
        return 1 << (states.bit_length() - 1)

    def run(self, block: int, choices: Choices, states: Sequence[Tensor]) -> Tensor | None:
        """A block's output, `[B, T, D]`, if it was recorded."""
        graph = self._graphs.get((block, choices, len(states)))
        if graph is None:
            return None
        self._graphs.move_to_end((block, choices, len(states)))
        torch.cat(list(states), out=self._inputs[len(states)])
        graph[0].replay()
        return self._outputs[len(states)].clone()

    def offer(self, block: int, choices: Choices, hidden_BTD: Tensor) -> None:
        """Record a block that is in place and has just been run on such a batch, unless it was the first time."""
        key = (block, choices, len(hidden_BTD))
        if not self._works or not all(isinstance(choice, int) for choice in choices):
            return  # what is kept of a mask is copied each time, to anywhere
        if key not in self._seen:
            self._seen.add(key)
            return
        graph = self._recorded(block, hidden_BTD)
        if graph is None:
            self._works = False
            return
        # whatever has an address in the graph must live as long: fused projections are copied when put in place
        weights = [parameter.data for parameter in self._view.blocks[block].parameters()]
        self._graphs[key] = graph, [*weights, self._view.call(block, hidden_BTD)]
        if len(self._graphs) > MOST:
            self._graphs.popitem(last=False)

    def _recorded(self, block: int, hidden_BTD: Tensor) -> torch.cuda.CUDAGraph | None:
        """The graph; None where something in the block cannot be recorded."""
        batch = len(hidden_BTD)
        before = self._inputs.setdefault(batch, torch.empty_like(hidden_BTD))
        behind = self._outputs.setdefault(batch, torch.empty_like(hidden_BTD))
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream), torch.no_grad():
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    behind.copy_(self._view.run(block, before))
                finally:
                    graph.capture_end()
        except RuntimeError:
            return None
        current.wait_stream(self._stream)
        return graph
