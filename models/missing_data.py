"""VAEs of data with missing values (NaN): MIWAE leaves them out, not-MIWAE models why they are missing.

MIWAE, for values that are missing at random:

    model   z ~ N(0, I),   x_j ~ p(x_j | f(z)) for the values that are there
    guide   q(z | x_seen) = N(μ, diag σ²)         the network sees which are there, and 0 for the others

so that its evidence is log p(x_seen). not-MIWAE adds the reason, s_j = 1 where x_j is missing:

    model   z ~ N(0, I),   x ~ p(x | f(z)),   s_j ~ Bernoulli(logit a_j x_j + b_j)
    guide   q(z | x_seen) p(x_missing | f(z))     what is missing is proposed by the decoder

with evidence log p(x_seen, s): where a_j ≠ 0 values go missing for what they are, and ignoring that biases the decoder.
Both are trained on the ELBO, the papers' bound for K = 1; `fit(pair.model, pair.guide, x, loss=IWAE(num_particles=50))`
trains them on the bound for K = 50, which is that of each datum's own log p(x_seen), also under mini-batches.
"MIWAE" (Mattei & Frellsen, 2019), arXiv:1812.02633; "not-MIWAE" (Ipsen et al., 2021), arXiv:2006.12871.
"""

from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.datasets import without_missing
from ppvae.errors import OptionError

from .likelihoods import Likelihood, NormalFeatureScale
from .location_scale import location_and_scale
from .networks import MLP
from .vae import VAE


class MIWAE(VAE):
    """A VAE of the values that are there.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1.

    Args:
        num_features: D, the length of a datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        likelihood: p(x | f(z)), by default `NormalFeatureScale(num_features)`.
        nonlinearity: the module class between the layers of encoder and decoder.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.tensor([[0.3, torch.nan], [torch.nan, torch.nan], [0.1, -0.4]])
        >>> MIWAE.for_data(x, latent_dim=1, hidden=(4,)).model(x).isnan().any()
        tensor(False)
    """

    default_data = "breast_cancer_missing"

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 5,
        hidden: tuple[int, ...] = (50,),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        """Make the pair; the class says what its arguments are."""
        likelihood = NormalFeatureScale(num_features) if likelihood is None else likelihood
        super().__init__(num_features, latent_dim, hidden, likelihood, nonlinearity)
        self.encoder = MLP(2 * num_features, hidden, 2 * latent_dim, nonlinearity)

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z) p(x_seen | z).

        Args:
            x: a batch, `(num_data, num_features)`, NaN where a value is missing.

        Returns:
            x with 0 for what is missing; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("miwae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            features = self.likelihood.features(self.decoder(z)).mask(~x.isnan())
            return pyro.sample("x", features.to_event(1), obs=x.nan_to_num())

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(z | x_seen).

        Args:
            x: as the model takes it.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("miwae", self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(*self.encode(x)).to_event(1))

    @classmethod
    def for_data(cls, x: Tensor, likelihood: Likelihood | None = None, **options: Any) -> Self:
        """As `VAE.for_data`, from the values that are there.

        Args:
            x: the data as the likelihood sees them, `(num_data, D)`, NaN where a value is missing.
            likelihood: p(x | f(z)), by default `NormalFeatureScale(D)`.
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: a value is outside the likelihood's support.
            OptionError: an option has a value that cannot be used.
        """
        likelihood = NormalFeatureScale(x.shape[1]) if likelihood is None else likelihood
        return super().for_data(without_missing(x), likelihood, **options)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of q(z | x_seen): `(..., num_features)` to two of `(..., latent_dim)`."""
        inputs = ((x - self.input_shift) / self.input_scale).nan_to_num()
        return location_and_scale(self.encoder(torch.cat([inputs, (~x.isnan()).to(x.dtype)], -1)))


class NotMIWAE(MIWAE):
    """A VAE of the values that are there and of which are missing.

    Sites: the latents `z`, event shape `(latent_dim,)`, and `full`, `(num_features,)`, of which only the entries that
    are missing count: at all others model and guide have one density, which cancels. Observations: `x`, of the entries
    that are there, and `missing`, both of event shape `(num_features,)`. All are in the plate `data` at dim −1.

    Args:
        num_features: D, the length of a datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        likelihood: p(x | f(z)) of real numbers, by default `NormalFeatureScale(num_features)`.
        nonlinearity: the module class between the layers of encoder and decoder.

    Raises:
        OptionError: a size is not a positive whole number, or the likelihood is not one of real numbers.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.tensor([[0.3, torch.nan], [torch.nan, torch.nan], [0.1, -0.4]])
        >>> NotMIWAE.for_data(x, latent_dim=1, hidden=(4,)).guide(x).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 5,
        hidden: tuple[int, ...] = (50,),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__(num_features, latent_dim, hidden, likelihood, nonlinearity)
        if self.likelihood.support is not dist.constraints.real:
            raise OptionError(f"likelihood is {self.likelihood}; give one of real numbers, such as NormalFeatureScale.")
        self.missing_slope = nn.Parameter(torch.zeros(num_features))
        self.missing_intercept = nn.Parameter(torch.zeros(num_features))

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z) p(x | z) p(s | x).

        Args:
            x: a batch, `(num_data, num_features)`, NaN where a value is missing.

        Returns:
            x with what the latent `full` says of the missing values.
        """
        pyro.module("not_miwae", self)
        missing = x.isnan()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            features = self.likelihood.features(self.decoder(z))
            full = pyro.sample("full", features.to_event(1))
            seen = pyro.sample("x", features.mask(~missing).to_event(1), obs=x.nan_to_num())
            full = torch.where(missing, full, seen)
            reason = dist.Bernoulli(logits=self.missing_slope * full + self.missing_intercept)
            pyro.sample("missing", reason.to_event(1), obs=missing.to(x.dtype))
            return full

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(z | x_seen) p(x_missing | z).

        Args:
            x: as the model takes it.

        Returns:
            The draw of `full`, `(num_data, num_features)`.
        """
        pyro.module("not_miwae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(*self.encode(x)).to_event(1))
            return pyro.sample("full", self.decode(z))
