"""Plain modules that no family covers: traced with torch.fx, and cut where a single value goes through.

A block is a stretch of the traced graph. It computes with the network's own modules, where they stand: what is cut or
dropped in a block is cut or dropped in the network, which fine-tuning and exports go on with.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Interpreter, Node, Tracer

from autoprune import usercode
from autoprune.calibration.images import ImageSet
from autoprune.errors import UserError
from autoprune.models.family import Family
from autoprune.models.images import ImageView, restored

TRIED = 2  # images that shapes are found with: the first dimension of hidden states must be as many
FREE = ("placeholder", "get_attr", "output")  # nodes that compute nothing


class Whole(nn.Module):
    """A network behind one argument: its optional ones are plain values when it is traced."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Any:
        """What the network returns."""
        return self.network(pixels)


@dataclass(frozen=True)
class Stretch:
    """A part of a trace that is a block.

    Args:
        begin: its first node.
        end: the node behind its last.
        chains: what the family finds its widths by.
    """

    begin: int
    end: int
    chains: Sequence[Any]


class Trace:
    """The graph of a network.

    Args:
        model: reads pixels and returns logits.
        pixels: `[TRIED, C, height, width]`.

    Attributes:
        nodes: what is computed, in order. `meta` has the `shape` of each, None where it is no tensor, and the name of
            the class of the module that it `calls`.
        modules: of those that call a module which no other node uses: the module.

    Raises:
        UserError: it cannot be traced, or returns no tensor.
    """

    def __init__(self, model: nn.Module, pixels: Tensor) -> None:
        self.whole = Whole(model)
        self._graph = _graph_of(self.whole)
        _Shapes(self.whole, graph=self._graph).run(pixels)
        self._check_output()
        self.nodes = [node for node in self._graph.nodes if node.op not in FREE]
        self.modules = {node: self.whole.get_submodule(str(node.target)) for node in self._alone()}

    def _check_output(self) -> None:
        returned = self._graph.output_node().args[0]
        shape = returned.meta["shape"] if isinstance(returned, Node) else None
        if shape is None or len(shape) != 2 or shape[0] != TRIED:
            what = "something else" if shape is None else f"a tensor of {'x'.join(map(str, shape))}"
            raise UserError(
                f"for {TRIED} images a {type(self.whole.network).__name__} returns {what}: a traced network returns a "
                "tensor of logits, a row an image."
            )

    def _alone(self) -> list[Node]:
        used = Counter(str(node.target) for node in self.nodes if node.op == "call_module")
        read = {str(node.target).rpartition(".")[0] for node in self._graph.nodes if node.op == "get_attr"}
        return [
            node
            for node in self.nodes
            if node.op == "call_module" and used[str(node.target)] == 1 and str(node.target) not in read
        ]

    @cached_property
    def cuts(self) -> dict[int, Node]:
        """Number of a node -> the only value that goes through between it and those before it, one state an image."""
        numbers = {node: i for i, node in enumerate(self.nodes)}
        (entrance,) = (node for node in self._graph.nodes if node.op == "placeholder")
        last = {
            node: max((numbers.get(user, len(self.nodes)) for user in node.users), default=-1)
            for node in (entrance, *self.nodes)
        }
        found, alive = {}, {entrance}
        for i in range(len(self.nodes) + 1):
            alive = {node for node in alive if last[node] >= i}
            if len(alive) == 1 and (next(iter(alive)).meta["shape"] or (0,))[0] == TRIED:
                found[i] = next(iter(alive))
            alive |= set(self.nodes[i : i + 1])
        return found

    def part(self, begin: int, end: int) -> GraphModule:
        """The nodes from one cut to another as a module `[N, ...] -> [N, ...]` on the network's own modules."""
        graph = Graph()
        copies = {self.cuts[begin]: graph.placeholder("hidden")}
        for node in self.nodes[begin:end]:
            for source in node.all_input_nodes:
                if source.op == "get_attr" and source not in copies:
                    copies[source] = graph.node_copy(source)
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[self.cuts[end]])
        part = GraphModule(self.whole, graph, "Part")
        part.network = self.whole.network  # itself, in the place of copies of its containers
        return part


class TracedView(ImageView):
    """An `ImageView` of a network that is cut by its family's `cut`."""

    def _found(self) -> list[nn.Module]:
        assert self.family.cut is not None
        numbers = torch.zeros(TRIED, dtype=torch.long, device=self.images.labels.device)
        with torch.no_grad():
            trace = Trace(self.model, self.pixels(numbers))
        stretches: list[Stretch] = self.family.cut(trace)
        self._stem = trace.part(0, stretches[0].begin)
        self._rest = trace.part(stretches[-1].end, len(trace.nodes))
        blocks = []
        for stretch in stretches:
            block: Any = trace.part(stretch.begin, stretch.end)
            block.chains = stretch.chains
            blocks.append(block)
        self._before = [()] * len(blocks)
        return list(blocks)

    @torch.no_grad()
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states at the first block, `[B, T, ...]`."""
        return restored(self._stem(self.pixels(tokens_BT.flatten())), tokens_BT)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Logits `[B, T, V]` from the hidden states behind the last block, with the caller's derivatives."""
        return restored(self._rest(hidden_BTD.flatten(0, 1)), hidden_BTD)


def image_view(model: nn.Module, family: Family, images: ImageSet, mlp_group: int = 1) -> ImageView:
    """A network that reads images as blocks, whether its family says where they are or they are found in a trace.

    Raises:
        UserError: the model does not take these images, cannot be traced, or has nothing to cut.
    """
    return (TracedView if family.cut else ImageView)(model, family, images, mlp_group)


class _Shapes(Interpreter):
    def run_node(self, n: Node) -> Any:
        out = super().run_node(n)
        n.meta["shape"] = tuple(out.shape) if isinstance(out, Tensor) else None
        if n.op == "call_module":
            n.meta["calls"] = type(self.module.get_submodule(str(n.target))).__name__
        return out


def _graph_of(whole: Whole) -> Graph:
    name = type(whole.network).__name__
    try:
        graph = Tracer().trace(whole)
    except Exception as error:
        raise UserError(
            f"a {name} is of no family that is known for plain modules, and torch.fx cannot trace it: "
            f"{usercode.told(error)}. Write its forward without decisions that depend on the input, or declare its "
            "blocks in a family of your own (search_spaces/resnet.py is an example)."
        ) from error
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    for node in graph.nodes:  # hidden states are used again: nothing may write over them
        if node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
    return graph
