"""Plain modules that no family covers, each its own way of writing a network that reads images."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

CLASSES = 5


class Vgg(nn.Module):
    """A chain of convolutions with BatchNorm, and linear layers behind flattened maps."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 8), (8, 8), (8, 12), (12, 12), (12, 10)):
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] if inputs == outputs else []
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2))
        self.drop = nn.Dropout()
        self.fc1, self.bn, self.fc2 = nn.Linear(40, 14), nn.BatchNorm1d(14), nn.Linear(14, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = self.drop(x.view(x.size(0), -1))
        out: Tensor = self.fc2(functional.relu(self.bn(self.fc1(x)), inplace=True))
        return out


class Inverted(nn.Module):
    """An inverted residual, in MobileNetV2's way."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = 3 * inputs
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            *(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(x) if self.residual else self.conv(x)
        return out


class Mobile(nn.Module):
    """Inverted residuals with and without a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.features = nn.ModuleList([Inverted(8, 8, 1), Inverted(8, 12, 2), Inverted(12, 12, 1)])
        self.classifier = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.features:
            x = block(x)
        out: Tensor = self.classifier(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return out


class PreActivation(nn.Module):
    """A residual block whose norms come first (He et al. 2016b)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        out: Tensor = self.conv2(functional.relu(self.bn2(y)))
        out += shortcut
        return out


class PreActivated(nn.Module):
    """A network of them, with a bottleneck behind whose three convolutions have no norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.stages = nn.Sequential(PreActivation(8, 8, 1), PreActivation(8, 12, 2))
        self.narrow = nn.Sequential(
            *(nn.Conv2d(12, 6, 1), nn.SiLU(), nn.Conv2d(6, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.SiLU()),
            *(nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12)),
        )
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        x = self.stages(self.stem(x))
        x = x + self.narrow(x)
        if scale is not None:
            x = scale * x
        out: Tensor = self.fc(functional.relu(x).mean((2, 3)))
        return out


class Mixing(nn.Module):
    """A block of an MLP-Mixer: neurons over patches, then over features."""

    def __init__(self, patches: int, features: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.tokens = nn.Sequential(nn.Linear(patches, 10), nn.GELU(), nn.Linear(10, patches))
        self.channels = nn.Sequential(nn.Linear(features, 14), nn.GELU(), nn.Dropout(0.1), nn.Linear(14, features))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.channels(self.norm2(x))
        return out


class Mixer(nn.Module):
    """An MLP-Mixer (Tolstikhin et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.place = nn.Parameter(torch.zeros(1, 16, 8))
        self.blocks = nn.Sequential(Mixing(16, 8), Mixing(16, 8))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        out: Tensor = self.head(self.blocks(x).mean(1))
        return out


class Mlp(nn.Module):
    """Linear layers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Flatten(), nn.Linear(3 * 32 * 32, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10)),
            *(nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 9), nn.Tanh(), nn.Linear(9, CLASSES)),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class DenseLayer(nn.Module):
    """A layer of a DenseNet (Huang et al. 2017): what it makes is put behind what it reads."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(y)))], 1)


class Dense(nn.Module):
    """A DenseNet: only what is inside a layer can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layers = nn.Sequential(DenseLayer(8, 4), DenseLayer(12, 4))
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = self.layers(self.stem(x))
        out: Tensor = self.fc(functional.adaptive_avg_pool2d(x, 1).reshape(batch, -1))
        return out


class Same(nn.Conv2d):
    """A convolution that pads like TensorFlow, by the image's size, as timm's does."""

    def forward(self, input: Tensor) -> Tensor:
        more = []
        for size, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            more += [total // 2, total - total // 2]
        if any(more):
            input = functional.pad(input, more)
        return functional.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Causal(nn.Conv2d):
    """A convolution that sees no pixel below or to the right."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(functional.pad(input, (2, 0, 2, 0)))


class Standardised(nn.Conv2d):
    """A convolution with a standardised weight and a gain of each output (Qiao et al. 2019)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = self.gain * weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return functional.conv2d(input, weight, self.bias, self.stride, self.padding)


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        gradient: Tensor = gradients[0] * s * (1 + x * (1 - s))
        return gradient


class Swish(nn.Module):
    """An activation that torch.fx cannot look into."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Doubled.apply(x)  # type: ignore[no-untyped-call]  # torch has no types for it
        return out


class Skipped(nn.Module):
    """Stochastic depth (Huang et al. 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1, 1, 1) > 0.2) if self.training else x


class Gate(nn.Module):
    """Squeeze and excitation (Hu et al. 2018), with the sizes asked of what comes in."""

    def __init__(self, channels: int, linear: bool) -> None:
        super().__init__()
        self.linear, inner = linear, channels // 8
        of = nn.Linear if linear else Pointwise
        self.reduce, self.expand, self.act = of(channels, inner), of(inner, channels), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = functional.adaptive_avg_pool2d(x, 1)
        y = y.view(b, c) if self.linear else y
        return x * torch.sigmoid(self.expand(self.act(self.reduce(y)))).view(b, c, 1, 1)


class Pointwise(nn.Conv2d):
    """A convolution of single pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)


class Squeezed(nn.Module):
    """An inverted residual of EfficientNet's kind: "same" padding, gates, an activation and a depth of its own."""

    def __init__(self, inputs: int, outputs: int, stride: int, linear: bool) -> None:
        super().__init__()
        inner = 4 * inputs
        self.expand, self.norm1 = Same(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.depth, self.norm2 = Same(inner, inner, 3, stride, groups=inner, bias=False), nn.BatchNorm2d(inner)
        self.gate, self.project = Gate(inner, linear), Same(inner, outputs, 1, bias=False)
        self.norm3, self.act, self.skip = nn.BatchNorm2d(outputs), Swish(), Skipped()
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.expand(x)))
        y = self.gate(self.act(self.norm2(self.depth(y))))
        y = self.norm3(self.project(y))
        out: Tensor = x + self.skip(y) if self.residual else y
        return out


