"""Runs policies through the blocks of a network. Each distinct prefix runs once, from its last known state.

The outermost loop is over blocks. States that go through a block at the same levels go together, up to `batch` of them.

Shapes: B states of a forward pass, T tokens, D hidden.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.evaluation.graphs import Graphs
from autoprune.evaluation.prefixes import Choices, Node, Prefixes, StateCache
from autoprune.levels.placing import Choice, Placer


@dataclass(frozen=True)
class Whole:
    """A policy.

    Args:
        blocks: what is kept of the units of each block.
        ends: levels of embeddings and head, where these are units.
    """

    blocks: tuple[Choices, ...]
    ends: Choices = ()


@dataclass(frozen=True)
class Plan:
    """The forward passes to run.

    Args:
        embedded: sequences that start at the embedding, by the levels of the ends.
        steps: for each block, by what is kept of it: the nodes before and behind it.
        states: for each block and the end, states `[1, T, D]` by node: at first those that are known.
    """

    embedded: dict[Choices, list[int]]
    steps: list[dict[Choices, list[tuple[Node, Node]]]]
    states: list[dict[Node, Tensor]]


class PrefixRunner:
    """Args:
    placer: puts what is kept of a block in place.
    tokens_NT: the sequences.
    batch: states a forward pass.
    memory: bytes for states that are kept between calls.

    Attributes:
        cache: those states.
        blocks_run: forward passes of one state through one block, so far.
    """

    def __init__(self, placer: Placer, tokens_NT: Tensor, batch: int, memory: int) -> None:
        self._placer, self._view, self._tokens_NT, self._batch = placer, placer.view, tokens_NT, batch
        self._prefixes, self.cache, self.blocks_run = Prefixes(), StateCache(memory), 0
        # streamed weights are now here, now there; a graph needs states of one shape
        recordable = tokens_NT.is_cuda and not placer.view.streamed and placer.view.keeps_shape
        self._graphs = Graphs(placer) if recordable else None

    def end(self, sequence: int, policy: Whole) -> Node:
        """The node behind the last block."""
        return sequence, self._prefixes.path(policy.blocks, policy.ends)[-1]

    def run(self, policies: Sequence[Whole], sequences: Sequence[int], where: torch.device) -> dict[Node, Tensor]:
        """States behind the last block, `[1, T, D]`, of every policy on every sequence.

        Args:
            policies: distinct policies.
            sequences: distinct sequences.
            where: the device where states are kept between blocks.
        """
        plan = self._plan(policies, sequences)
        self._embed(plan, where)
        for block, step in enumerate(plan.steps):
            if step:
                self._step(block, step, plan.states[block], plan.states[block + 1], where)
            plan.states[block].clear()
            if block + 1 < len(plan.steps):
                for node, state in plan.states[block + 1].items():
                    self.cache.put(node, state)
        return plan.states[-1]

    def _plan(self, policies: Sequence[Whole], sequences: Sequence[int]) -> Plan:
        """From the end of every policy backwards, to what is known or planned."""
        blocks = len(self._view.blocks)
        plan = Plan({}, [{} for _ in range(blocks)], [{} for _ in range(blocks + 1)])
        planned: set[Node] = set()
        paths = [(policy, self._prefixes.path(policy.blocks, policy.ends)) for policy in policies]
        for sequence in sequences:
            for policy, path in paths:
                for level in range(blocks, -1, -1):
                    node = sequence, path[level]
                    if node in planned:
                        break
                    planned.add(node)
                    known = self.cache.get(node)
                    if known is not None:
                        plan.states[level][node] = known
                        break
                    if level == 0:
                        plan.embedded.setdefault(policy.ends, []).append(sequence)
                    else:
                        lanes = plan.steps[level - 1].setdefault(policy.blocks[level - 1], [])
                        lanes.append(((sequence, path[level - 1]), node))
        return plan

    def _embed(self, plan: Plan, where: torch.device) -> None:
        for ends, sequences in plan.embedded.items():
            self._placer.place_ends(ends)
            root = self._prefixes.root(ends)
            for start in range(0, len(sequences), self._batch):
                some = sequences[start : start + self._batch]
                hidden_BTD = self._view.embed(self._tokens_NT[some]).to(where)
                for i, sequence in enumerate(some):
                    plan.states[0][sequence, root] = hidden_BTD[i : i + 1]
                    self.cache.put((sequence, root), hidden_BTD[i : i + 1])

    def _step(
        self,
        block: int,
        step: dict[Choices, list[tuple[Node, Node]]],
        before: dict[Node, Tensor],
        behind: dict[Node, Tensor],
        where: torch.device,
    ) -> None:
        self._view.enter(block)
        for choices in sorted(step, key=levels_first):
            in_place = False
            for lanes in self._batches(step[choices]):
                states = [before[node].to(self._tokens_NT.device) for node, _ in lanes]
                out_BTD = self._graphs.run(block, choices, states) if self._graphs else None
                if out_BTD is None:
                    if not in_place:
                        self._placer.place_block(block, choices)
                        in_place = not self._graphs  # which put other things in place
                    out_BTD = self._view.run(block, states[0] if len(states) == 1 else torch.cat(states)).to(where)
                behind.update({node: out_BTD[i : i + 1] for i, (_, node) in enumerate(lanes)})
                self.blocks_run += len(lanes)
        if self._view.streamed:
            self._placer.release_block(block)  # what it was put to would hold on to the device's memory

    def _batches(self, lanes: list[tuple[Node, Node]]) -> Iterator[list[tuple[Node, Node]]]:
        start = 0
        while start < len(lanes):
            most = min(self._batch, len(lanes) - start)
            size = Graphs.size(most) if self._graphs else most
            yield lanes[start : start + size]
            start += size


def levels_first(choices: Choices) -> list[tuple[bool, Choice]]:
    """Equal choices are neighbours, whatever order the policies came in."""
    return [(isinstance(choice, bytes), choice) for choice in choices]
