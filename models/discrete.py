"""The discrete-latent VAE: a datum is described by few categorical codes, which are summed out exactly.

    model   c_g ~ Categorical(π_g) for g = 1 … G,   x ~ p(x | f(onehot(c_1), …, onehot(c_G)))
    guide   nothing: all K^G assignments are summed out
    evidence    log p(x) = log Σ_c Π_g π_g(c_g) p(x | c)          known exactly, so that the ELBO is log p(x)

A codebook of K^G entries whose means the decoder ties together. "Neural Discrete Representation Learning" (van den Oord
et al., 2017), arXiv:1711.00937, learns larger ones, without a density of x.
"""

from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppvae.errors import OptionError

from .likelihoods import Bernoulli, Likelihood
from .networks import MLP, whole_number

_ENUMERATED: Any = {"enumerate": "parallel"}
# So many assignments at most are summed out: each datum's density is computed for all of them.
_MOST_ASSIGNMENTS = 4096


class DiscreteVAE(nn.Module):
    """A VAE with categorical codes that are summed out.

    Sites: the discrete latents `c1` … `cG`, and the observation `x`, event shape `(num_features,)`, all in the plate
    `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        num_groups: G, the number of codes.
        num_codes: K, the values of each.
        hidden: widths of the decoder's hidden layers.
        likelihood: p(x | f(c)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers.

    Raises:
        OptionError: a size is not a positive whole number, or K^G is too large to sum.

    Example:
        >>> vae = DiscreteVAE(num_features=64, num_groups=2, num_codes=3, hidden=(16,))
        >>> vae.codes(torch.zeros(5, 64)).shape
        torch.Size([5, 3, 3])
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int = 2,
        num_codes: int = 10,
        hidden: tuple[int, ...] = (200,),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        G, K = whole_number("num_groups", num_groups), whole_number("num_codes", num_codes)
        if K**G > _MOST_ASSIGNMENTS:
            raise OptionError(
                f"num_codes ** num_groups is {K**G}, and {_MOST_ASSIGNMENTS} assignments are summed out at most; give "
                "fewer codes or groups."
            )
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code_logits = nn.Parameter(torch.zeros(G, K))
        self.decoder = MLP(G * K, hidden, num_features * self.likelihood.outputs_per_feature, nonlinearity)

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(c) p(x | c).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("discrete_vae", self)
        with pyro.plate("data", len(x)):
            priors = [dist.Categorical(logits=logits) for logits in self.code_logits]
            codes = [pyro.sample(f"c{g}", prior, infer=_ENUMERATED) for g, prior in enumerate(priors, start=1)]
            return pyro.sample("x", self.decode(*codes), obs=x)

    def guide(self, x: Tensor) -> None:
        """An empty guide: all latents are summed out.

        Args:
            x: a batch, `(num_data, num_features)`.
        """

    @classmethod
    def for_data(cls, x: Tensor, likelihood: Likelihood, **options: Any) -> Self:
        """A pair whose every code decodes near the data's mean at first.

        Args:
            x: the data as the likelihood sees them, `(num_data, D)`.
            likelihood: p(x | f(c)).
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: x is outside the likelihood's support.
            OptionError: an option has a value that cannot be used.
        """
        likelihood.check(x)
        pair = cls(x.shape[1], likelihood=likelihood, **options).to(x)
        with torch.no_grad():
            pair.decoder.output_bias.copy_(likelihood.initial_bias(x))
        return pair

    def decode(self, *codes: Tensor) -> dist.TorchDistribution:
        """p(x | c), whose batch shape is that to which the codes broadcast."""
        batch = torch.broadcast_shapes(*(code.shape for code in codes))
        dtype = self.code_logits.dtype
        shown = [F.one_hot(code, self.code_logits.shape[1]).to(dtype).expand(*batch, -1) for code in codes]
        return self.likelihood(self.decoder(torch.cat(shown, -1)))

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, c) of all assignments: `(num_data, num_features)` to `(num_data, K, …, K)`, in nats."""
        G, K = self.code_logits.shape
        codes = torch.meshgrid(*(torch.arange(K, device=x.device) for _ in range(G)), indexing="ij")
        log_prior = sum(logits.log_softmax(-1)[code] for logits, code in zip(self.code_logits, codes, strict=True))
        return self.decode(*codes).log_prob(x.reshape(-1, *(1,) * G, x.shape[-1])) + log_prior

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), exactly: `(num_data,)` in nats."""
        return torch.logsumexp(self.log_joint(x).flatten(1), -1)

    def codes(self, x: Tensor) -> Tensor:
        """p(c | x) of all assignments: `(num_data, K, …, K)`, which sums to 1 for each datum."""
        log_joint = self.log_joint(x)
        return log_joint.flatten(1).softmax(-1).reshape(log_joint.shape)
