"""The conditional VAE: what varies in x beyond its label.

    model   z ~ N(0, I),   x ~ p(x | f(z, y))         y the label, given
    guide   q(z | x, y) = N(μ(x, y), diag σ(x, y)²)

log p(x | y) in place of log p(x). With the label given, z is free to say the rest: style, weight, slant.
"Learning Structured Output Representation using Deep Conditional Generative Models" (Sohn et al., 2015), NeurIPS.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .likelihoods import Likelihood
from .location_scale import location_and_scale
from .networks import MLP, whole_number
from .vae import VAE


class ConditionalVAE(VAE):
    """A VAE of x given a label, which both networks see.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1. The labels are the context of x: `fit(vae.model, vae.guide, (x, labels))`.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        likelihood: p(x | f(z, y)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers of encoder and decoder.
        num_labels: C; labels are whole numbers 0 … C − 1.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> vae = ConditionalVAE(num_features=64, latent_dim=2, hidden=(16,))
        >>> vae.guide(torch.zeros(5, 64), torch.arange(5)).shape
        torch.Size([5, 2])
    """

    default_data = "labelled_digits"

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 10,
        hidden: tuple[int, ...] = (200, 200),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
        num_labels: int = 10,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__(num_features, latent_dim, hidden, likelihood, nonlinearity)
        self.num_labels = C = whole_number("num_labels", num_labels)
        num_outputs = num_features * self.likelihood.outputs_per_feature
        self.encoder = MLP(num_features + C, hidden, 2 * latent_dim, nonlinearity)
        self.decoder = MLP(latent_dim + C, hidden[::-1], num_outputs, nonlinearity)

    def model(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """The generative program, p(z) p(x | z, y).

        Args:
            x: a batch, `(num_data, num_features)`.
            labels: of the data, whole numbers `(num_data,)`.

        Returns:
            x; under `poutine.uncondition`, data drawn for these labels.
        """
        pyro.module("conditional_vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            return pyro.sample("x", self.decode(z, labels), obs=x)

    def guide(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """The proposal, q(z | x, y).

        Args:
            x: a batch, `(num_data, num_features)`.
            labels: of the data, whole numbers `(num_data,)`.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("conditional_vae", self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(*self.encode(x, labels)).to_event(1))

    def encode(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Location and scale of q(z | x, y), each `(..., latent_dim)`, of x `(..., num_features)` and its labels."""
        seen = (x - self.input_shift) / self.input_scale
        return location_and_scale(self.encoder(self._with_label(seen, labels)))

    def decode(self, z: Tensor, labels: Tensor) -> dist.TorchDistribution:  # type: ignore[override]
        """p(x | z, y) of z `(..., latent_dim)` and labels, with batch shape `(...)`, event shape `(num_features,)`."""
        return self.likelihood(self.decoder(self._with_label(z, labels)))

    def _with_label(self, values: Tensor, labels: Tensor) -> Tensor:
        """The values and, beside them, the label's indicators: `(..., n)` to `(..., n + C)`."""
        code = F.one_hot(labels.long(), self.num_labels).to(values.dtype)
        return torch.cat([values, code.expand(*values.shape[:-1], -1)], -1)
