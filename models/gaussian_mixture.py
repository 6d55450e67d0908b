"""The Gaussian-mixture VAE: clusters in the latent space, and the cluster of a datum summed out exactly.

    model   c ~ Categorical(π),   z ~ N(m_c, diag s_c²),   x ~ p(x | f(z))
    guide   q(z | x) = N(μ(x), diag σ(x)²)                            the component is summed out in the model
    or      q(c | x) = Categorical(g(x)),   q(z | x, c) = N(μ(x, c), diag σ(x, c)²)     `component_guide=True`

p(c | x) says which cluster a datum belongs to. The component is marked for enumeration, so that neither training nor an
estimate of log p(x) draws it; with `component_guide` the decoder runs once for each component.
"Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders" (Dilokthanakul et al., 2016),
arXiv:1611.02648; "Variational Deep Embedding" (Jiang et al., 2017), arXiv:1611.05148.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppvae.errors import OptionError

from .likelihoods import Likelihood
from .location_scale import location_and_scale
from .networks import MLP, whole_number
from .vae import VAE

_ENUMERATED: Any = {"enumerate": "parallel"}


class GaussianMixtureVAE(VAE):
    """A VAE whose prior is a mixture of Gaussians with an enumerated component.

    Sites: the discrete latent `component`, the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event
    shape `(num_features,)`, all in the plate `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        likelihood: p(x | f(z)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers of encoder and decoder.
        num_components: K, the number of clusters.
        component_guide: whether the guide proposes the component too, and z given it.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> vae = GaussianMixtureVAE(num_features=64, latent_dim=2, hidden=(16,), num_components=3)
        >>> vae.responsibilities(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 10,
        hidden: tuple[int, ...] = (200, 200),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
        num_components: int = 10,
        component_guide: bool = False,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__(num_features, latent_dim, hidden, likelihood, nonlinearity)
        K = whole_number("num_components", num_components)
        self.component_logits = nn.Parameter(torch.zeros(K))
        self.component_loc = nn.Parameter(torch.randn(K, latent_dim))
        self.component_log_scale = nn.Parameter(torch.zeros(K, latent_dim))
        self.component_encoder: MLP | None = None
        if component_guide:
            self.encoder = MLP(num_features + K, hidden, 2 * latent_dim, nonlinearity)
            self.component_encoder = MLP(num_features, hidden, K, nonlinearity)

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(c) p(z | c) p(x | z).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("gaussian_mixture_vae", self)
        with pyro.plate("data", len(x)):
            share = dist.Categorical(logits=self.component_logits)
            component = pyro.sample("component", share, infer=_ENUMERATED)
            z = pyro.sample("z", dist.Normal(self.component_loc[component], self._scale()[component]).to_event(1))
            return pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The proposal: q(z | x), or q(c | x) q(z | x, c).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("gaussian_mixture_vae", self)
        with pyro.plate("data", len(x)):
            if self.component_encoder is None:
                loc, scale = self.encode(x)
            else:
                seen = (x - self.input_shift) / self.input_scale
                odds = dist.Categorical(logits=self.component_encoder(seen))
                loc, scale = self._encode_with(seen, pyro.sample("component", odds, infer=_ENUMERATED))
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of q(z | x); OptionError where q is a mixture over the component."""
        if self.component_encoder is not None:
            raise OptionError("q(z | x) is a mixture, which has no one location and scale: take embed(x).")
        return super().encode(x)

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(c | z): `(..., latent_dim)` to `(..., num_components)`, which sums to 1; x adds nothing once z is known."""
        log_p = dist.Normal(self.component_loc, self._scale()).log_prob(z.unsqueeze(-2)).sum(-1)
        return (log_p + self.component_logits).softmax(-1)

    def _scale(self) -> Tensor:
        return self.component_log_scale.exp() + torch.finfo(self.component_log_scale.dtype).eps

    def _encode_with(self, seen: Tensor, component: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of q(z | x, c), with the dims that the component brings to the left."""
        code = F.one_hot(component, len(self.component_logits)).to(seen.dtype)
        batch = torch.broadcast_shapes(code.shape[:-1], seen.shape[:-1])
        both = torch.cat([seen.expand(*batch, -1), code.expand(*batch, -1)], -1)
        return location_and_scale(self.encoder(both))
