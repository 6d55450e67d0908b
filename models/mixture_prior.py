"""A VAE whose prior is a learnt mixture of Gaussians, as one density of z.

    model   z ~ Σ_k π_k N(m_k, diag s_k²),   x ~ p(x | f(z))
    guide   q(z | x) = N(μ(x), diag σ(x)²)

log p(x) is that of `GaussianMixtureVAE` with the same numbers: here the component never appears in the program, there
it is a site that is summed out. A prior that the data shape takes from the gap that a standard Gaussian leaves between
the prior and the aggregate posterior: "VAE with a VampPrior" (Tomczak & Welling, 2018), arXiv:1705.07120, section 3.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihoods import Likelihood
from .networks import whole_number
from .vae import VAE


class MixturePriorVAE(VAE):
    """A VAE with a mixture of Gaussians as its prior.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        likelihood: p(x | f(z)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers of encoder and decoder.
        num_components: K, of the mixture.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> vae = MixturePriorVAE(num_features=64, latent_dim=2, hidden=(16,), num_components=3)
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
        num_components: int = 20,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__(num_features, latent_dim, hidden, likelihood, nonlinearity)
        K = whole_number("num_components", num_components)
        self.component_logits = nn.Parameter(torch.zeros(K))
        self.component_loc = nn.Parameter(torch.randn(K, latent_dim))
        self.component_log_scale = nn.Parameter(torch.zeros(K, latent_dim))

    def prior(self) -> dist.TorchDistribution:
        """p(z), of event shape `(latent_dim,)`."""
        scale = self.component_log_scale.exp() + torch.finfo(self.component_log_scale.dtype).eps
        components = dist.Normal(self.component_loc, scale).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.component_logits), components)

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z) p(x | z).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("mixture_prior_vae", self)
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
        pyro.module("mixture_prior_vae", self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(*self.encode(x)).to_event(1))
