"""A VAE of counts, which separates their total from their proportions.

    model   ℓ ~ LogNormal(m, s²),   z ~ N(0, I),   x_j ~ NB(mean ℓ · softmax(f(z))_j, dispersion r_j)
    guide   q(ℓ | x) = LogNormal(a(x), b(x)²),   q(z | x) = N(μ(x), diag σ(x)²)

ℓ is the library size: the total of a datum's counts but for noise, such as a cell's sequencing depth or a document's
length. z is free to say what the datum is like. NB has variance μ + μ²/r. With zero inflation a count is 0 with
probability π_j(z), whatever its mean:

    p(x_j | ℓ, z) = π_j 1[x_j = 0] + (1 − π_j) NB(x_j).

"Deep generative modeling for single-cell transcriptomics" (scVI; Lopez et al., 2018), Nature Methods 15.
"""

from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .likelihoods import Poisson
from .networks import MLP, whole_number


class CountVAE(nn.Module):
    """A VAE of counts with a latent library size, negative binomial or zero-inflated.

    Sites: the latents `library`, a positive number, and `z`, event shape `(latent_dim,)`, and the observation `x`,
    event shape `(num_features,)`, all in the plate `data` at dim −1.

    Args:
        num_features: D, the number of kinds that are counted.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        zero_inflated: whether a kind may be missing whatever its mean.
        nonlinearity: the module class between the layers.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.tensor([[3.0, 0.0, 5.0], [0.0, 1.0, 2.0]])
        >>> vae = CountVAE.for_data(x, latent_dim=1, hidden=(4,))
        >>> vae.shares(torch.zeros(1)).tolist()
        [0.2727..., 0.0909..., 0.6363...]
    """

    # Mean and standard deviation of log ℓ.
    library_loc: Tensor
    library_scale: Tensor

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 10,
        hidden: tuple[int, ...] = (128,),
        zero_inflated: bool = False,
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        self.latent_dim = whole_number("latent_dim", latent_dim)
        self.encoder = MLP(num_features, hidden, 2 * latent_dim + 2, nonlinearity)
        self.decoder = MLP(latent_dim, hidden[::-1], num_features, nonlinearity)
        self.gate = MLP(latent_dim, hidden[::-1], num_features, nonlinearity) if zero_inflated else None
        self.log_dispersion = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("library_loc", torch.tensor(0.0))
        self.register_buffer("library_scale", torch.tensor(1.0))

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(ℓ) p(z) p(x | ℓ, z).

        Args:
            x: counts, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("count_vae", self)
        with pyro.plate("data", len(x)):
            library = pyro.sample("library", dist.LogNormal(self.library_loc, self.library_scale))
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            return pyro.sample("x", self.decode(library, z), obs=x)

    def guide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The proposal, q(ℓ | x) q(z | x).

        Args:
            x: as the model takes it.

        Returns:
            The draws of ℓ, `(num_data,)`, and of z, `(num_data, latent_dim)`.
        """
        pyro.module("count_vae", self)
        d = self.latent_dim
        # The encoder sees counts on the scale of their logarithm; of log ℓ it gives the distance from the log total.
        loc, raw_scale, shift, raw_width = self.encoder(x.log1p()).split([d, d, 1, 1], dim=-1)
        log_total = x.sum(-1).clamp(min=1).log()
        with pyro.plate("data", len(x)):
            width = F.softplus(raw_width.squeeze(-1)) + torch.finfo(x.dtype).eps
            library = pyro.sample("library", dist.LogNormal(log_total + shift.squeeze(-1), width))
            scale = F.softplus(raw_scale) + torch.finfo(x.dtype).eps
            return library, pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    @classmethod
    def for_data(cls, x: Tensor, **options: Any) -> Self:
        """A pair that starts with the data's proportions, and whose prior of log ℓ is that of the log totals.

        Args:
            x: counts, `(num_data, D)`.
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: x holds something else than counts.
            OptionError: an option has a value that cannot be used.
        """
        Poisson().check(x)
        pair = cls(x.shape[1], **options).to(x)
        log_total = x.sum(-1).clamp(min=1).log()
        with torch.no_grad():
            pair.library_loc.copy_(log_total.mean())
            # Totals that are all alike would leave ℓ no width at all.
            pair.library_scale.copy_(log_total.std(correction=0).clamp(min=0.1))
            pair.decoder.output_bias.copy_(Poisson().initial_bias(x))
        return pair

    def shares(self, z: Tensor) -> Tensor:
        """The proportions of the kinds, softmax(f(z)): `(..., latent_dim)` to `(..., num_features)`."""
        return self.decoder(z).softmax(-1)

    def decode(self, library: Tensor, z: Tensor) -> dist.TorchDistribution:
        """p(x | ℓ, z).

        Args:
            library: ℓ, `(...)`.
            z: `(..., latent_dim)`.

        Returns:
            A distribution of batch shape `(...)` and event shape `(num_features,)`.
        """
        log_mean = self.decoder(z).log_softmax(-1) + library.log().unsqueeze(-1)
        r, logits = self.log_dispersion.exp(), log_mean - self.log_dispersion
        if self.gate is None:
            return dist.NegativeBinomial(total_count=r, logits=logits).to_event(1)
        inflated = dist.ZeroInflatedNegativeBinomial(total_count=r, logits=logits, gate_logits=self.gate(z))
        return inflated.to_event(1)
