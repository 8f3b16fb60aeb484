"""Plain modules that read images: residual networks in torchvision's naming, and those that are traced."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tests import traced_networks

CLASSES = traced_networks.CLASSES


class Basic(nn.Module):
    """In torchvision's naming."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """In torchvision's naming."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 2
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class Plain(nn.Module):
    """A residual network of one kind of block."""

    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.layer1 = nn.Sequential(block(16, 16, 1), block(16, 16, 1))
        self.layer2 = nn.Sequential(block(16, 24, 2))
        self.fc = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))
        return out


NETWORKS: dict[str, Any] = {
    "plain-basic": lambda: Plain(Basic),
    "plain-bottleneck": lambda: Plain(Bottleneck),
    **traced_networks.NETWORKS,
}
"""Name -> what makes one."""
