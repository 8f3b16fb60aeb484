"""Constants in the place of dropped sub-blocks as biases of a stock model, where it has them or its configuration can.

A sub-block that is padded with zeros adds the bias of its last layer, and nothing else. So the constant is that bias,
unless a norm stands behind the layer. Linear maps have no such place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.cutting.live import LiveWidth
from autoprune.cutting.replacing import Constant, host_of
from autoprune.errors import UserError
from autoprune.networks.blocks import BlockView

SETTINGS = {"attention": "attention_bias", "mlp": "mlp_bias"}
"""Kind of unit -> the setting of transformers' configurations that gives all of its layers biases."""


@dataclass(frozen=True)
class Placed:
    """A constant that stands where a sub-block was.

    Args:
        layer: index of the layer in the network.
        width: of the sub-block.
        bias: the constant, `[D]`.
    """

    layer: int
    width: LiveWidth
    bias: Tensor

    @property
    def refused(self) -> UserError:
        """What a user reads where the stock model has no place for it."""
        return _refused(self.width, self.layer, "the constant")


def constants_of(widths: Mapping[int, Sequence[LiveWidth]]) -> list[Placed]:
    """The constants of a network as it is cut now.

    Args:
        widths: index of a layer -> its widths.

    Raises:
        UserError: a linear map stands somewhere.
    """
    found = []
    for layer, row in widths.items():
        for width in row:
            module = width.dropping.replacement
            if isinstance(module, Constant):
                found.append(Placed(layer, width, module.bias.detach().clone()))
            elif module is not None:
                raise _refused(width, layer, "the linear map")
    return found


def as_biases(placed: Sequence[Placed], config: Any) -> None:
    """Put constants into the biases of padded layers, and have the configuration give those layers biases.

    Raises:
        UserError: the layers have none, and the configuration has no such setting.
    """
    for one in placed:
        path = one.width.links[-1].width.consumer.module
        if (path, "bias") in one.width.dense.tensors:
            one.width.dense.put((path, "bias"), one.bias)
            continue
        setting = SETTINGS.get(one.width.width.kind, "")
        if not hasattr(config, setting):
            raise one.refused
        setattr(config, setting, True)


def new_biases(placed: Sequence[Placed], model_class: Any, config: Any, prefix: str, state: dict[str, Tensor]) -> None:
    """Add the biases that the configuration now gives the model to its state: constants, and zeros elsewhere.

    Args:
        placed: with the layers' numbers in the exported network.
        model_class: a stock class of transformers.
        config: as `as_biases` left it.
        prefix: of the layers' names.
        state: of the network without them.

    Raises:
        UserError: the model has no such bias.
    """
    with torch.device("meta"):
        model: nn.Module = model_class(config)
    like = next(iter(state.values()))
    wanted = {name: tensor for name, tensor in model.named_parameters() if name not in state and name.endswith(".bias")}
    state |= {name: like.new_zeros(tensor.shape) for name, tensor in wanted.items()}
    for one in placed:
        name = f"{prefix}{one.layer}.{one.width.links[-1].width.consumer.module}.bias"
        if name not in state:
            raise one.refused
        state[name] = one.bias.to(state[name])


def check(placed: Sequence[Placed], view: BlockView) -> None:
    """Raise a UserError where a norm reads what the last layer of a padded sub-block gives.

    Args:
        placed: constants, whose sub-blocks are back in the network.
        view: the network, which is run on token 0 or on the first image.
    """
    if not placed:
        return
    hidden_BTD = view.embed(torch.zeros(1, 1, dtype=torch.long, device=view.device))
    for one in placed:
        if _last_called(one, view, hidden_BTD) != host_of(one.width.width):
            raise one.refused


def _last_called(one: Placed, view: BlockView, hidden_BTD: Tensor) -> str:
    """Path of the last module that a block calls of those that leave with a sub-block."""
    called: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, path=path: called.append(path))
        for path, module in one.width.dropping.modules.items()
    ]
    view.run(one.layer, hidden_BTD)
    for hook in hooks:
        hook.remove()
    return called[-1]


def _refused(width: LiveWidth, layer: int, what: str) -> UserError:
    return UserError(
        f"a stock model has no place for {what} that stands where the {width.width.kind} of layer {layer} was: export "
        "without uniform."
    )
