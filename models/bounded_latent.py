"""A VAE whose latents are bounded or positive: how much of each part is in x.

    model   z_k ~ Beta(a, b) in [0, 1],  or  z_k ~ Gamma(a, b) > 0,      x ~ p(x | f(z))
    guide   q(z_k | x) = Beta(α_k(x), β_k(x)),  or  Gamma(α_k(x), β_k(x)),      α, β > 1

The exponential prior, Gamma(1, 1), favours few large numbers, as in sparse coding. The decoder is affine, so that
column k of its weights says what part k looks like. Chains move in unconstrained coordinates, with the Jacobian.
"Sparse coding with an overcomplete basis set" (Olshausen & Field, 1997), Vision Research 37; gradients through the
draws of Beta and Gamma: "Implicit Reparameterization Gradients" (Figurnov et al., 2018), arXiv:1805.08498.
"""

from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppvae.errors import OptionError

from .likelihoods import Likelihood
from .networks import MLP
from .vae import VAE


class BoundedLatentVAE(VAE):
    """A VAE with Beta or Gamma latents.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dim: d, the number of parts.
        hidden: widths of the encoder's hidden layers; the decoder is affine.
        likelihood: p(x | f(z)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers of the encoder.
        family: `"beta"` or `"gamma"`, of prior and guide.
        prior: a and b. Below ½ the weights of the guide's draws have no variance.

    Raises:
        OptionError: a size or a parameter is not positive, or there is no such family.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> z = BoundedLatentVAE(num_features=64, latent_dim=3).guide(torch.zeros(5, 64))
        >>> bool(((z > 0) & (z < 1)).all())
        True
    """

    prior_parameters: Tensor

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 10,
        hidden: tuple[int, ...] = (200,),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
        family: Literal["beta", "gamma"] = "beta",
        prior: tuple[float, float] = (1.0, 1.0),
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__(num_features, latent_dim, hidden, likelihood, nonlinearity)
        if family not in ("beta", "gamma") or len(prior) != 2 or min(prior) <= 0:
            raise OptionError(f"family is {family!r} and prior {prior}; give beta or gamma, and two positive numbers.")
        self.decoder = MLP(latent_dim, (), num_features * self.likelihood.outputs_per_feature)
        self.family: Any = {"beta": dist.Beta, "gamma": dist.Gamma}[family]
        self.register_buffer("prior_parameters", torch.tensor(prior)[:, None].expand(2, latent_dim).clone())

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z) p(x | z).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("bounded_latent_vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.family(*self.prior_parameters.unbind()).to_event(1))
            return pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(z | x).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("bounded_latent_vae", self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.family(*self.encode(x)).to_event(1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """α(x) and β(x): `(..., num_features)` to two of `(..., latent_dim)`."""
        # Below 1 a Beta's mass is at 0 and 1, where draws in single precision are rounded onto the boundary.
        alpha, beta = (1 + F.softplus(self.encoder((x - self.input_shift) / self.input_scale))).chunk(2, dim=-1)
        return alpha, beta
