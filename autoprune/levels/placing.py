"""Puts proposals in place on the live network: levels by swapping views, masks by copying the groups kept.

Shapes: U units, B states of a forward pass, T tokens, D hidden.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.level import Level
from autoprune.levels.form import LiveForm, live_form
from autoprune.levels.masked import MaskedWeights
from autoprune.levels.store import LevelStore
from autoprune.mask import Mask
from autoprune.networks.blocks import BlockView
from autoprune.space import Proposal, SearchSpace

Choice = int | bytes
"""What is kept of one unit: a level, or packed bits."""


class Placer:
    """Args:
    view: the network, its groups in the store's order.
    space: the units.
    store: consumers' weights of levels.
    masked: consumers' weights of masks; None where none are searched.
    """

    def __init__(
        self, view: BlockView, space: SearchSpace, store: LevelStore, masked: MaskedWeights | None = None
    ) -> None:
        self.view, self.space, self.store, self.masked = view, space, store, masked
        self._separable: dict[int, bool] = {}
        self._widths = [width for row in view.widths for width in row]
        self._widths += view.ends[
            : len(space.units) - len(self._widths)
        ]  # behind the units of blocks, if there are any
        self._forms = [[live_form(level) for level in unit.levels] for unit in space.units]
        self._standing: list[tuple[LiveForm, Level] | None] = [None] * len(space.units)
        self.units_of_block = [
            [u for u, unit in enumerate(space.units) if unit.block == b] for b in range(len(view.blocks))
        ]
        self.units_of_ends = [u for u, unit in enumerate(space.units) if unit.block == len(view.blocks)]

    def choices(self, proposal: Proposal) -> list[tuple[Choice, ...]]:
        """What is kept of the units of each block: equal choices compute equal blocks."""
        units: Sequence[Choice] = proposal if isinstance(proposal, tuple) else self._bits(proposal)
        return [tuple(units[u] for u in row) for row in self.units_of_block]

    def ends(self, proposal: Proposal) -> tuple[Choice, ...]:
        """The levels of embeddings and head; empty where they are no units."""
        return tuple(proposal[u] for u in self.units_of_ends) if isinstance(proposal, tuple) else ()

    def place_ends(self, choices: Sequence[Choice]) -> None:
        """Put levels of embeddings and head in place."""
        for u, choice in zip(self.units_of_ends, choices, strict=True):
            self._place_unit(u, choice)

    def place(self, proposal: Proposal) -> None:
        """Put a whole proposal in place."""
        self.view.expect(None)
        self.place_ends(self.ends(proposal))
        for block, choices in enumerate(self.choices(proposal)):
            self.place_block(block, choices)

    def place_block(self, block: int, choices: Sequence[Choice]) -> None:
        """Put what is kept of one block's units in place."""
        for u, choice in zip(self.units_of_block[block], choices, strict=True):
            self._place_unit(u, choice)

    def place_alone(self, block: int, unit: int, choice: Choice) -> None:
        """Put what is kept of one of a block's units in place, and drop its others."""
        for i, u in enumerate(self.units_of_block[block]):
            if i == unit:
                self._place_unit(u, choice)
            else:
                self._keep(u, 0)

    @torch.no_grad()
    def separable(self, block: int, hidden_BTD: Tensor) -> bool:
        """Whether a block is what its units do one after another, each with the others dropped; found out once.

        Args:
            block: its index.
            hidden_BTD: of the shape that blocks are run at.
        """
        if block not in self._separable:
            drawn_BTD = torch.randn(hidden_BTD.shape, generator=torch.Generator().manual_seed(0)).to(hidden_BTD)
            choices: list[Choice] = [min(1, len(self.space.units[u].levels) - 1) for u in self.units_of_block[block]]
            self.place_block(block, choices)
            whole_BTD, parts_BTD = self.view.run(block, drawn_BTD), drawn_BTD
            for unit, choice in enumerate(choices):
                self.place_alone(block, unit, choice)
                parts_BTD = self.view.run(block, parts_BTD)
            self._separable[block] = torch.equal(whole_BTD, parts_BTD)
        return self._separable[block]

    def keeps(self, block: int, unit: int, choice: Choice) -> bool:
        """Whether anything of one of a block's units is run."""
        u = self.units_of_block[block][unit]
        if isinstance(choice, int):
            return not self._forms[u][choice].drops(self.space.units[u].levels[choice])
        return any(choice)

    def refits(self, block: int, unit: int, choice: Choice) -> bool:
        """Whether the consumer of one of a block's units may be solved once more."""
        return not isinstance(choice, int) or self._forms[self.units_of_block[block][unit]][choice].refits

    def _place_unit(self, u: int, choice: Choice) -> None:
        width, unit = self._widths[u], self.space.units[u]
        self._lift(u)
        if isinstance(choice, int):
            form, level = self._forms[u][choice], unit.levels[choice]
            form.place(level, width, self.store.weights(u, choice), self.store.own(u, choice))
            self._standing[u] = form, level
            return
        kept_G = np.unpackbits(np.frombuffer(choice, np.uint8))[: unit.bundles(unit.groups)].repeat(unit.bundle)
        index = torch.from_numpy(np.flatnonzero(kept_G))
        width.select(index, self.masked.consumer(u, choice, index) if self.masked else None)

    def consumers(self, block: int, choices: Sequence[Choice]) -> list[Tensor]:
        """The weights that the store has for what is kept of one block's units; masks' are computed when placed."""
        stored = [
            self.store.consumer(u, choice)
            for u, choice in zip(self.units_of_block[block], choices, strict=True)
            if isinstance(choice, int)
        ]
        return [weight for weight in stored if weight is not None]

    def release(self) -> None:
        """Put the dense network back."""
        self.view.expect(None)
        self.release_ends()
        for block in range(len(self.units_of_block)):
            self.release_block(block)

    def release_ends(self) -> None:
        """Put the dense embeddings and head back."""
        for u in self.units_of_ends:
            self._keep(u, 1)

    def release_block(self, block: int) -> None:
        """Put one dense block back."""
        for u in self.units_of_block[block]:
            self._keep(u, self.space.units[u].groups)

    def modules_with_zeros(self) -> list[nn.Module]:
        """Modules whose weights have zeros now that training must leave."""
        return self._modules(lambda form: form.keeps_zeros)

    def modules_that_stay(self) -> list[nn.Module]:
        """Modules whose weights training must leave as they are now."""
        return self._modules(lambda form: form.stays)

    def _modules(self, of_form: Callable[[LiveForm], bool]) -> list[nn.Module]:
        """Modules with the matrices of units that now stand at levels of some forms."""
        found: dict[nn.Module, None] = {}
        for width, standing in zip(self._widths, self._standing, strict=True):
            if standing is not None and of_form(standing[0]):
                found |= dict.fromkeys(width.dense.modules[path] for path, _ in width.matrix_keys)
        return list(found)

    def _keep(self, u: int, groups: int) -> None:
        """Keep the first groups of a unit with their dense weights, or none."""
        self._lift(u)
        self._widths[u].keep(groups)

    def _lift(self, u: int) -> None:
        """Take off what the form of a unit's present level put there besides weights."""
        standing, self._standing[u] = self._standing[u], None
        if standing is not None:
            form, level = standing
            form.lift(level, self._widths[u])

    def _bits(self, mask: Mask) -> list[bytes]:
        return [bits.tobytes() for bits in mask.split(self.space.groups)]
