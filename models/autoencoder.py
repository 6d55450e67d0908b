"""The autoencoder: a code z for each datum, without a distribution of codes.

    encoder   z = f_φ(x)
    decoder   x̂ = g_θ(z) = g_θ(f_φ(x))

    model   z ~ N(0, I),  x ~ p(x | g(z))      a prior in name: its density is left out (masked)
    guide   z = f(x)                           a point mass (pyro's Delta), its density left out too

so that Pyro's Trace_ELBO is the reconstruction's log-likelihood and nothing else,

    −ELBO / N = (1/N) Σ_i L(x_i, x̂_i),      L(x, x̂) = −log p(x | x̂),

in nats. For `Normal()` it is the squared error but for a factor and a constant, L = ½ ‖x − x̂‖² + ½ D log 2π; for
`Bernoulli()` the cross-entropy of every feature. With d < D (undercomplete), affine f and g and squared error the
optimum is PCA: g's columns span the d leading principal directions and the mean of ‖x − x̂‖² is the sum of the
eigenvalues left out, the least that any affine map of rank d can reach ("The approximation of one matrix by another of
lower rank", Eckart & Young, 1936, Psychometrika 1). Gradient descent finds it, since all other stationary points are
saddles: "Neural networks and principal component analysis" (Baldi & Hornik, 1989), Neural Networks 2.
With d ≥ D (overcomplete) the identity is among the maps, and the error alone teaches nothing.

**This pair has no evidence.** No density over z was trained, hence none over x, and estimators of log p(x) refuse it.
What it has is log p(x | g(f(x))), the quality of a copy, which compares with other autoencoders of the same likelihood
only. What the decoder makes of draws from N(0, I), codes that no encoder need ever have sent, is no sample of anything.
What is missing is the VAE's KL to the prior.
"""

from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihoods import Likelihood, Normal
from .network import centre_and_reach
from .networks import MLP, whole_number


class Autoencoder(nn.Module):
    """A pair: decoder and likelihood as the model, the encoder's point mass as the guide.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1. It has no log p(x): `importance_evidence` and `log_weights` raise PairError.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order. `()`: both affine.
        likelihood: p(x | g(z)), by default `Normal()`, half the squared error.
        nonlinearity: the module class between the layers of encoder and decoder.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> import math
        >>> from pyro.infer import Trace_ELBO
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(10, 5)
        >>> autoencoder = Autoencoder(num_features=5, latent_dim=2)
        >>> error = (x - autoencoder.reconstruct(x)).square().sum().item()
        >>> loss = Trace_ELBO().loss(autoencoder.model, autoencoder.guide, x)
        >>> math.isclose(loss, 0.5 * error + 10 * 5 * 0.5 * math.log(2 * math.pi), rel_tol=1e-5)
        True
    """

    # What the encoder sees is (x − shift) / scale.
    input_shift: Tensor
    input_scale: Tensor

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 20,
        hidden: tuple[int, ...] = (),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        self.latent_dim = whole_number("latent_dim", latent_dim)
        self.likelihood = Normal() if likelihood is None else likelihood
        num_outputs = num_features * self.likelihood.outputs_per_feature
        self.encoder = MLP(num_features, hidden, latent_dim, nonlinearity)
        self.decoder = MLP(latent_dim, hidden[::-1], num_outputs, nonlinearity)
        self.register_buffer("input_shift", torch.zeros(num_features))
        self.register_buffer("input_scale", torch.tensor(1.0))

    @classmethod
    def for_data(cls, x: Tensor, latent_dim: int = 20, likelihood: Likelihood | None = None, **options: Any) -> Self:
        """An autoencoder for these data: it takes their width and type, and copies their mean as their mean.

        The encoder sees x less its mean, over one scale for all features; the decoder's output bias starts where
        p(x | z) has the data's mean.

        Args:
            x: the data as the likelihood sees them, `(num_data, D)`.
            latent_dim: d.
            likelihood: p(x | g(z)), by default `Normal()`.
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: x is outside the likelihood's support.
            OptionError: an option has a value that cannot be used.

        Example:
            >>> x = torch.tensor([[0.0, 16.0], [8.0, 16.0]])
            >>> Autoencoder.for_data(x, latent_dim=1).reconstruct(x.mean(0)).tolist()
            [4.0, 16.0]
        """
        likelihood = Normal() if likelihood is None else likelihood
        likelihood.check(x)
        pair = cls(x.shape[1], latent_dim, likelihood=likelihood, **options).to(x)
        with torch.no_grad():
            shift, scale = centre_and_reach(x)
            pair.input_shift.copy_(shift)
            pair.input_scale.copy_(scale)
            pair.decoder.output_bias.copy_(likelihood.initial_bias(x))
        return pair

    def encode(self, x: Tensor) -> Tensor:
        """The code z = f(x): `(..., num_features)` to `(..., latent_dim)`."""
        return self.encoder((x - self.input_shift) / self.input_scale)

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | g(z)).

        Args:
            z: `(..., latent_dim)`.

        Returns:
            A distribution of batch shape `(...)` and event shape `(num_features,)`.
        """
        return self.likelihood(self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        """x̂ = E[x | g(f(x))]: `(..., num_features)` to the same shape."""
        return self.likelihood.mean(self.decoder(self.encode(x)))

    def model(self, x: Tensor) -> Tensor:
        """The decoder's program: a code whose density does not count, then p(x | g(z)).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, what the decoder makes of codes drawn from N(0, I).
        """
        pyro.module("autoencoder", self)
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1)
            z = pyro.sample("z", prior.mask(False))
            return pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The encoder's program: all mass at f(x).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            The code, `(num_data, latent_dim)`.
        """
        pyro.module("autoencoder", self)
        with pyro.plate("data", len(x)):
            # Masked: a point mass has no density, and log 1[z = f(x)] would be −inf where f(x) is computed once more
            # with another rounding.
            return pyro.sample("z", dist.Delta(self.encode(x), event_dim=1).mask(False))
