"""Plain modules that no family covers: traced with torch.fx, and cut where a single value goes through.

A block is a stretch of the traced graph. It computes with the network's own modules, where they stand: what is cut or
dropped in a block is cut or dropped in the network, which fine-tuning and exports go on with.
"""

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Interpreter, Node, Tracer

from autoprune import usercode
from autoprune.cutting.layers import alike
from autoprune.cutting.live import LiveWidth
from autoprune.cutting.zeros import blind
from autoprune.data.examples import Examples
from autoprune.errors import UserError
from autoprune.networks.family import Family
from autoprune.networks.images import ImageView, restored

TRIED = 2  # images that shapes are found with: the first dimension of hidden states must be as many
LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
"""What stays one node of a trace, subclasses included: their forwards are run, not read."""
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
        nodes: what is computed, in order. `meta` has the `shape` and `dtype` of each, None where it is no tensor, its
            value if that is a `constant` of the network and the size of its images, and the name of the class of the
            module that it `calls`.
        numbers: of nodes, their places in this order.
        modules: of those that call a module which no other node uses: the module.
        left: why a layer's outputs are not cut, which the family tells.

    Raises:
        UserError: it cannot be traced, or returns no tensor.
    """

    def __init__(self, model: nn.Module, pixels: Tensor) -> None:
        self.whole = Whole(model)
        self._graph = _graph_of(self.whole)
        _Shapes(self.whole, graph=self._graph).run(pixels)
        self._check_output()
        self.nodes = [node for node in self._graph.nodes if node.op not in FREE]
        self.numbers = {node: i for i, node in enumerate(self.nodes)}
        more = _Numbers(self.whole, graph=self._graph)
        more.run(torch.cat([pixels, pixels[:1]]))
        self._per_image = {node: value for node, value in more.found.items() if value != node.meta["constant"]}
        self.modules: dict[Node, Any] = {node: self.whole.get_submodule(str(node.target)) for node in self._alone()}
        self.left: dict[Node, str] = {}

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
        (entrance,) = (node for node in self._graph.nodes if node.op == "placeholder")
        last = {
            node: max((self.numbers.get(user, len(self.nodes)) for user in node.users), default=-1)
            for node in (entrance, *self.nodes)
            if node.meta["constant"] is None or not _is_told(node.meta["constant"])
        }
        found, alive = {}, {entrance}
        for i in range(len(self.nodes) + 1):
            alive = {node for node in alive if last[node] >= i}
            if len(alive) == 1 and (next(iter(alive)).meta["shape"] or (0,))[0] == TRIED:
                found[i] = next(iter(alive))
            alive |= {node for node in self.nodes[i : i + 1] if node in last}
        return found

    def part(self, begin: int, end: int) -> GraphModule:
        """The nodes from one cut to another as a module `[N, ...] -> [N, ...]` on the network's own modules."""
        graph = Graph()
        hidden = graph.placeholder("hidden")
        copies: dict[Node, Any] = {self.cuts[begin]: hidden}
        for node in self.nodes[begin:end]:
            for source in node.all_input_nodes:
                if source.op == "get_attr" and source not in copies:
                    copies[source] = graph.node_copy(source)
                elif source not in copies:
                    copies[source] = self._told_again(graph, hidden, source)
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[self.cuts[end]])
        part = GraphModule(self.whole, graph, "Part")
        part.network = self.whole.network  # itself, in the place of copies of its containers
        return part

    def _told_again(self, graph: Graph, hidden: Node, node: Node) -> Any:
        """Numbers from before a part, as those of its own images: as constants, or multiples of how many there are."""

        def of(one: Any, other: Any) -> Any:
            if isinstance(one, tuple | list):
                return tuple(map(of, one, other))
            if one == other:
                return one
            count = graph.call_method("size", (hidden, 0))
            return count if one == TRIED else graph.call_function(operator.mul, (count, one // TRIED))

        return of(node.meta["constant"], self._per_image.get(node, node.meta["constant"]))


class TracedView(ImageView):
    """An `ImageView` of a network that is cut by its family's `cut`."""

    def _found(self) -> list[nn.Module]:
        assert self.family.cut is not None
        numbers = torch.zeros(TRIED, dtype=torch.long, device=self.images.labels.device)
        with torch.no_grad():
            trace = Trace(self.model, self.pixels(numbers))
        stretches, blocks = _exact(trace, self.family)
        self._stem = trace.part(0, stretches[0].begin)
        self._rest = trace.part(stretches[-1].end, len(trace.nodes))
        self._before = [()] * len(blocks)
        self._left = {_path(node): why for node, why in trace.left.items()}
        self._called = {_path(node) for node in trace.modules}
        return blocks

    def left_out(self, path: str, module: nn.Module) -> str:
        """Why a module is in no unit, behind "layers"."""
        if "norm" in type(module).__name__.lower():
            return "of norms"
        if path not in self._called:
            return "inside of modules that torch.fx cannot look into, or that run more than once"
        grouped = getattr(module, "groups", 1) > 1
        return self._left.get(path, "of grouped channels" if grouped else "whose widths meet others in a layer")

    @torch.no_grad()
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states at the first block, `[B, T, ...]`."""
        return restored(self._stem(self.pixels(tokens_BT.flatten())), tokens_BT)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Logits `[B, T, V]` from the hidden states behind the last block, with the caller's derivatives."""
        return restored(self._rest(hidden_BTD.flatten(0, 1)), hidden_BTD)


def image_view(model: nn.Module, family: Family, images: Examples, mlp_group: int = 1) -> ImageView:
    """A network that reads images as blocks, whether its family says where they are or they are found in a trace.

    Raises:
        UserError: the model does not take these images, cannot be traced, or has nothing to cut.
    """
    return (TracedView if family.cut else ImageView)(model, family, images, mlp_group)


def _exact(trace: Trace, family: Family) -> tuple[list[Stretch], list[nn.Module]]:
    """The stretches of a trace as blocks, whose widths have been cut for a trial and gave what they should.

    Raises:
        UserError: there is no width.
    """
    assert family.cut is not None
    while True:
        stretches: list[Stretch] = family.cut(trace)
        blocks: list[Any] = []
        failed: list[Any] = []
        for stretch in stretches:
            block: Any = trace.part(stretch.begin, stretch.end)
            block.chains = list(stretch.chains)
            shape = trace.cuts[stretch.begin].meta["shape"]
            failed += [chain for chain in stretch.chains if not _tried(block, family, chain, shape)]
            blocks.append(block)
        if not failed:
            return stretches, blocks
        trace.left |= {chain.producer: "that cannot be cut exactly" for chain in failed}


@torch.no_grad()
def _tried(block: Any, family: Family, chain: Any, shape: tuple[int, ...]) -> bool:
    """Whether a width that is cut gives what the block gives where what reads the width is blind to the others.

    One that cannot be dropped is no longer called droppable.
    """
    number = block.chains.index(chain)
    live = LiveWidth(block, family.widths(block, None, 1)[number])
    like = live.consumer_weight
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)
    kept = max(1, live.width.groups // 2)
    whole = block(drawn)
    with blind(live, kept):
        masked = block(drawn)
    try:
        live.keep(kept)
        same = alike(masked, block(drawn))
        if same and live.width.droppable:
            live.keep(0)
            block.chains[number] = replace(chain, droppable=_runs(block, drawn, whole))
    finally:
        live.keep(live.width.groups)
    return same and torch.equal(block(drawn), whole)


def _runs(block: nn.Module, drawn: Tensor, whole: Tensor) -> bool:
    try:
        return bool(block(drawn).shape == whole.shape)
    except Exception:  # whatever an operation between says to a single channel
        return False


def _path(node: Node) -> str:
    """Of the module that a node calls, in the network."""
    return str(node.target).removeprefix("network.")


class _Shapes(Interpreter):
    def run_node(self, n: Node) -> Any:
        out = super().run_node(n)
        is_tensor = isinstance(out, Tensor)
        n.meta["shape"] = tuple(out.shape) if is_tensor else None
        n.meta["dtype"] = out.dtype if is_tensor else None
        drawn = is_tensor and out.is_floating_point() and n.op != "get_attr"
        n.meta["constant"] = None if drawn else tuple(out) if isinstance(out, torch.Size) else out
        if n.op == "call_module":
            n.meta["calls"] = type(self.module.get_submodule(str(n.target))).__name__
        return out


class _Numbers(Interpreter):
    """What numbers are, of other images."""

    def __init__(self, whole: nn.Module, graph: Graph) -> None:
        super().__init__(whole, graph=graph)
        self.found: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        out = super().run_node(n)
        if _is_told(n.meta["constant"]):
            self.found[n] = tuple(out) if isinstance(out, torch.Size) else out
        return out


def _is_told(value: Any) -> bool:
    """Whether it is a whole number or several, as shapes are, which can be told again from other images."""
    return all(map(_is_told, value)) if isinstance(value, tuple | list) else isinstance(value, int)


class _Layers(Tracer):
    """Goes into modules, but for layers and what cannot be traced: these are run as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LAYERS) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if isinstance(self.root, Whole) and m is self.root.network:
                raise  # there is nothing else
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


def _graph_of(whole: Whole) -> Graph:
    name = type(whole.network).__name__
    try:
        graph = _Layers().trace(whole)
    except Exception as error:
        raise UserError(
            f"a {name} is of no family that is known for plain modules, and torch.fx cannot trace it: "
            f"{usercode.told(error)}. Write its forward without decisions that depend on the input, or declare its "
            "blocks in a family of your own (search_spaces/resnet.py is an example)."
        ) from error
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))  # what was begun in vain as well
    for node in graph.nodes:  # hidden states are used again: nothing may write over them
        if node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
    return graph
