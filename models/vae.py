"""The variational autoencoder: a nonlinear generative model, and a network that gives q(z|x).

    model   z ~ N(0, I),   x ~ p(x | f(z))            f the decoder, p the likelihood
    guide   q(z | x) = N(μ(x), diag σ(x)²)            (μ, ρ) the encoder's outputs, σ = log(1 + e^ρ) + ε

trained together by raising the evidence lower bound, log p(x) − KL(q(z|x) ‖ p(z|x)), in nats.
"Auto-Encoding Variational Bayes" (Kingma & Welling, 2014), arXiv:1312.6114.
"""

import math
from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.errors import OptionError

from .likelihoods import Bernoulli, Likelihood
from .location_scale import committed, location_and_scale
from .networks import MLP, whole_number


class VAE(nn.Module):
    """A pair: decoder and likelihood as the model, encoder and mean-field Gaussian as the guide.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        likelihood: p(x | f(z)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers of encoder and decoder.
        encoder: a network of your own, `(..., D)` to `(..., 2·d)`, in place of the MLP.
        decoder: a network of your own, `(..., d)` to `(..., D·k)` with k = `likelihood.outputs_per_feature`, in place
            of the MLP; `for_data` starts its `output_bias` if it has one.
        committed_rate: δ ≥ 0: for every datum, each unit's KL(q(z_j | x) ‖ p(z_j)) is δ nats at least, so that none can
            collapse (a δ-VAE, arXiv:1901.03416); 0 leaves the guide free.

    Raises:
        OptionError: a size is not a positive whole number, or the rate is negative.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.bernoulli(torch.full((5, 64), 0.5))
        >>> vae = VAE(num_features=64, latent_dim=2, hidden=(16,))
        >>> pyro.poutine.trace(vae.guide).get_trace(x).nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    # What the encoder sees is (x − shift) / scale.
    input_shift: Tensor
    input_scale: Tensor

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 20,
        hidden: tuple[int, ...] = (200, 200),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        committed_rate: float = 0.0,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        if not 0 <= committed_rate < math.inf:
            raise OptionError(f"committed_rate is {committed_rate!r}; give nats per unit, 0 or more.")
        self.committed_rate = committed_rate
        self.latent_dim = whole_number("latent_dim", latent_dim)
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        num_outputs = num_features * self.likelihood.outputs_per_feature
        self.encoder = MLP(num_features, hidden, 2 * latent_dim, nonlinearity) if encoder is None else encoder
        self.decoder = MLP(latent_dim, hidden[::-1], num_outputs, nonlinearity) if decoder is None else decoder
        self.register_buffer("input_shift", torch.tensor(0.0))
        self.register_buffer("input_scale", torch.tensor(1.0))

    @classmethod
    def for_data(cls, x: Tensor, likelihood: Likelihood, **options: Any) -> Self:
        """A VAE for these data: it takes their width and type, and its first guess of every datum is their mean.

        The bias of the decoder's output starts where p(x|z) has the data's mean. The encoder sees the data moved and
        scaled to [0, 1] by one shift and one scale for all features: tanh layers that start from Glorot's weights
        saturate on counts up to 16, and a scale per feature would blow up pixels that are hardly ever touched.

        Args:
            x: the data as the likelihood sees them, `(num_data, D)`.
            likelihood: p(x | f(z)).
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: x is outside the likelihood's support.
            OptionError: an option has a value that cannot be used.

        Example:
            >>> from ppvae.models import Binomial
            >>> x = torch.tensor([[0.0, 16.0], [8.0, 16.0]])
            >>> vae = VAE.for_data(x, Binomial(16), latent_dim=2)
            >>> vae.input_scale.item(), vae.decode(torch.zeros(2)).mean.round().tolist()
            (16.0, [4.0, 16.0])
        """
        likelihood.check(x)
        vae = cls(x.shape[1], likelihood=likelihood, **options).to(x)
        with torch.no_grad():
            vae.input_shift.copy_(x.min())
            if x.max() > x.min():
                vae.input_scale.copy_(x.max() - x.min())
            output_bias = getattr(vae.decoder, "output_bias", None)
            if output_bias is not None:
                output_bias.copy_(likelihood.initial_bias(x))
        return vae

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of q(z | x).

        Args:
            x: `(..., num_features)`.

        Returns:
            μ(x) and σ(x), each `(..., latent_dim)`.
        """
        loc, scale = location_and_scale(self.encoder((x - self.input_shift) / self.input_scale))
        return committed(loc, scale, self.committed_rate) if self.committed_rate else loc, scale

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z).

        Args:
            z: `(..., latent_dim)`.

        Returns:
            A distribution of batch shape `(...)` and event shape `(num_features,)`.
        """
        return self.likelihood(self.decoder(z))

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z) p(x | z).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            return pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(z | x).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            loc, scale = self.encode(x)
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))
