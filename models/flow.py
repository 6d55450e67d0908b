"""A VAE with normalising flows: a prior and a guide of any shape, both with a known density.

    model   z = T⁻¹(u), u ~ N(0, I),            p(z) = N(T(z); 0, I) |det ∂T/∂z|,     x ~ p(x | f(z))
    guide   z = S_h⁻¹(u), u ~ N(0, I),          q(z | x) = N(S_h(z); 0, I) |det ∂S_h/∂z|,   h(x) the encoder's features

T and S are masked autoregressive flows of zuko, taken into Pyro by `pyro.contrib.zuko`; each can be left out, and a
standard Gaussian prior or a mean-field guide stands in its place.
"Variational Inference with Normalizing Flows" (Rezende & Mohamed, 2015), arXiv:1505.05770; "Masked Autoregressive Flow
for Density Estimation" (Papamakarios et al., 2017), arXiv:1705.07057.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.errors import OptionError

from .likelihoods import Likelihood
from .networks import MLP, whole_number
from .vae import VAE

# Width of the hidden layer of a flow's networks.
_WIDTH = 64


class FlowVAE(VAE):
    """A VAE whose prior and guide are masked autoregressive flows.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        likelihood: p(x | f(z)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers of all networks.
        prior_transforms: how many autoregressive transforms the prior has; 0 is N(0, I).
        guide_transforms: how many the guide has; 0 is the mean-field Gaussian.

    Raises:
        OptionError: a size is not a whole number, or too small.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> flows = FlowVAE(num_features=64, latent_dim=2, hidden=(16,))
        >>> flows.guide(torch.zeros(5, 64)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 10,
        hidden: tuple[int, ...] = (200, 200),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
        prior_transforms: int = 2,
        guide_transforms: int = 2,
    ):
        """Make the pair; the class says what its arguments are."""
        from zuko.flows import MAF  # slow to import

        super().__init__(num_features, latent_dim, hidden, likelihood, nonlinearity)
        whole_number("prior_transforms", prior_transforms, at_least=0)
        whole_number("guide_transforms", guide_transforms, at_least=0)
        self.prior_flow, self.guide_flow = None, None
        # Smooth networks, as samplers that follow gradients need.
        options = {"hidden_features": (_WIDTH,), "activation": nonlinearity}
        if prior_transforms:
            self.prior_flow = MAF(latent_dim, transforms=prior_transforms, **options)
        if guide_transforms:
            self.encoder = MLP(num_features, hidden, _WIDTH, nonlinearity)
            self.guide_flow = MAF(latent_dim, _WIDTH, transforms=guide_transforms, **options)

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z) p(x | z).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("flow_vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))
            return pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(z | x).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("flow_vae", self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.proposal(x))

    def prior(self, x: Tensor) -> dist.TorchDistribution:
        """p(z), of event shape `(latent_dim,)`, in the type and on the device of x."""
        if self.prior_flow is None:
            return dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1)
        return _in_pyro(self.prior_flow())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of q(z | x); OptionError where q is a flow, which :meth:`proposal` gives."""
        if self.guide_flow is not None:
            raise OptionError("q(z | x) is a flow, which has no location and scale: take proposal(x), or embed(x).")
        return super().encode(x)

    def proposal(self, x: Tensor) -> dist.TorchDistribution:
        """q(z | x), of batch shape `(...)` and event shape `(latent_dim,)` for x `(..., num_features)`."""
        if self.guide_flow is None:
            return dist.Normal(*self.encode(x)).to_event(1)
        return _in_pyro(self.guide_flow(self.encoder((x - self.input_shift) / self.input_scale)))


def _in_pyro(flow: torch.distributions.Distribution) -> dist.TorchDistribution:
    from pyro.contrib.zuko import ZukoToPyro

    return ZukoToPyro(flow)
