"""Networks: from the neuron to the pictures' encoder and decoder.

A neuron is an affine map and a nonlinearity, a layer is neurons side by side, a network is layers one after another:

    a = s(w·x + b),    h = s(W x + b),    f(x) = W_L h_{L−1} + b_L,    h_l = s(W_l h_{l−1} + b_l).

Every network maps the last dimension and broadcasts over all that stand before it, `(num_particles, num_data, ...)`:
this is what lets a pair run under an outer plate of particles. The last affine map has no nonlinearity, and every
network of several layers shows the bias of its output as `output_bias`, so that it can start at the data's mean.

Weights start from Glorot's uniform rule, W ~ U(−a, a) with a² = 6 / (fan_in + fan_out), biases from zero:
"Understanding the difficulty of training deep feedforward neural networks" (Glorot & Bengio, 2010), AISTATS.
The default nonlinearity is tanh, for which the rule was derived; it is smooth, as samplers that follow gradients need.
"""

from itertools import pairwise
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from ppvae.errors import OptionError

Affine = TypeVar("Affine", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def glorot(affine: Affine) -> Affine:
    """Start an affine map from W ~ U(−a, a), a² = 6 / (fan_in + fan_out), and b = 0 (Glorot & Bengio, 2010).

    Args:
        affine: a linear map or a convolution; for the latter a fan counts channels times the pixels of the kernel.

    Returns:
        The same map.

    Example:
        >>> affine = glorot(nn.Linear(4, 2))
        >>> bool((affine.weight.abs() <= 1).all()), affine.bias.tolist()
        (True, [0.0, 0.0])
    """
    nn.init.xavier_uniform_(affine.weight)
    if affine.bias is not None:
        nn.init.zeros_(affine.bias)
    return affine


class Layer(nn.Sequential):
    """Neurons side by side, h = s(W x + b): `(..., in_features)` to `(..., out_features)`.

    Args:
        in_features: number of inputs.
        out_features: number of neurons.
        nonlinearity: the module class of s, applied to each neuron.

    Example:
        >>> Layer(3, 5)(torch.zeros(7, 2, 3)).shape
        torch.Size([7, 2, 5])
    """

    def __init__(self, in_features: int, out_features: int, nonlinearity: type[nn.Module] = nn.Tanh):
        whole_number("in_features", in_features)
        whole_number("out_features", out_features)
        super().__init__(glorot(nn.Linear(in_features, out_features)), nonlinearity())


class Neuron(Layer):
    """One neuron, a = s(w·x + b): `(..., in_features)` to `(...)`.

    Args:
        in_features: number of inputs.
        nonlinearity: the module class of s.

    Example:
        >>> Neuron(3)(torch.zeros(7, 3)).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """

    def __init__(self, in_features: int, nonlinearity: type[nn.Module] = nn.Tanh):
        super().__init__(in_features, 1, nonlinearity)

    def forward(self, x: Tensor) -> Tensor:
        """The activation a, of shape `(...)`."""
        return super().forward(x).squeeze(-1)


class MLP(nn.Sequential):
    """Layers one after another and a last affine map: `(..., in_features)` to `(..., out_features)`.

    Args:
        in_features: number of inputs.
        hidden: widths of the hidden layers; `()` leaves one affine map.
        out_features: number of outputs.
        nonlinearity: the module class of s in the hidden layers.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> network = MLP(64, (200, 200), 40)
        >>> network(torch.zeros(5, 10, 64)).shape, network.output_bias.shape
        (torch.Size([5, 10, 40]), torch.Size([40]))
    """

    def __init__(
        self, in_features: int, hidden: tuple[int, ...], out_features: int, nonlinearity: type[nn.Module] = nn.Tanh
    ):
        whole_number("out_features", out_features)
        widths = (whole_number("in_features", in_features), *(whole_number("hidden width", width) for width in hidden))
        layers = [Layer(fan_in, fan_out, nonlinearity) for fan_in, fan_out in pairwise(widths)]
        super().__init__(*layers, glorot(nn.Linear(widths[-1], out_features)))

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of the last affine map, of shape `(out_features,)`."""
        return cast(nn.Linear, self[-1]).bias


class ConvEncoder(nn.Module):
    """Two convolutions that halve the picture, then an affine map: `(..., H·W)` to `(..., out_features)`.

    Args:
        image_shape: the picture (H, W); rows come flattened, row by row.
        out_features: number of outputs.
        channels: number of channels after each of the two convolutions.
        nonlinearity: the module class of s after each convolution.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> ConvEncoder((8, 8), 40)(torch.zeros(5, 10, 64)).shape
        torch.Size([5, 10, 40])
    """

    def __init__(
        self,
        image_shape: tuple[int, int],
        out_features: int,
        channels: tuple[int, int] = (16, 32),
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        super().__init__()
        _check_image(image_shape, channels)
        whole_number("out_features", out_features)
        self.image_shape = tuple(image_shape)
        first, second = channels
        height, width = _quarter(image_shape)
        self.convolutions = nn.Sequential(
            glorot(nn.Conv2d(1, first, kernel_size=3, stride=2, padding=1)),
            nonlinearity(),
            glorot(nn.Conv2d(first, second, kernel_size=3, stride=2, padding=1)),
            nonlinearity(),
            nn.Flatten(),
        )
        self.affine = glorot(nn.Linear(second * height * width, out_features))

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of the last affine map, of shape `(out_features,)`."""
        return self.affine.bias

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, of shape `(..., out_features)`."""
        # A convolution knows one batch dimension only: the leading ones are laid flat, then restored.
        output = self.affine(self.convolutions(x.reshape(-1, 1, *self.image_shape)))
        return output.reshape(*x.shape[:-1], output.shape[-1])


class ConvDecoder(nn.Module):
    """A layer, then two transposed convolutions that double the picture: `(..., in_features)` to `(..., H·W·k)`.

    The k outputs of a pixel stand side by side, in the order in which a likelihood reads them. The picture is grown
    to the next multiple of four and cropped to (H, W). The bias of the output is a parameter per pixel and output.

    Args:
        in_features: number of inputs.
        image_shape: the picture (H, W).
        outputs_per_pixel: k, the likelihood's `outputs_per_feature`.
        channels: number of channels before each of the two transposed convolutions.
        nonlinearity: the module class of s before each transposed convolution.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> ConvDecoder(20, (8, 8))(torch.zeros(5, 10, 20)).shape
        torch.Size([5, 10, 64])
    """

    def __init__(
        self,
        in_features: int,
        image_shape: tuple[int, int],
        outputs_per_pixel: int = 1,
        channels: tuple[int, int] = (32, 16),
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        super().__init__()
        _check_image(image_shape, channels)
        whole_number("outputs_per_pixel", outputs_per_pixel)
        self.image_shape = tuple(image_shape)
        first, second = channels
        small = _quarter(image_shape)
        self.convolutions = nn.Sequential(
            Layer(in_features, first * small[0] * small[1], nonlinearity),
            nn.Unflatten(-1, (first, *small)),
            glorot(nn.ConvTranspose2d(first, second, kernel_size=4, stride=2, padding=1)),
            nonlinearity(),
            # No bias per channel: `output_bias` holds one per pixel.
            glorot(nn.ConvTranspose2d(second, outputs_per_pixel, kernel_size=4, stride=2, padding=1, bias=False)),
        )
        self.output_bias = nn.Parameter(torch.zeros(image_shape[0] * image_shape[1] * outputs_per_pixel))

    def forward(self, z: Tensor) -> Tensor:
        """The outputs, of shape `(..., H·W·k)`."""
        height, width = self.image_shape
        pictures = self.convolutions(z.reshape(-1, z.shape[-1]))[..., :height, :width]
        output = pictures.movedim(-3, -1).flatten(1) + self.output_bias
        return output.reshape(*z.shape[:-1], output.shape[-1])


def _quarter(image_shape: tuple[int, int]) -> tuple[int, int]:
    """The picture's shape after two halvings, each rounded up."""
    height, width = image_shape
    return -(-height // 4), -(-width // 4)


def _check_image(image_shape: tuple[int, int], channels: tuple[int, int]) -> None:
    if len(image_shape) != 2 or len(channels) != 2:
        raise OptionError(
            f"image_shape is {tuple(image_shape)} and channels is {tuple(channels)}; "
            "give the picture as (height, width) and one number of channels for each of the two convolutions."
        )
    for name, size in zip(("height", "width", "channels", "channels"), (*image_shape, *channels), strict=True):
        whole_number(name, size)


def whole_number(name: str, value: int, at_least: int = 1) -> int:
    """The value of an option that counts something.

    Args:
        name: the option, for the message.
        value: its value.
        at_least: the smallest value that can be used.

    Returns:
        The same value.

    Raises:
        OptionError: value is not a whole number, or is too small.

    Example:
        >>> whole_number("latent_dim", 0)
        Traceback (most recent call last):
        ...
        ppvae.errors.OptionError: latent_dim is 0; give a whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise OptionError(f"{name} is {value!r}; give a whole number of at least {at_least}.")
    return value
