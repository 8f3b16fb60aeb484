"""tiny-cnn: a residual network that reads digits of 8x8 pixels, trained and embedded, to try a search on images with.

Three stages of basic blocks (He et al. 2016) in torchvision's naming. scripts/train_tiny_cnn.py has trained it.
"""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from autoprune.files.arrays import read_tensors

WEIGHTS = Path(__file__).parent.parent / "assets" / "tiny-cnn" / "model.safetensors"
WIDTHS = (8, 12, 16)
BLOCKS = 3
CLASSES = 10


class Block(nn.Module):
    """Two convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W] -> [N, outputs, H / stride, W / stride]`."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.downsample(x))


class TinyCNN(nn.Module):
    """The network without its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], 1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], 2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], 2)
        self.fc = nn.Linear(WIDTHS[2], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[N, 10]` of `[N, 1, 8, 8]`."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def tiny_cnn() -> TinyCNN:
    """The trained network, in evaluation mode."""
    network = TinyCNN()
    network.load_state_dict(read_tensors(WEIGHTS))
    return network.eval()


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(BLOCKS - 1)))
