"""Item response theory, the two-parameter logistic model (2PL): answers to test items, and one ability a person.

    model   θ ~ N(0, 1),   x_j ~ Bernoulli(logit a_j θ + b_j)       a_j the item's slope, b_j its intercept
    guide   q(θ | x) = N(μ(x), σ(x)²)                               (μ, ρ) a network's outputs, σ = log(1 + e^ρ) + ε
    evidence    log p(x) = log ∫ N(θ; 0, 1) Π_j p(x_j | θ) dθ       one dimension: Gauss-Hermite quadrature

An answer that is missing (NaN) is left out of the product. (a, θ) and (−a, −θ) are one model; slopes start at 1.
"Marginal maximum likelihood estimation of item parameters" (Bock & Aitkin, 1981), Psychometrika 46.
"""

from typing import Any, Self

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .likelihoods import Bernoulli
from .networks import MLP, whole_number


class ItemResponse(nn.Module):
    """The 2PL model with an amortised Gaussian guide.

    Sites: the latent `ability`, a number, and the observation `x`, event shape `(num_items,)`, both in the plate `data`
    at dim −1.

    Args:
        num_features: the number of items, the length of x.
        hidden: widths of the hidden layers of the guide's network; `()` makes it affine in the answers.
        nonlinearity: the module class between its layers.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> from ppvae.datasets import load_dataset
        >>> x = load_dataset("lsat6").train
        >>> ItemResponse.for_data(x).log_evidence(x).shape
        torch.Size([800])
    """

    default_data = "lsat6"

    def __init__(self, num_features: int, hidden: tuple[int, ...] = (16,), nonlinearity: type[nn.Module] = nn.Tanh):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        self.slope = nn.Parameter(torch.ones(whole_number("num_features", num_features)))
        self.intercept = nn.Parameter(torch.zeros(num_features))
        # What the network sees: the answers, 0 where they are missing, and which are there.
        self.encoder = MLP(2 * num_features, hidden, 2, nonlinearity)

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(θ) p(x | θ).

        Args:
            x: answers 0 and 1, `(num_data, num_items)`; NaN where there is none.

        Returns:
            x; under `poutine.uncondition`, answers drawn from the prior predictive.
        """
        pyro.module("item_response", self)
        with pyro.plate("data", len(x)):
            ability = pyro.sample("ability", dist.Normal(x.new_zeros(()), 1.0))
            answers = dist.Bernoulli(logits=self.logits(ability)).mask(~x.isnan())
            return pyro.sample("x", answers.to_event(1), obs=x.nan_to_num())

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(θ | x).

        Args:
            x: as the model takes them.

        Returns:
            The draw of θ, `(num_data,)`.
        """
        pyro.module("item_response", self)
        seen = ~x.isnan()
        loc, raw_scale = self.encoder(torch.cat([x.nan_to_num(), seen.to(x.dtype)], -1)).unbind(-1)
        with pyro.plate("data", len(x)):
            scale = F.softplus(raw_scale) + torch.finfo(x.dtype).eps
            return pyro.sample("ability", dist.Normal(loc, scale))

    @classmethod
    def for_data(cls, x: Tensor, **options: Any) -> Self:
        """A pair whose intercepts start at the logits of the share of ones of each item.

        Args:
            x: answers 0 and 1, `(num_data, num_items)`.
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: x holds something else than 0 and 1.
        """
        Bernoulli().check(x)
        pair = cls(x.shape[1], **options).to(x)
        with torch.no_grad():
            pair.intercept.copy_(Bernoulli().initial_bias(x))
        return pair

    def logits(self, ability: Tensor) -> Tensor:
        """The logit of a right answer to each item: `(...)` to `(..., num_items)`."""
        return ability.unsqueeze(-1) * self.slope + self.intercept

    def log_evidence(self, x: Tensor, num_nodes: int = 61) -> Tensor:
        """log p(x) by Gauss-Hermite quadrature.

        Args:
            x: as the model takes them.
            num_nodes: of the quadrature, which is exact for polynomials of degree 2·num_nodes − 1 in θ.

        Returns:
            `(num_data,)` in nats, float64.
        """
        nodes, mass = (torch.from_numpy(a).to(x.device) for a in np.polynomial.hermite_e.hermegauss(num_nodes))
        logits = nodes[:, None] * self.slope.double() + self.intercept.double()
        seen = (~x.isnan()).double()
        x = x.nan_to_num().double()
        log_likelihood = (x @ logits.T) - seen @ F.softplus(logits).T
        return torch.logsumexp(log_likelihood + (mass / mass.sum()).log(), -1)
