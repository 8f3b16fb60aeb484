"""The linear head of most language models: a norm, a matrix and at most a factor.

Losses do not need the logits `[N, V]` of such a head. They need logsumexp, which is computed piece by piece over the
vocabulary, and scalar products of the logits with weights over the vocabulary. These are products of the hidden state
with a vector that can be computed beforehand.

Shapes: B sequences, T tokens, N tokens of any number of sequences, D hidden, V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.networks.blocks import BlockView

PIECE_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
"""Of float32 logits at a time: on a CPU they stay in its cache; rows would be packed anew for each piece of tokens."""
DRAWN_BYTES = 32 * 2**20
"""Of cumulative sums at a time, which are float64."""


@dataclass(frozen=True)
class LinearHead:
    """logits = factor * (matrix @ norm(hidden) + bias).

    Args:
        norm: the final norm.
        matrix: the output embeddings.
        factor: of the logits (Cohere, Granite); 1 for most.
        measured: the matrix `[V, D]` of the network that is compared with this one; None is the same matrix. What is
            computed beforehand for a loss is of its logits.
    """

    norm: nn.Module
    matrix: nn.Linear
    factor: float = 1.0
    measured: Tensor | None = None

    @property
    def _compared(self) -> Tensor:
        return self.matrix.weight if self.measured is None else self.measured

    @torch.no_grad()
    def read(self, hidden_BTD: Tensor) -> Tensor:
        """What the matrix takes, `[B, T, D]`."""
        return self.read_with_gradient(hidden_BTD)

    def read_with_gradient(self, hidden_BTD: Tensor) -> Tensor:
        """The same with derivatives where the caller has them on."""
        normed: Tensor = self.norm(hidden_BTD)
        return normed

    @torch.no_grad()
    def logsumexp(self, read_ND: Tensor) -> Tensor:
        """Of the logits, `[N]` float32."""
        pieces = [logits_NV.logsumexp(-1) for _, logits_NV in self._pieces(read_ND)]
        return pieces[0] if len(pieces) == 1 else torch.stack(pieces).logsumexp(0)

    @torch.no_grad()
    def expected(
        self, read_ND: Tensor, look: Callable[[Tensor], None] = lambda p_NV: None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the softmax p over the vocabulary: its negative entropy `[N]`, and `target`.

        Args:
            read_ND: what the matrix takes.
            look: is shown p of one piece of the vocabulary after another, `[N, piece]`.

        Returns:
            target `[N, D]` and `offset` `[N]`, so that sum p z = target . read + offset for the logits z of any read;
            and sum p log p, `[N]`. All float32.
        """
        lse_N = self.logsumexp(read_ND)
        target_ND = torch.zeros(read_ND.shape, device=read_ND.device)
        offset_N, mean_N = torch.zeros_like(lse_N), torch.zeros_like(lse_N)
        for piece, logits_NV in self._pieces(read_ND):
            p_NV = (logits_NV - lse_N[:, None]).exp_()
            look(p_NV)
            target_ND += self.factor * self._mixed(p_NV, self._compared[piece])
            if self.matrix.bias is not None:
                offset_N += self.factor * (p_NV @ self.matrix.bias[piece].float())
            mean_N += torch.linalg.vecdot(p_NV, logits_NV)
        return target_ND, offset_N, mean_N - lse_N

    @staticmethod
    def _mixed(p_NV: Tensor, weight_VD: Tensor) -> Tensor:
        """p @ weight; in half precision the weight is copied to float32 a piece at a time."""
        rows = len(weight_VD)
        if weight_VD.dtype != torch.float32:
            rows = max(256, PIECE_BYTES.get(p_NV.device.type, 2**26) // (4 * weight_VD.shape[1]))
        parts = zip(torch.split(p_NV, rows, dim=1), torch.split(weight_VD, rows), strict=True)
        first, *others = (p_NP @ weight_PD.float() for p_NP, weight_PD in parts)
        return first if not others else torch.stack([first, *others]).sum(0)

    @torch.no_grad()
    def chosen(self, tokens_N: Tensor) -> tuple[Tensor, Tensor]:
        """`target` `[N, D]` and `offset` `[N]`, so that z[token] = target . read + offset. Float32."""
        bias = self.matrix.bias
        offset_N = torch.zeros(tokens_N.shape, device=tokens_N.device) if bias is None else bias[tokens_N].float()
        return self.factor * self._compared[tokens_N].float(), self.factor * offset_N

    def _pieces(self, read_ND: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Logits of one piece of the vocabulary after another, `[N, piece]` float32."""
        weight_VD, bias_V = self.matrix.weight, self.matrix.bias
        size = max(256, PIECE_BYTES.get(read_ND.device.type, 2**26) // (4 * len(read_ND)))
        for start in range(0, len(weight_VD), size):
            piece = slice(start, start + size)
            logits_NV = functional.linear(read_ND, weight_VD[piece], None if bias_V is None else bias_V[piece]).float()
            yield piece, logits_NV if self.factor == 1.0 else logits_NV.mul_(self.factor)


class Draw:
    """One token of each distribution: the first whose cumulative probability is above a uniform number.

    Probabilities come in pieces of the vocabulary. Sums are float64: in float32 those of 262,144 tokens lose the tail.
    Nothing waits for the device.

    Args:
        uniform_N: in [0, 1), float64.
    """

    def __init__(self, uniform_N: Tensor) -> None:
        self._left_N, self._seen = uniform_N, 0
        self._found_N = torch.zeros_like(uniform_N, dtype=torch.bool)
        self.tokens_N = torch.zeros_like(uniform_N, dtype=torch.long)

    def look(self, p_NV: Tensor) -> None:
        """The next piece."""
        for part_NV in torch.split(p_NV, max(1, DRAWN_BYTES // (8 * len(p_NV))), dim=1):
            sums_NV = part_NV.cumsum(1, dtype=torch.float64)
            whole_N = sums_NV[:, -1].contiguous()
            here_N = ~self._found_N & (self._left_N < whole_N)
            # what rounding leaves of the whole is the last token's that has any probability
            last_N = torch.searchsorted(sums_NV, whole_N[:, None])[:, 0]
            first_N = torch.searchsorted(sums_NV, self._left_N[:, None], right=True)[:, 0]
            token_N = torch.where(here_N, first_N, last_N).clamp_max(part_NV.shape[1] - 1) + self._seen
            self.tokens_N = torch.where(self._found_N | (whole_N <= 0), self.tokens_N, token_N)
            self._found_N |= here_N
            self._left_N = self._left_N - whole_N
            self._seen += part_NV.shape[1]


@torch.no_grad()
def linear_head(view: BlockView) -> LinearHead | None:
    """The head of a network if it is linear behind a norm, None if it is anything else (Gemma 2 caps its logits).

    Found by looking on: the one module outside the blocks that takes what the last block gives and gives what the
    output embeddings take, and no more than a factor behind those.
    """
    matrix = view.output_matrix()
    if not isinstance(matrix, nn.Linear):
        return None
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    inside = {id(module) for block in view.blocks for module in block.modules()}
    hooks = [
        module.register_forward_hook(partial(_look_on, seen))
        for module in view.model.modules()
        if id(module) not in inside
    ]
    width = view.widths[0][0].consumer_weight.shape[0]
    drawn = torch.randn(1, 8, width, generator=torch.Generator().manual_seed(0))
    hidden_BTD = drawn.to(matrix.weight.device, matrix.weight.dtype)
    try:
        logits_BTV = view.head(hidden_BTD).float()
    finally:
        for hook in hooks:
            hook.remove()
    read, plain = next(((x, out.float()) for module, x, out in seen if module is matrix), (None, None))
    norms = [m for m, x, out in seen if m is not matrix and _is(x, hidden_BTD) and _is(out, read)]
    if _is(hidden_BTD, read):
        norms = [nn.Identity()]  # OPT with norms behind its sub-blocks has none at the end
    if plain is None or len(norms) != 1:
        return None
    factor = float((logits_BTV * plain).sum() / (plain * plain).sum())
    factor = 1.0 if abs(factor - 1) < 1e-3 else factor  # rounding in half precision
    exact = matrix.weight.dtype == torch.float32
    same = torch.allclose(logits_BTV, factor * plain, rtol=1e-5 if exact else 2e-2, atol=1e-5 if exact else 2e-2)
    return LinearHead(norms[0], matrix, factor) if same else None


def _look_on(seen: list[tuple[nn.Module, Tensor, Tensor]], module: nn.Module, args: Any, out: Any) -> None:
    if len(args) == 1 and isinstance(args[0], Tensor) and isinstance(out, Tensor):
        seen.append((module, args[0], out))


def _is(tensor: Tensor, other: Tensor | None) -> bool:
    """Whether both are the same memory: models slice what they give to the head."""
    return other is not None and tensor.data_ptr() == other.data_ptr() and tensor.shape == other.shape
