"""The discrete-latent VAE by the Gumbel-softmax: categorical codes relaxed to points of a simplex.

    model   v_g ~ Concrete(π_g, τ) for g = 1 … G,   x ~ p(x | f(v_1, …, v_G))
    guide   q(v_g | x) = Concrete(softmax ℓ_g(x), τ_q)
    draw    v = softmax((log π + Gumbel noise) / τ)         with a path for the gradient, and near a corner for small τ

A draw of a Concrete distribution is a point inside the simplex with a density. So this is a model with continuous
latents, and its ELBO and log p(x) are those of the relaxed model, not of the one with codes: the two agree for τ → 0
alone, where :class:`~ppvae.models.DiscreteVAE` of the same decoder sums the codes out exactly. It takes many codes, of
which a sum has too many terms, and the gradient of its ELBO is quieter than a score function's.
"Categorical Reparameterization with Gumbel-Softmax" (Jang, Gu & Poole, 2017), arXiv:1611.01144; "The Concrete
Distribution" (Maddison, Mnih & Teh, 2017), arXiv:1611.00712.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.errors import OptionError

from .likelihoods import Likelihood
from .networks import MLP, whole_number
from .vae import VAE

# The guide's logits stay within ± so much. Gumbel noise in float32 spans less than 20, so that with τ ≥ 0.5 no entry of
# a draw is less than e^−80: it does not underflow to 0, where there is no density.
_LARGEST_LOGIT = 10.0
_LEAST_TEMPERATURE = 0.5


class RelaxedVAE(VAE):
    """A VAE whose latents are relaxed categorical codes.

    Sites: the latents `v1` … `vG`, event shape `(num_codes,)`, and the observation `x`, event shape `(num_features,)`,
    all in the plate `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        num_groups: G, the number of codes.
        num_codes: K, the values of each.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        likelihood: p(x | f(v)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers.
        temperature: τ of the prior, at least 0.5; 2/3 is Maddison's for many codes.
        guide_temperature: τ_q; None takes the prior's.

    Raises:
        OptionError: a size is not a positive whole number, or a temperature is below 0.5.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> vae = RelaxedVAE(num_features=64, num_groups=2, num_codes=3, hidden=(16,))
        >>> vae.codes(torch.zeros(5, 64)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int = 2,
        num_codes: int = 10,
        hidden: tuple[int, ...] = (200,),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
        temperature: float = 2 / 3,
        guide_temperature: float | None = None,
    ):
        """Make the pair; the class says what its arguments are."""
        G, K = whole_number("num_groups", num_groups), whole_number("num_codes", num_codes, at_least=2)
        super().__init__(num_features, G * K, hidden, likelihood, nonlinearity)
        self.temperature = temperature
        self.guide_temperature = temperature if guide_temperature is None else guide_temperature
        if not min(self.temperature, self.guide_temperature) >= _LEAST_TEMPERATURE:
            raise OptionError(
                f"a temperature is below {_LEAST_TEMPERATURE}, where draws reach the edge of the simplex; give at "
                "least that."
            )
        self.code_logits = nn.Parameter(torch.zeros(G, K))
        self.encoder = MLP(num_features, hidden, G * K, nonlinearity)

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(v) p(x | v).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("relaxed_vae", self)
        with pyro.plate("data", len(x)):
            points = [
                pyro.sample(f"v{g}", dist.RelaxedOneHotCategorical(x.new_tensor(self.temperature), logits=logits))
                for g, logits in enumerate(self.code_logits, start=1)
            ]
            return pyro.sample("x", self.decode(torch.cat(points, -1)), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(v | x).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            The draws of all codes side by side, `(num_data, num_groups · num_codes)`.
        """
        pyro.module("relaxed_vae", self)
        all_logits = self._logits(x).unbind(-2)
        with pyro.plate("data", len(x)):
            points = [
                pyro.sample(f"v{g}", dist.RelaxedOneHotCategorical(x.new_tensor(self.guide_temperature), logits=logits))
                for g, logits in enumerate(all_logits, start=1)
            ]
            return torch.cat(points, -1)

    def codes(self, x: Tensor) -> Tensor:
        """The guide's probability that an entry is its point's largest: `(..., num_groups, num_codes)`."""
        return self._logits(x).softmax(-1)

    def encode(self, x: Tensor) -> Any:
        """OptionError: q(v | x) has no location and scale."""
        raise OptionError("q(v | x) is no Gaussian, and has no location and scale: take codes(x).")

    def _logits(self, x: Tensor) -> Tensor:
        output = self.encoder((x - self.input_shift) / self.input_scale)
        return (_LARGEST_LOGIT * torch.tanh(output / _LARGEST_LOGIT)).unflatten(-1, self.code_logits.shape)
