"""Weights of few bits stay as they are while a network is trained: any change would take them off their grids.

A module with such a weight carries the mark `weight_stays`, which copies of the network keep. Its weight gets no
gradient and no adapter. Norms, biases and the weights of dense units are trained.
"""

from torch import nn

MARK = "weight_stays"


def stays(module: nn.Module) -> bool:
    """Whether a module's weight is not to be trained."""
    return bool(getattr(module, MARK, False))


def frozen(network: nn.Module) -> list[nn.Module]:
    """The modules of a network whose weights are not to be trained."""
    return [module for module in network.modules() if stays(module)]


def freeze(network: nn.Module) -> None:
    """Take their weights out of the training."""
    for weight in _weights(network):
        weight.requires_grad_(False)


def told(network: nn.Module) -> str | None:
    """A sentence about what is not trained; None if there is nothing."""
    count = sum(weight.numel() for weight in _weights(network))
    if not count:
        return None
    whole = sum(parameter.numel() for parameter in network.parameters())
    return (
        f"weights of few bits stay as they are, {count / whole:.0%} of the parameters: norms, biases and dense units "
        "are trained."
    )


def _weights(network: nn.Module) -> list[nn.Parameter]:
    """Their weights, tied ones once."""
    held = (getattr(module, "weight", None) for module in frozen(network))
    return list({id(weight): weight for weight in held if weight is not None}.values())
