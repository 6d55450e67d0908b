"""The VampPrior: a VAE whose prior is the guide itself, averaged over pseudo-inputs that are learnt.

    model   z ~ (1/K) Σ_k q(z | u_k),   x ~ p(x | f(z))
    guide   q(z | x) = N(μ(x), diag σ(x)²)

The best prior for an ELBO is the aggregate posterior (1/N) Σ_i q(z | x_i); K pseudo-inputs u_k stand for the N data.
They start at data that are spread evenly over the rows, in the units that the encoder sees.
"VAE with a VampPrior" (Tomczak & Welling, 2018), arXiv:1705.07120.
"""

from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihoods import Likelihood
from .networks import whole_number
from .vae import VAE


class VampPriorVAE(VAE):
    """A VAE with a VampPrior: model and guide share the encoder.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        likelihood: p(x | f(z)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers of encoder and decoder.
        num_pseudo_inputs: K.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> vae = VampPriorVAE(num_features=64, latent_dim=2, hidden=(16,), num_pseudo_inputs=3)
        >>> vae.prior().sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 10,
        hidden: tuple[int, ...] = (200, 200),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
        num_pseudo_inputs: int = 50,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__(num_features, latent_dim, hidden, likelihood, nonlinearity)
        self.pseudo_inputs = nn.Parameter(
            torch.rand(whole_number("num_pseudo_inputs", num_pseudo_inputs), num_features)
        )

    @classmethod
    def for_data(cls, x: Tensor, likelihood: Likelihood, **options: Any) -> Self:
        """As `VAE.for_data`; the pseudo-inputs start at rows of x.

        Args:
            x: the data as the likelihood sees them, `(num_data, D)`.
            likelihood: p(x | f(z)).
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: x is outside the likelihood's support.
            OptionError: an option has a value that cannot be used.
        """
        vae = super().for_data(x, likelihood, **options)
        with torch.no_grad():
            rows = torch.linspace(0, len(x) - 1, len(vae.pseudo_inputs)).round().long()
            vae.pseudo_inputs.copy_((x[rows] - vae.input_shift) / vae.input_scale)
        return vae

    def prior(self) -> dist.TorchDistribution:
        """p(z), of event shape `(latent_dim,)`."""
        loc, scale = self.encode(self.pseudo_inputs * self.input_scale + self.input_shift)
        equal = dist.Categorical(logits=loc.new_zeros(len(loc)))
        return dist.MixtureSameFamily(equal, dist.Normal(loc, scale).to_event(1))

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z) p(x | z).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("vamp_prior_vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(z | x).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("vamp_prior_vae", self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(*self.encode(x)).to_event(1))
