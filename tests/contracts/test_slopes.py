"""Slopes are finite differences, whatever a block does with its weights: every family, and modules of a user's own."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from autoprune.calibration.losses import KullbackLeibler
from autoprune.cutting.live import LiveWidth
from autoprune.cutting.widths import Slice, Width
from autoprune.evaluation.slopes import Slopes, Stage
from autoprune.levels.placing import Placer
from autoprune.networks.head import LinearHead, linear_head
from autoprune.space import Levels, SearchSpace, kept_groups
from autoprune.testing.toys import counts
from tests import families
from tests.contracts.test_losses import CAPPED, LENGTH, Bare, placer_of

STEP, DENSER, HERE, SPARSER = 1e-3, 0, 1, 2
RELATIVE, ABSOLUTE = 1e-2, 5e-5  # norms compute in float32 in any network


class Checked:
    """Slopes of a network in float64 around the policy that has every unit at level HERE, and differences there."""

    def __init__(self, placer: Placer, head: LinearHead) -> None:
        tokens_NT = families.random_tokens(2, LENGTH)
        self.slopes, self.placer, self.view, self.head = Slopes(placer, head, tokens_NT), placer, placer.view, head
        self.embedded = self.view.embed(tokens_NT[[1]])
        self.policy: Levels = (HERE,) * len(placer.space.units)
        self.dense = self.read((DENSER,) * len(self.policy))
        target = KullbackLeibler().target(head, self.dense, tokens_NT[1])
        self.found_UL = self.slopes.measure(self.policy, 1, target)

    def read(
        self, policy: Levels, u: int | None = None, level: int = HERE, step: float = 0.0, token: int | None = None
    ) -> Tensor:
        """What the head reads if what another level of unit `u` changes is added `step` times, at all tokens or one."""
        hidden = self.embedded
        for stage in self.stages:
            before = hidden
            self.slopes._place(stage, policy)
            hidden = self.view.run(stage.block, before)
            if u in stage.units:
                assert u is not None
                self.slopes._place(stage, (*policy[:u], level, *policy[u + 1 :]))
                change = self.view.run(stage.block, before) - hidden
                if token is not None:
                    change[:, [t for t in range(LENGTH) if t != token]] = 0
                hidden = hidden + step * change
        return self.head.read(hidden)[0]

    @property
    def stages(self) -> list[Stage]:
        return self.slopes._stages or self.slopes._found(self.embedded)

    def log_probabilities(self, read_TD: Tensor) -> Tensor:
        matrix = self.head.matrix
        return (self.head.factor * nn.functional.linear(read_TD, matrix.weight, matrix.bias)).log_softmax(-1)

    def loss(self, *at: Any) -> float:
        logp_TV, logq_TV = self.log_probabilities(self.dense), self.log_probabilities(self.read(self.policy, *at))
        return float((logp_TV.exp() * (logp_TV - logq_TV)).sum(-1).mean())

    def first(self, u: int, level: int) -> float:
        return (self.loss(u, level, STEP) - self.loss(u, level, -STEP)) / (2 * STEP)

    def second(self, u: int, level: int) -> float:
        """Half of what the Fisher information of labels drawn from the network makes of the tokens one by one."""
        uniform_T = torch.rand(LENGTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        sums_TV = self.log_probabilities(self.read(self.policy)).exp().cumsum(-1)
        drawn_T = (sums_TV <= uniform_T[:, None]).sum(-1)

        def surprise(*at: Any) -> float:
            return -float(self.log_probabilities(self.read(self.policy, *at)).gather(-1, drawn_T[:, None]).sum())

        along = [(surprise(u, level, STEP, t) - surprise(u, level, -STEP, t)) / (2 * STEP) for t in range(LENGTH)]
        return sum(slope**2 for slope in along) / (2 * LENGTH)

    def check(self, *units: int) -> None:
        """Of some units, to first order; of the first of them by second too."""
        for u in units:
            assert self.found_UL[u, DENSER] == pytest.approx(self.first(u, DENSER), rel=RELATIVE, abs=ABSOLUTE)
        u = units[0]
        expected = self.first(u, SPARSER) + self.second(u, SPARSER)
        assert self.found_UL[u, SPARSER] == pytest.approx(expected, rel=RELATIVE, abs=ABSOLUTE)


@pytest.mark.parametrize("name", sorted(set(families.names()) - CAPPED))
def test_slopes_of_every_family_are_finite_differences(name: str) -> None:
    placer = placer_of(name, torch.float64)
    head = linear_head(placer.view)
    assert head is not None
    last = len(placer.space.units) - 1
    Checked(placer, head).check(3, 2, last)


class Untransposed(nn.Module):
    """Multiplies by its weight as it is."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Summed(Untransposed):
    """The same by an Einstein sum, of a square of it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("btd,do->bto", x, self.weight * self.weight.abs())


class Convolved(nn.Conv2d):
    """A convolution over the tokens, which reads three of them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)


MAKERS: dict[str, tuple[Any, int]] = {
    "linear": (nn.Linear, 1),
    "conv1d": (lambda inputs, outputs: Conv1D(outputs, inputs), 0),
    "conv2d": (Convolved, 1),
    "untransposed": (Untransposed, 0),
    "einsum": (Summed, 0),
}
"""How to make a module of so many inputs and outputs, and the dimension of its weight that is its inputs."""


class Block(nn.Module):
    """Adds to the stream what a pair of modules with a width between them makes of it."""

    def __init__(self, kind: str, hidden: int, inside: int) -> None:
        super().__init__()
        make, _ = MAKERS[kind]
        self.producer, self.consumer = make(hidden, inside), make(inside, hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.consumer(self.producer(x).tanh())
        return out


@pytest.mark.parametrize("kind", MAKERS)
def test_a_module_may_compute_with_its_weight_in_any_way(kind: str) -> None:
    hidden, inside, dim = 8, 12, MAKERS[kind][1]
    torch.manual_seed(0)
    blocks = [Block(kind, hidden, inside).double().requires_grad_(False) for _ in range(2)]
    width = Width("mlp", inside, (Slice("producer", 1, 1 - dim),), Slice("consumer", 1, dim), {})
    embedding = torch.randn(families.VOCABULARY, hidden, dtype=torch.float64)
    view: Any = SimpleNamespace(
        blocks=blocks, widths=[[LiveWidth(block, width)] for block in blocks], ends=[], streamed=False,
        embed=lambda tokens_BT: embedding[tokens_BT], forward=lambda block, x: blocks[block](x),
        run=lambda block, x: blocks[block](x),
    )  # fmt: skip
    units = [row[0].unit(b, kept_groups(inside, (1.0, 0.5, 0.25))) for b, row in enumerate(view.widths)]
    space = SearchSpace(units, {"params": [[u.params(k) for k in counts(u)] for u in units]}, {})
    norm, matrix = (
        nn.LayerNorm(hidden).requires_grad_(False),
        nn.Linear(hidden, families.VOCABULARY).requires_grad_(False),
    )
    Checked(Placer(view, space, Bare()), LinearHead(norm.double(), matrix.double())).check(0, 1)
