"""What language models are taught beside the tokens: positions of documents, which tokens count, kept logits.

Shapes: N sequences, B of a forward pass, T tokens, V vocabulary.
"""

import hashlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.data.layout import Layout
from autoprune.data.text import NOTHING
from autoprune.errors import Notice, UserError
from autoprune.ports.training import LossSettings

NEAR = 1e-3
"""Logits are equal if they differ by less than this share of the largest one, in float32."""
NEAR_HALF = 5e-2
"""The same in half precision."""


def positions_of(documents_BT: Tensor) -> Tensor:
    """The position of each token in its document, `[B, T]`: transformers keep documents apart by these."""
    steps_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return steps_T - torch.where(begins_BT, steps_T, 0).cummax(dim=1).values


def counted(labels_BT: Tensor, layout: Layout, settings: LossSettings) -> Tensor:
    """Labels without those that are not to be learned, `[B, T]`.

    The first token of a document is not predicted from the document before it. With `answers_only` only tokens of the
    assistant are predicted.
    """
    labels_BT = labels_BT.clone()
    documents_BT, answers_BT = layout.documents, layout.answers
    if settings.separate_documents:
        labels_BT[:, :-1][documents_BT[:, 1:] != documents_BT[:, :-1]] = NOTHING
    if settings.answers_only:
        labels_BT[:, :-1][~answers_BT[:, 1:]] = NOTHING
    return labels_BT


def check_layout(layout: Layout, settings: LossSettings) -> None:
    """Refuse `answers_only` without answers, and tell where `separate_documents` changes nothing.

    Raises:
        UserError: the data hold nothing that an assistant says.
    """
    if settings.answers_only and not bool(layout.answers[:, 1:].any()):
        raise UserError(
            "answers_only=true learns what the assistant says in chats, and the run's data hold no such turn: leave it."
        )
    if settings.separate_documents and not bool((layout.documents[:, 1:] != layout.documents[:, :-1]).any()):
        told = "separate_documents=true changes nothing: every sequence of the run's data is of one document."
        warnings.warn(told, Notice, stacklevel=2)


@torch.no_grad()
def check_separation(network: nn.Module, tokens_NT: Tensor, documents_NT: Tensor) -> None:
    """See that a network keeps documents apart: the second of a sequence has the logits that it has alone.

    Raises:
        UserError: it does not, or takes no positions.
    """
    found = (documents_NT[:, 1:] != documents_NT[:, :-1]).nonzero()
    if not len(found):
        return
    row, begin = found[0, 0], int(found[0, 1]) + 1
    tokens_1T, documents_1T = tokens_NT[row : row + 1], documents_NT[row : row + 1]
    end = begin + int((documents_1T[0, begin:] == documents_1T[0, begin]).sum())
    net: Any = network
    device = next(network.parameters()).device
    try:
        positions_1T = positions_of(documents_1T).to(device)
        packed = net(input_ids=tokens_1T.to(device), position_ids=positions_1T, use_cache=False).logits
        alone = net(input_ids=tokens_1T[:, begin:end].to(device), use_cache=False).logits
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"separate_documents=true: the model takes no positions ({error}): leave it.") from error
    near = NEAR if packed.dtype == torch.float32 else NEAR_HALF
    apart = float((packed[:, begin:end] - alone).abs().max())
    if not apart <= near * float(alone.abs().max()):
        raise UserError(
            "separate_documents=true: this model attends across documents whatever positions it is given (its logits "
            f"differ by {apart:.3g}): leave it."
        )


def digest_of(*tensors: Tensor) -> str:
    """A hash of tensors, for the key of a cache."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(str(list(tensor.shape)).encode() + tensor.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