class Efficient(nn.Module):
    """EfficientNet's way of writing it, with the number of images alive throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Same(3, 8, 3, 2)
        self.blocks = nn.ModuleList([Squeezed(8, 8, 1, True), Squeezed(8, 12, 2, False), Squeezed(12, 12, 1, False)])
        self.head, self.fc = Same(12, 16, 1), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        count = x.size(0)
        x = functional.hardswish(self.stem(x))
        for block in self.blocks:
            x = block(x)
        x = functional.adaptive_avg_pool2d(functional.hardswish(self.head(x)), 1)
        out: Tensor = self.fc(x.view(count, -1))
        return out


class Padded(nn.Module):
    """Pads, crops and convolutions with ways of their own between the layers; what comes in is viewed."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3), Causal(16, 10, 3)
        self.pad, self.norm, self.act = nn.ZeroPad2d((0, 1, 0, 1)), nn.BatchNorm2d(16), nn.PReLU(16)
        self.three = nn.Conv2d(10, 4, 3, 2, padding=1, padding_mode="reflect")
        self.standard, self.four = Standardised(4, 9, 3, padding=1), nn.Conv2d(9, 6, 3, padding="same")
        self.fc = nn.Linear(6 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.shape[0], 3, -1).view(x.shape)
        x = self.pad(self.act(self.norm(self.one(x))))
        x = functional.relu(self.two(functional.pad(x, (1, 1, 1, 1))[:, :, 1:, 1:]))
        x = functional.silu(self.three(x))
        x = self.four(functional.gelu(self.standard(x)))
        out: Tensor = self.fc(functional.max_pool2d(x, 4).view(x.shape[0], -1))
        return out


class Normed(nn.Module):
    """Norms without weights, and a layer whose weight is normalised by a parametrization."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm1 = weight_norm(nn.Conv2d(3, 8, 3, 2, 1)), nn.BatchNorm2d(8, affine=False)
        self.two, self.norm2 = nn.Conv2d(8, 10, 3), nn.BatchNorm2d(10, affine=False)
        self.three, self.norm3 = nn.Conv2d(10, 6, 3), nn.BatchNorm2d(6, affine=False)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.one(x)))
        x = functional.relu(self.norm2(self.two(x)))
        out: Tensor = self.fc(self.norm3(self.three(x)).mean((2, 3)))
        return out


NETWORKS: dict[str, Any] = {
    "traced-vgg": Vgg,
    "traced-mobile": Mobile,
    "traced-preactivated": PreActivated,
    "traced-mixer": Mixer,
    "traced-mlp": Mlp,
    "traced-dense": Dense,
    "traced-efficient": Efficient,
    "traced-padded": Padded,
    "traced-normed": Normed,
}
