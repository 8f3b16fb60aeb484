"""Hidden states that are kept between scores, so that a policy starts at the first block in which it differs.

Shapes: B sequences of one forward pass, T tokens, D hidden.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence

from torch import Tensor

from autoprune.levels.placing import Choice

Choices = tuple[Choice, ...]
"""What is kept of the units of a block."""

Node = tuple[int, int]
"""A sequence and the number of a prefix of a policy."""


class Prefixes:
    """Numbers for prefixes: the empty one, before the first block, has no positive number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, Choices], int] = {}
        self._roots: dict[Choices, int] = {}

    def path(self, choices: Sequence[Choices], ends: Choices = ()) -> list[int]:
        """The numbers of all prefixes of what a policy keeps in each block, from the empty to the whole.

        Args:
            choices: of the blocks.
            ends: levels of embeddings and head. With other ones all hidden states are others.
        """
        numbers = [self.root(ends)]
        for one in choices:
            numbers.append(self._numbers.setdefault((numbers[-1], one), len(self._numbers) + 1))
        return numbers

    def root(self, ends: Choices) -> int:
        """The number of the empty prefix: 0, or a negative number for other ends than the dense ones."""
        return -self._roots.setdefault(ends, len(self._roots) + 1) if any(ends) else 0


class StateCache:
    """Hidden states by node. When there are too many, the least recently used are dropped.

    States of one forward pass are views of one tensor, whose memory is freed with the last of them. The whole tensor is
    counted, so that the limit holds for every batch size.

    Args:
        limit: bytes; 0 keeps nothing.

    Attributes:
        nbytes: kept now.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.nbytes = limit, 0
        self._states: OrderedDict[Node, Tensor] = OrderedDict()
        self._views: Counter[int] = Counter()

    def get(self, node: Node) -> Tensor | None:
        """A state `[1, T, D]`, if it is kept."""
        state = self._states.get(node)
        if state is not None:
            self._states.move_to_end(node)
        return state

    def put(self, node: Node, state: Tensor) -> None:
        """Keep a state `[1, T, D]`, unless it is there."""
        storage = state.untyped_storage()
        if node in self._states or storage.nbytes() > self.limit:
            return
        self._states[node] = state
        self._views[storage.data_ptr()] += 1
        if self._views[storage.data_ptr()] == 1:
            self.nbytes += storage.nbytes()
        while self.nbytes > self.limit:
            self._drop(self._states.popitem(last=False)[1])

    def clear(self) -> None:
        """Let go of everything."""
        while self._states:
            self._drop(self._states.popitem()[1])

    def _drop(self, state: Tensor) -> None:
        storage = state.untyped_storage()
        self._views[storage.data_ptr()] -= 1
        if not self._views[storage.data_ptr()]:
            del self._views[storage.data_ptr()]
            self.nbytes -= storage.nbytes()
