"""Layouts of modules' weights: the dimensions of outputs and inputs, and the attributes that hold the shape.

Shapes: O outputs, D inputs (of a convolution channels times kernel), K kept inputs, N positions, E experts.
"""

from typing import Any

from torch import Tensor, nn

from autoprune.cutting.products import is_depthwise, patches


class Layout:
    """The layout of a weight whose module has no shape attributes. Other layouts derive from it.

    Args:
        inputs: the dimension along which a consumer's weight is cut.
    """

    def __init__(self, inputs: int = 1) -> None:
        self.inputs = inputs

    def matrix(self, weight: Tensor) -> Tensor:
        """A view of a weight with its inputs last, `[O, D]`."""
        return weight

    def laid_out(self, weight_OK: Tensor, like: Tensor) -> Tensor:
        """The inverse: a matrix in the layout of the weight `like`. The matrix may have only some of its inputs."""
        return weight_OK

    def read(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """The inputs of the matrix, one row for each position, `[N, D]`."""
        return inputs.reshape(-1, inputs.shape[-1])

    def follow(self, module: nn.Module) -> None:
        """Set the shape attributes of a module after it was cut. Some modules compute with them."""


class Linear(Layout):
    """`[O, D]`, as `nn.Linear`."""

    def follow(self, module: nn.Module) -> None:
        """The attributes that tell the shape."""
        linear: Any = module
        outputs, inputs = linear.weight.shape
        _tell(linear, out_features=outputs, in_features=inputs)


class Transposed(Layout):
    """`[D, O]`, as the `Conv1D` of GPT-2."""

    def __init__(self, inputs: int = 0) -> None:
        super().__init__(inputs)

    def matrix(self, weight: Tensor) -> Tensor:
        """`[O, D]`, a view."""
        return weight.T

    def laid_out(self, weight_OK: Tensor, like: Tensor) -> Tensor:
        """A matrix in this layout."""
        return weight_OK.T

    def follow(self, module: nn.Module) -> None:
        """The attributes that tell the shape."""
        conv1d: Any = module
        if hasattr(module, "nf"):
            inputs, outputs = conv1d.weight.shape
            _tell(conv1d, nx=inputs, nf=outputs)


class Convolution(Layout):
    """`[O, channels, height, width]`, each output channel of all input channels."""

    def matrix(self, weight: Tensor) -> Tensor:
        """`[O, D]`, a view."""
        return weight.flatten(1)

    def laid_out(self, weight_OK: Tensor, like: Tensor) -> Tensor:
        """A matrix in this layout."""
        return weight_OK.reshape(len(weight_OK), -1, *like.shape[2:])

    def read(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Patches of the image, `[N, D]`."""
        patches_NPD = patches(module, inputs)
        return patches_NPD.reshape(-1, patches_NPD.shape[-1])

    def follow(self, module: nn.Module) -> None:
        """The attributes that tell the shape."""
        convolution: Any = module
        outputs, inputs = convolution.weight.shape[:2]
        _tell(convolution, out_channels=outputs, in_channels=inputs)


class Depthwise(Convolution):
    """`[channels, 1, height, width]`: every channel by itself, which follows a width and reads none."""

    def follow(self, module: nn.Module) -> None:
        """The attributes that tell the shape."""
        convolution: Any = module
        channels = len(convolution.weight)
        _tell(convolution, groups=channels, out_channels=channels, in_channels=channels)


class PerChannel(Layout):
    """Vectors with an entry for each channel, as those of BatchNorm."""

    def follow(self, module: nn.Module) -> None:
        """The attributes that tell the shape."""
        norm: Any = module
        each = norm.running_mean if norm.weight is None else norm.weight
        norm.num_features = norm.num_features if each is None else len(each)


class Experts(Layout):
    """`[E, O, D]`: the matrices of a layer's experts as one tensor.

    The tensor is cut along the experts (`inputs` is 0) or inside of them (2). The inputs of experts are computed inside
    their module and are not known outside.
    """

    def matrix(self, weight: Tensor) -> Tensor:
        """`[O, D]`, a view."""
        return weight.flatten(1).T if self.inputs == 0 else weight.flatten(0, 1)

    def laid_out(self, weight_OK: Tensor, like: Tensor) -> Tensor:
        """A matrix in this layout."""
        if self.inputs == 0:
            return weight_OK.T.reshape(-1, *like.shape[1:])
        return weight_OK.reshape(*like.shape[:2], -1)

    def read(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Not from outside.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("each expert reads rows of its own, which no hook on their module sees")


def layout_of(module: nn.Module) -> Layout:
    """The layout of a module's own weights, before it is cut."""
    if isinstance(module, nn.Linear):
        return Linear()
    if isinstance(module, nn.Conv2d):
        return Depthwise() if is_depthwise(module) else Convolution()
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return PerChannel()
    return Transposed() if hasattr(module, "nf") else Layout()


def consumer_layout(weight: Tensor, dim: int) -> Layout:
    """The layout of a weight that reads a width along a dimension, whatever its module is called."""
    if weight.dim() == 4:
        return Convolution()
    if weight.dim() == 3:
        return Experts(dim)
    return Linear() if dim == 1 else Transposed()


def _tell(module: nn.Module, **sizes: int) -> None:
    """Set what has changed: to set an attribute of a module takes longer than to read it, and levels change often."""
    for name, size in sizes.items():
        if getattr(module, name) != size:
            setattr(module, name, size)
