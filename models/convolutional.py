"""The convolutional VAE: a VAE of images with convolutional networks.

model   z ~ N(0, I),   x ~ p(x | f(z))        f: a layer, then two transposed convolutions that double the picture
guide   q(z | x) = N(μ(x), diag σ(x)²)        two convolutions that halve the picture, then an affine map
"""

import math

from torch import nn

from ppvae.errors import OptionError

from .likelihoods import Bernoulli, Likelihood
from .networks import ConvDecoder, ConvEncoder
from .vae import VAE


class ConvolutionalVAE(VAE):
    """A VAE with convolutional networks.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1.

    Args:
        num_features: D, the number of pixels; a datum is a picture laid flat, row by row.
        latent_dim: d, the length of z.
        image_shape: height and width of the picture, by default square.
        likelihood: p(x | f(z)), by default `Bernoulli()`.
        channels: of the encoder's two convolutions; the decoder has the same in reverse order.
        nonlinearity: the module class after each convolution.

    Raises:
        OptionError: a size is not a positive whole number, or the picture has another number of pixels.

    Example:
        >>> ConvolutionalVAE(num_features=64).encoder.image_shape
        (8, 8)
    """

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 20,
        image_shape: tuple[int, int] | None = None,
        likelihood: Likelihood | None = None,
        channels: tuple[int, int] = (16, 32),
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        """Make the pair; the class says what its arguments are."""
        side = math.isqrt(num_features)
        height, width = (side, side) if image_shape is None else image_shape
        if height * width != num_features:
            raise OptionError(f"num_features is {num_features}, not {height} times {width}; give the image_shape.")
        likelihood = Bernoulli() if likelihood is None else likelihood
        encoder = ConvEncoder((height, width), 2 * latent_dim, channels, nonlinearity)
        outputs = likelihood.outputs_per_feature
        decoder = ConvDecoder(latent_dim, (height, width), outputs, channels[::-1], nonlinearity)
        super().__init__(num_features, latent_dim, likelihood=likelihood, encoder=encoder, decoder=decoder)
