"""Computes losses from hidden states after the last block: without logits if the head is linear, otherwise with them.

Shapes: K losses, B hidden states of a batch, T tokens, D hidden, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autoprune import usercode
from autoprune.calibration.losses import Target, is_linear
from autoprune.errors import UserError
from autoprune.evaluation.taught import hidden_behind
from autoprune.levels.placing import Choice, Placer
from autoprune.networks.blocks import BlockView
from autoprune.networks.head import linear_head
from autoprune.ports.loss import Loss

Reference = Target | tuple[Tensor, ...]
"""What one loss keeps of the dense network on one sequence."""


class Readout:
    """Args:
    view: the network.
    losses: what is measured.
    memory: bytes for what the losses keep of the dense network; beyond it, that is computed again.
    placer: puts embeddings and head in place, where they are units.
    original: the dense network, where it is another network than `view`: in later rounds. Nothing is then told.

    Attributes:
        head: of the network, if it is linear and so are the losses.
    """

    def __init__(
        self,
        view: BlockView,
        losses: Sequence[Loss],
        memory: int,
        placer: Placer,
        original: BlockView | None = None,
    ) -> None:
        self._view, self._losses, self._memory_left, self._placer = view, tuple(losses), memory, placer
        self._original = original
        linear = all(map(is_linear, losses))
        self.head = linear_head(view) if linear else None
        self._asked = self.head  # of the dense network, whose predictions references are
        if original is not None and self.head is not None:
            teacher = linear_head(original) if self.head.matrix.bias is None else None
            self._asked = teacher and replace(teacher, measured=self.head.matrix.weight.data)
            self.head = self.head if teacher else None
        self._dense: dict[int, Tensor] = {}
        self._kept: dict[tuple[int, Choice], list[Reference]] = {}
        self._ends: tuple[Choice, ...] = (0,) * len(placer.units_of_ends)

    def behind(self, ends: tuple[Choice, ...]) -> None:
        """Say with which levels of embeddings and head the next hidden states were computed and are to be measured."""
        self._ends = ends

    def knows(self, sequence: int) -> bool:
        """Whether a sequence was told, or need not be."""
        return self._original is not None or (sequence, 0) in self._kept or sequence in self._dense

    def tell(self, sequence: int, dense_1TD: Tensor) -> None:
        """The dense network's hidden state of a sequence behind the last block."""
        self._dense[sequence] = dense_1TD

    def references(self, sequence: int, tokens_T: Tensor) -> list[Reference]:
        """For each loss, what it keeps of a sequence that was told, from memory where it is there.

        Args:
            sequence: its number.
            tokens_T: the sequence.
        """
        key = sequence, self._head_level
        if key in self._kept:
            return [_moved(reference, tokens_T.device) for reference in self._kept[key]]
        original = self._original
        dense_1TD = self._dense[sequence] if original is None else hidden_behind(original, tokens_T[None])
        references = self._computed(dense_1TD.to(tokens_T.device), tokens_T)
        size = sum(map(_nbytes, references))
        if size <= self._memory_left:
            self._kept[key] = [_moved(reference, dense_1TD.device) for reference in references]
            self._memory_left -= size
            if not self._ends:  # with other heads, references are others
                self._dense.pop(sequence, None)
        return references

    @property
    def _head_level(self) -> Choice:
        """References depend on it where scalar products with the head's matrix are computed beforehand."""
        return self._ends[-1] if self._ends and self.head is not None else 0

    def _computed(self, dense_1TD: Tensor, tokens_T: Tensor) -> list[Reference]:
        labels_T = self._view.labels(tokens_T)
        head = self._asked
        if head is not None and self.head is not None and self._head_level:
            self._placer.place_ends(self._ends)
            head = replace(head, measured=self.head.matrix.weight.data)
        self._placer.release_ends()
        if head is None:
            logits_1TV = (self._original or self._view).head(dense_1TD)
            return [_reference(loss, loss.prepare(logits_1TV, labels_T[None])) for loss in self._losses]
        read_TD = head.read(dense_1TD)[0]
        return [_target(loss, loss.target(head, read_TD, labels_T)) for loss in self._losses]

    def measure(self, hidden_BTD: Tensor, references: Sequence[list[Reference]], as_it_is: bool = False) -> Tensor:
        """Every loss, `[K, B]` float64.

        Args:
            hidden_BTD: behind the last block.
            references: of the sequence of each.
            as_it_is: whether the head in place is the one to measure with, as that of a trained network.
        """
        if not as_it_is:
            self._placer.place_ends(self._ends)
        by_loss = list(zip(*references, strict=True))
        if self.head is None:
            logits_BTV = self._view.head(hidden_BTD)
            rows = [
                _checked(
                    loss, loss.measure(logits_BTV, tuple(map(_together, zip(*kept, strict=True)))), len(logits_BTV)
                )
                for loss, kept in zip(self._losses, by_loss, strict=True)
            ]
        else:
            read_BTD = self.head.read(hidden_BTD)
            lse_BT = self.head.logsumexp(read_BTD.flatten(0, 1)).view(read_BTD.shape[:2])
            rows = [_measured(read_BTD.float(), lse_BT, kept) for kept in by_loss]
        return torch.stack([row.double() for row in rows])


def _measured(read_BTD: Tensor, lse_BT: Tensor, targets: Sequence[Target]) -> Tensor:
    target_BTD = _together([t.embedding[None] for t in targets])
    constant_BT = _together([t.constant[None] for t in targets])
    loss_BT = constant_BT + lse_BT - torch.linalg.vecdot(target_BTD, read_BTD)
    loss_B: Tensor = loss_BT[:, : targets[0].counted].mean(-1)
    return loss_B


def _reference(loss: Loss, given: Any) -> tuple[Tensor, ...]:
    """What a loss, which is the user's own perhaps, keeps of the dense network."""
    if not isinstance(given, tuple) or not all(isinstance(one, Tensor) for one in given):
        raise UserError(
            f"the loss {usercode.located(loss)} prepares {usercode.shown(given)}: `prepare` gives a tuple of tensors."
        )
    return given


def _target(loss: Loss, given: Any) -> Target:
    """Likewise, behind a linear head."""
    if not isinstance(given, Target):
        raise UserError(
            f"the loss {usercode.located(loss)} has the target {usercode.shown(given)}, which is no Target."
        )
    return given


def _checked(loss: Loss, given: Any, count: int) -> Tensor:
    """What a loss gives for so many sequences."""
    if not isinstance(given, Tensor) or given.shape != (count,) or given.is_complex():
        raise UserError(
            f"the loss {usercode.located(loss)} gives {usercode.shown(given)} for {count} sequences: `measure` gives a "
            "tensor with one number a sequence."
        )
    return given


def _together(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _moved(reference: Reference, device: torch.device) -> Reference:
    if isinstance(reference, Target):
        return Target(reference.embedding.to(device), reference.constant.to(device), reference.counted)
    return tuple(tensor.to(device) for tensor in reference)


def _nbytes(reference: Reference) -> int:
    if isinstance(reference, Target):
        return reference.nbytes
    return sum(tensor.numel() * tensor.element_size() for tensor in reference)
