"""Estimates the loss at other levels of each unit from derivatives, for all units at the cost of a few passes.

Let d be the change that another level makes to what a sub-block adds to the residual stream. To first order the loss
changes by g . d, where g is the gradient there. The second-order term is d' F d / 2, where F is the Fisher information
of the predictions, estimated with labels drawn from the network (Martens 2020, section 5), token by token. The first
order describes denser levels, which undo damage. The effect of sparser levels is mostly in the second order. Both
overshoot by about the same factor (docs/decisions/), which does not matter for comparisons.

Shapes: U units, L levels, T tokens, D hidden, V vocabulary.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.calibration.losses import Target
from autoprune.levels.placing import Placer
from autoprune.networks.head import Draw, LinearHead
from autoprune.space import Levels

REACH = 2  # levels in each direction
PASSES = 2 + 2 + 2 * REACH
"""Forward passes that the slopes of a sequence take: one forwards and one again, two derivatives, which take one each
since none is of weights, and the other levels."""


@dataclass(frozen=True)
class Stage:
    """A part of the network that adds to the residual stream.

    Args:
        block: its index.
        units: of the search space, that it consists of.
        alone: the unit within the block, whose others are dropped; None where they cannot be taken apart.
    """

    block: int
    units: tuple[int, ...]
    alone: int | None


class Slopes:
    """Args:
    placer: puts levels in place.
    head: of the network.
    tokens_NT: the sequences.
    """

    def __init__(self, placer: Placer, head: LinearHead, tokens_NT: Tensor) -> None:
        self._placer, self._view, self._space = placer, placer.view, placer.space
        self._head, self._tokens_NT = head, tokens_NT
        self._stages: list[Stage] = []

    def measure(self, policy: Levels, sequence: int, target: Target) -> NDArray[np.float64]:
        """Change of the loss of one sequence, `[U, L]`, nats per token: 0 at the policy, NaN beyond REACH levels.

        Args:
            policy: where the derivatives are taken.
            sequence: its number.
            target: what the loss keeps of the sequence.
        """
        self._placer.place_ends(self._placer.ends(policy))
        hidden_1TD = self._view.embed(self._tokens_NT[[sequence]])
        self._stages = self._stages or self._found(hidden_1TD)
        states = [hidden_1TD]
        for stage in self._stages:
            self._place(stage, policy)
            states.append(self._view.run(stage.block, states[-1]))
        gradients = self._at_end(states.pop(), sequence, target)
        orders: dict[tuple[int, int], Tensor] = {}
        for stage in reversed(self._stages):
            before = states.pop()
            self._place(stage, policy)
            with torch.enable_grad():
                leaf = before.detach().requires_grad_()
                behind = self._view.forward(stage.block, leaf)
            at_stage = gradients
            # before other levels are placed: derivatives may read the weights where the parameters have them
            gradients = (
                torch.autograd.grad(behind, leaf, at_stage[0], retain_graph=True)[0],
                torch.autograd.grad(behind, leaf, at_stage[1])[0],
            )
            for u in stage.units:
                orders |= self._orders(stage, policy, u, before, behind.detach(), at_stage)
        return self._table(policy, orders)

    def _at_end(self, hidden_1TD: Tensor, sequence: int, target: Target) -> tuple[Tensor, Tensor]:
        """Gradients behind the last block: of the mean loss, and of the sum over tokens of drawn labels' likelihood.

        At what the head's matrix reads both are differences of output embeddings, so that no logits are kept.
        """
        with torch.enable_grad():
            leaf = hidden_1TD.detach().requires_grad_()
            read_TD = self._head.read_with_gradient(leaf)[0]
        # drawn on the CPU, so that every device has the same
        uniform_T = torch.rand(len(read_TD), generator=torch.Generator().manual_seed(sequence), dtype=torch.float64)
        draw = Draw(uniform_T.to(read_TD.device))
        expected_TD, _, _ = self._head.expected(read_TD.detach(), draw.look)
        first_TD = (expected_TD - target.embedding) / target.counted
        first_TD[target.counted :] = 0
        second_TD = expected_TD - self._head.chosen(draw.tokens_N)[0]
        return (
            torch.autograd.grad(read_TD, leaf, first_TD.to(read_TD.dtype), retain_graph=True)[0],
            torch.autograd.grad(read_TD, leaf, second_TD.to(read_TD.dtype))[0],
        )

    def _orders(
        self, stage: Stage, policy: Levels, u: int, before: Tensor, behind: Tensor, gradients: tuple[Tensor, Tensor]
    ) -> dict[tuple[int, int], Tensor]:
        """Of one unit at its other levels: both orders of the change of the loss, `[2]`, on the device."""
        orders = {}
        first_TD, second_TD = (gradient[0].float() for gradient in gradients)
        for level in range(max(0, policy[u] - REACH), min(int(self._space.n_levels_U[u]), policy[u] + REACH + 1)):
            if level == policy[u]:
                continue
            self._place(stage, (*policy[:u], level, *policy[u + 1 :]))
            d_TD = (self._view.run(stage.block, before) - behind)[0].float()
            orders[u, level] = torch.stack([(first_TD * d_TD).sum(), (second_TD * d_TD).sum(-1).square().sum()])
        return orders

    def _table(self, policy: Levels, orders: Mapping[tuple[int, int], Tensor]) -> NDArray[np.float64]:
        """Changes of the loss, `[U, L]`; everything is read from the device at once."""
        changes_UL = np.full((len(policy), int(self._space.n_levels_U.max())), np.nan)
        changes_UL[range(len(policy)), list(policy)] = 0.0
        if not orders:
            return changes_UL
        first_N, second_N = torch.stack(list(orders.values())).double().cpu().numpy().T
        second_N = second_N / (2 * self._tokens_NT.shape[1])
        for (u, level), first, second in zip(orders, first_N, second_N, strict=True):
            change = first + second if level > policy[u] else first
            changes_UL[u, level] = change if math.isfinite(change) else np.nan  # a network that overflows tells nothing
        return changes_UL

    def _place(self, stage: Stage, policy: Levels) -> None:
        if stage.alone is None:
            self._placer.place_block(stage.block, [policy[u] for u in stage.units])
        else:
            self._placer.place_alone(stage.block, stage.alone, policy[stage.units[0]])

    def _found(self, hidden_1TD: Tensor) -> list[Stage]:
        stages = []
        for block, units in enumerate(self._placer.units_of_block):
            if self._placer.separable(block, hidden_1TD):
                stages += [Stage(block, (u,), i) for i, u in enumerate(units)]
            else:
                stages.append(Stage(block, tuple(units), None))
        return stages
