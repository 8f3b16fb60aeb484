"""Shared by the benchmarks, and none itself: networks that read images, as functions for `--model FILE.py:FUNCTION`.

They are made from a seed, in the words of PyTorch alone, so that any version of autoprune can search them.
"""

import os

import torch
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = "PARITY_RESNET20"
"""The environment variable that names a file of weights for `resnet20`; without it they are random."""


class Block(nn.Module):
    """A basic block with a shortcut without parameters (He et al. 2016, sec. 4.2, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]`."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.more:
            left = self.more // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, left, self.more - left))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """Three stages of `(depth - 2) / 6` blocks with 16, 32 and 64 channels."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inputs = 16
        for number, outputs in enumerate((16, 32, 64), 1):
            first = Block(inputs, outputs, 1 if number == 1 else 2)
            others = [Block(outputs, outputs, 1) for _ in range((depth - 2) // 6 - 1)]
            setattr(self, f"layer{number}", nn.Sequential(first, *others))
            inputs = outputs
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, 10]` of `[B, 3, 32, 32]`."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class Chain(nn.Module):
    """Convolutions in a row and linear layers behind them: no family knows it, so it is traced."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 8), (8, 8), (8, 12), (12, 12), (12, 10)):
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if inputs == outputs else []
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2))
        self.fc1, self.bn, self.fc2 = nn.Linear(40, 14), nn.BatchNorm1d(14), nn.Linear(14, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, 10]` of `[B, 3, 32, 32]`."""
        x = torch.flatten(self.features(x), 1)
        logits: Tensor = self.fc2(functional.relu(self.bn(self.fc1(x))))
        return logits


def resnet20() -> nn.Module:
    """ResNet-20 with the weights of a file, or random ones."""
    network = _seeded(CifarResNet, 20)
    if os.environ.get(WEIGHTS):
        from safetensors.torch import load_file

        network.load_state_dict(load_file(os.environ[WEIGHTS]))
    return network


def chain() -> nn.Module:
    """A network that is traced."""
    return _seeded(Chain)


def _seeded(kind: type[nn.Module], *arguments: int) -> nn.Module:
    """Random weights, with statistics of BatchNorm that differ from channel to channel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind(*arguments).eval()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor in (module.weight.data, module.running_var):
                    assert tensor is not None
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias.data, module.running_mean):
                    assert tensor is not None
                    tensor.normal_(0.0, 0.2)
    return network
