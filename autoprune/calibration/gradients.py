"""Derivatives of every example's loss with respect to a gate of every group, at the dense network.

A gate of 1 multiplies all inputs that a consumer reads from a group. Its derivative is the sum of x dL/dx over these
inputs. L is the loss against the labels (for most tasks the cross-entropy), whatever the loss of the search. The
divergence from the dense network would not do, because all its derivatives are 0 there.

An example is a sequence, or one item of it if items are independent, such as images. Blocks run once forwards and again
one by one in the backward pass. So only the hidden states between blocks and one block's graph are in memory.

Shapes: N examples, G groups, B sequences, T tokens or images, D hidden.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoprune.calibration.losses import CrossEntropy
from autoprune.calibration.moments import inputs_of, links_of
from autoprune.cutting.live import LiveWidth
from autoprune.errors import UserError
from autoprune.networks.blocks import BlockView
from autoprune.ports.loss import Loss


def gate_gradients(
    view: BlockView,
    tokens_NT: Tensor,
    batch: int,
    progress: Callable[[float], None] | None = None,
    loss: Loss | None = None,
) -> list[list[Tensor]]:
    """For every width of every block and those behind it, `[N, G]` float32 on the CPU, nats per token or image.

    Args:
        view: the dense network.
        tokens_NT: the reconstruction split.
        batch: sequences a forward pass.
        progress: called with the fraction done.
        loss: against the labels; None is the cross-entropy.

    Raises:
        UserError: blocks are brought to the device in turn.
    """
    if view.streamed:
        raise UserError(
            "derivatives of blocks that device_memory leaves in the host's memory cannot be taken: search once without "
            "it, as with device=cpu, which keeps the levels for later searches, or choose the criterion obs."
        )
    collected: list[list[list[Tensor]]] = [[[] for _ in links_of(widths)] for widths in view.widths]
    for start in range(0, len(tokens_NT), batch):
        of_batch = _backwards(view, tokens_NT[start : start + batch], loss or CrossEntropy())
        for row, gradients in zip(collected, of_batch, strict=True):
            for pieces, gradient_NG in zip(row, gradients, strict=True):
                pieces.append(gradient_NG.cpu())
        if progress:
            progress(min(1.0, (start + batch) / len(tokens_NT)))
    return [[torch.cat(pieces) for pieces in row] for row in collected]


def _backwards(view: BlockView, tokens_BT: Tensor, loss: Loss) -> list[list[Tensor]]:
    """Of one batch, `[N, G]` for each width of each block and those behind it."""
    states = [view.embed(tokens_BT)]
    for block in range(len(view.blocks)):
        states.append(view.run(block, states[-1]))
    examples = tokens_BT.numel() if view.items_apart else len(tokens_BT)
    gradient = _at_head(view, states.pop(), tokens_BT, loss)
    found = []
    for block in reversed(range(len(view.blocks))):
        links = links_of(view.widths[block])
        with torch.enable_grad(), inputs_of(links) as inputs:
            leaf = states.pop().detach().requires_grad_()
            behind = view.forward(block, leaf)
        gradient, *of_inputs = torch.autograd.grad(behind, [leaf, *inputs], gradient)
        read = zip(links, inputs, of_inputs, strict=True)
        found.append([_of_gates(link, x.detach(), g, examples) for link, x, g in read])
    return found[::-1]


def _at_head(view: BlockView, hidden_BTD: Tensor, tokens_BT: Tensor, loss: Loss) -> Tensor:
    """Of the examples' losses with respect to the hidden states, `[B, T, D]`; logits of one sequence at a time."""
    gradients = []
    for hidden, labels_T in zip(hidden_BTD, view.labels(tokens_BT), strict=True):
        with torch.enable_grad():
            leaf = hidden[None].detach().requires_grad_()
            logits_1TV = view.logits(leaf)
            rows = len(labels_T) if view.items_apart else 1
            reference = loss.prepare(logits_1TV, labels_T.reshape(rows, -1, *labels_T.shape[1:]))
            losses_N = loss.measure(logits_1TV.reshape(rows, -1, logits_1TV.shape[-1]), reference)
            gradients.append(torch.autograd.grad(losses_N.sum(), leaf)[0])
    return torch.cat(gradients)


def _of_gates(link: LiveWidth, inputs: Tensor, gradient: Tensor, examples: int) -> Tensor:
    """The sum of x dL/dx over the inputs of each group and all their positions, `[N, G]`."""
    product = inputs.float() * gradient.float()
    if isinstance(link.consumer, nn.Conv2d):
        product = product.movedim(1, -1)
    groups = link.width.groups
    return product.reshape(examples, -1, groups, product.shape[-1] // groups).sum((1, 3))
