"""A network that reads images as `embed -> blocks -> head`: a stem, stages of blocks, a classifier.

Images are looked up by number, as tokens are. A sequence is a sample of `T` images: `[T]` int64 numbers in an
`ImageSet` (or other `Examples`). Hidden states have both dimensions, `[B, T, channels, height, width]`, so that the
same code runs, keeps and counts them for texts and images.

Shapes: B sequences, T images of a sequence, C channels, V classes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from autoprune.data.examples import Examples
from autoprune.errors import UserError
from autoprune.networks.blocks import BlockView, live_widths
from autoprune.networks.family import Family


class _ReachedError(Exception):
    """The first block was reached: what lies behind is not needed."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class _Entrance(nn.Module):
    """Stands where the first block stands."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> NoReturn:
        raise _ReachedError(hidden)


class _PutIn(nn.Module):
    """Stands where a block stands: passes its input on, or another tensor."""

    def __init__(self, tensor: Tensor | None = None) -> None:
        super().__init__()
        self._tensor = tensor

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden if self._tensor is None else self._tensor


class ImageView(BlockView):
    """Args:
    model: takes pixels `[N, C, height, width]` and returns logits `[N, V]`, or an object that has them.
    family: says where its blocks are and what their widths are.
    images: what numbers stand for, on the model's device.
    mlp_group: neurons that are removed together.

    Attributes:
        places: for each block the shapes of hidden states before and behind it, of one image.

    Raises:
        UserError: the model does not take these images.
    """

    keeps_shape = False
    items_apart = True

    def __init__(self, model: nn.Module, family: Family, images: Examples, mlp_group: int = 1) -> None:
        self.model, self.family, self.images = model, family, images
        self._numel = self._inside = 0  # of hidden states, and of what layers of a block give, at most
        self.places = []
        self._dtype = next(model.parameters()).dtype  # of a network of which nothing may be left for a while
        self._overwriting = _never_in_place(model)
        try:
            self.blocks = self._found()
            self.widths = live_widths(model, family, self.blocks, mlp_group)
            self._look(torch.zeros(1, 1, dtype=torch.long, device=images.labels.device))
        except (RuntimeError, ValueError, TypeError) as error:
            shape = "x".join(map(str, images.shape))
            raise UserError(
                f"the model does not take {images.called} of {shape}: {str(error).splitlines()[0]}"
            ) from error

    def shape(self) -> list[Any]:
        """What tells the network's shapes from those of others: its modules, and the shape of what it reads."""
        return [str(self.model), list(self.images.shape), self.places]

    def labels(self, tokens_BT: Tensor) -> Tensor:
        """The label of each image, `[B, T]`."""
        return self.images.labels[tokens_BT]

    def state_bytes(self, length: int) -> int:
        """Of the hidden states of a sequence, the largest of any block."""
        return 4 * length * self._numel

    def activation_bytes(self, batch: int, length: int) -> int:
        """In a block: hidden states before and behind, and what every layer gives, before and after it is activated."""
        return 4 * batch * length * (2 * self._numel + 2 * self._inside)

    def pixels(self, numbers: Tensor) -> Tensor:
        """Normalised images `[n, C, height, width]` in the model's dtype."""
        return self.images.inputs(numbers).to(self._dtype)

    @torch.no_grad()
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states at the first block, `[B, T, ...]`."""
        with self._in_place({0: _Entrance()}):
            try:
                self.model(self.pixels(tokens_BT.flatten()))
            except _ReachedError as reached:
                return restored(reached.hidden, tokens_BT)
        raise UserError("the model's first block is not run: its blocks are not a chain.")

    def forward(self, block: int, hidden_BTD: Tensor) -> Tensor:
        """One block as it stands, `[B, T, ...] -> [B, T, ...]`, with derivatives where the caller has them on."""
        hidden = hidden_BTD.flatten(0, 1)
        for module in (*self._before[block], self.blocks[block]):
            out = module(hidden)
            hidden = out[0] if isinstance(out, tuple) else out
        return restored(hidden, hidden_BTD)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Logits `[B, T, V]` from the hidden states behind the last block, with the caller's derivatives."""
        put_in: dict[int, nn.Module] = {block: _PutIn() for block in range(len(self.blocks))}
        put_in[len(self.blocks) - 1] = _PutIn(hidden_BTD.flatten(0, 1))
        with self._in_place(put_in):
            # one image through the stem: what it gives is thrown away
            return restored(logits_of(self.model(self.pixels(self._first))), hidden_BTD)

    @torch.no_grad()
    def __call__(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the whole network as it stands, `[B, T, V]`."""
        return restored(logits_of(self.model(self.pixels(tokens_BT.flatten()))), tokens_BT)

    def _found(self) -> list[nn.Module]:
        paths = self.family.paths(self.model)
        self._paths = [tuple(path.rpartition(".")[::2]) for path in paths]
        self._before = [self._run_before(path) for path in paths]
        self._before[:1] = [()]  # what stands before the first block is a part of the embedding
        return [self.model.get_submodule(path) for path in paths]

    def _run_before(self, path: str) -> tuple[nn.Module, ...]:
        blocks, _, number = path.rpartition(".")
        if not self.family.before or number != "0":
            return ()
        return tuple(self.model.get_submodule(f"{blocks.rpartition('.')[0]}.{self.family.before}").children())

    @torch.no_grad()
    def _look(self, first: Tensor) -> None:
        """Run one image: how large hidden states are, and how often each matrix is multiplied with."""
        self._first = first.flatten()
        hidden = self.embed(first)
        for block, widths in enumerate(self.widths):
            times: dict[nn.Module, int] = {}
            given: list[int] = []
            hooks = [
                module.register_forward_hook(partial(_counted, times, given))
                for module in self.blocks[block].modules()
                if isinstance(module, nn.Conv2d | nn.Linear)
            ]
            self._numel = max(self._numel, hidden.numel())
            before, hidden = (hidden, hidden.clone()), self.run(block, hidden)
            if not torch.equal(*before):
                raise UserError(f"block {block} of the model changes its input in place: it cannot be run twice on it.")
            for hook in hooks:
                hook.remove()
            self._inside = max(self._inside, sum(given))
            self.places.append(" -> ".join("x".join(map(str, state.shape[2:])) for state in (before[0], hidden)))
            named = dict(self.blocks[block].named_modules())
            for width in widths:
                width.positions.update({path: times[m] for path, m in named.items() if m in times})
        self._numel = max(self._numel, hidden.numel())
        whole, parts = self(first), self.head(hidden)
        if not torch.allclose(whole, parts, rtol=1e-3, atol=1e-4):
            raise UserError(
                "the model's blocks are not a chain: run one after another they give other logits than the model."
            )

    @contextmanager
    def as_given(self) -> Iterator[None]:
        """Activations write over their inputs where the model has them so, as when it is in use: for measurements."""
        for module in self._overwriting:
            vars(module)["inplace"] = True
        try:
            yield
        finally:
            for module in self._overwriting:
                vars(module)["inplace"] = False

    @contextmanager
    def _in_place(self, modules: dict[int, nn.Module]) -> Iterator[None]:
        """Modules in the place of blocks for a while."""
        owners = [(self.model.get_submodule(owner), name) for owner, name in self._paths]
        try:
            for block, module in modules.items():
                setattr(*owners[block], module)
            yield
        finally:
            for block in modules:
                setattr(*owners[block], self.blocks[block])


def _counted(times: dict[nn.Module, int], given: list[int], module: Any, _: Any, out: Tensor) -> None:
    """Notes how often a layer's matrix is multiplied with, and how many values it gives."""
    times[module] = _positions(module, out)
    given.append(out.numel())


def _positions(module: nn.Conv2d | nn.Linear, out: Tensor) -> int:
    """How often a matrix is multiplied with, of the outputs `[1, out, ...]` of a convolution or `[1, ..., out]`."""
    return math.prod(out.shape[2:] if isinstance(module, nn.Conv2d) else out.shape[1:-1])


def _never_in_place(model: nn.Module) -> list[nn.Module]:
    """Hidden states are kept and used again: activations may not write over them. Returns those that would."""
    found = [module for module in model.modules() if getattr(module, "inplace", False)]
    for module in found:
        vars(module)["inplace"] = False
    return found


def restored(flat: Tensor, like: Tensor) -> Tensor:
    """`[B T, ...] -> [B, T, ...]`."""
    return flat.reshape(*like.shape[:2], *flat.shape[1:])


def logits_of(output: Any) -> Tensor:
    """Of what a network returns: logits, or an object that has them."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits
