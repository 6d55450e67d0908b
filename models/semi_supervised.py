"""The semi-supervised VAE (M2): few data have labels, and the label of all others is summed out exactly.

    model   y ~ Categorical(π),   z ~ N(0, I),   x ~ p(x | f(z, y))
    guide   q(y | x) = Categorical(g(x)),   q(z | x, y) = N(μ(x, y), diag σ(x, y)²)

A label is −1 where it was not seen. The class y is enumerated for every datum; a label that was seen is an observation
of it, p(label | y) = 1 if they are equal and else e^−1000, so that only its own class counts. log p(x, label) is then
the evidence of a labelled datum, log p(x) = log Σ_y p(x, y) that of another.

q(y | x) is a classifier. The ELBO of labelled data says nothing of it, so that training adds α log q(label | x) for
them: a factor of the guide, which trains it and is no part of its density.
"Semi-supervised Learning with Deep Generative Models" (Kingma et al., 2014), arXiv:1406.5298.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .likelihoods import Likelihood
from .location_scale import location_and_scale
from .networks import MLP, whole_number
from .vae import VAE

_ENUMERATED: Any = {"enumerate": "parallel"}
# log p(label | y) of another class than the label's: e^−1000 is 0 in every number format, and its logarithm finite.
_IMPOSSIBLE = -1000.0


class SemiSupervisedVAE(VAE):
    """A VAE with a class, seen for some data and enumerated for all.

    Sites: the discrete latent `y`, the latent `z`, event shape `(latent_dim,)`, and the observations `label` and `x`,
    the latter of event shape `(num_features,)`, all in the plate `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dim: d, the length of z.
        hidden: widths of the encoder's hidden layers; the other networks have the same.
        likelihood: p(x | f(z, y)), by default `Bernoulli()`.
        nonlinearity: the module class between the layers.
        num_labels: C; labels are whole numbers 0 … C − 1, or −1.
        classifier_weight: α.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> vae = SemiSupervisedVAE(num_features=64, latent_dim=2, hidden=(16,))
        >>> vae.classify(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """

    default_data = "few_labels"

    def __init__(
        self,
        num_features: int,
        latent_dim: int = 10,
        hidden: tuple[int, ...] = (200,),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
        num_labels: int = 10,
        classifier_weight: float = 50.0,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__(num_features, latent_dim, hidden, likelihood, nonlinearity)
        self.num_labels = C = whole_number("num_labels", num_labels)
        self.classifier_weight = classifier_weight
        num_outputs = num_features * self.likelihood.outputs_per_feature
        self.class_logits = nn.Parameter(torch.zeros(C))
        self.classifier = MLP(num_features, hidden, C, nonlinearity)
        self.encoder = MLP(num_features + C, hidden, 2 * latent_dim, nonlinearity)
        self.decoder = MLP(latent_dim + C, hidden[::-1], num_outputs, nonlinearity)

    def model(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """The generative program, p(y) p(label | y) p(z) p(x | z, y).

        Args:
            x: a batch, `(num_data, num_features)`.
            labels: whole numbers `(num_data,)`, −1 where the label was not seen.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("semi_supervised_vae", self)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=self.class_logits), infer=_ENUMERATED)
            label = dist.Categorical(logits=_IMPOSSIBLE * (1 - self._indicators(y, x)))
            pyro.sample("label", label.mask(labels >= 0), obs=labels.clamp(min=0))
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            return pyro.sample("x", self.decode(z, y), obs=x)

    def guide(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """The proposal, q(y | x) q(z | x, y), with all of q(y | x) on the label where it was seen.

        Args:
            x: a batch, `(num_data, num_features)`.
            labels: as the model takes them.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("semi_supervised_vae", self)
        inputs, seen, label = (x - self.input_shift) / self.input_scale, labels >= 0, labels.clamp(min=0)
        logits = self.classifier(inputs)
        known = _IMPOSSIBLE * (1 - self._indicators(label, x))
        with pyro.plate("data", len(x)):
            log_q = dist.Categorical(logits=logits).log_prob(label)
            # A factor of the guide enters the ELBO with a minus sign.
            pyro.factor("classifier", -self.classifier_weight * log_q * seen, has_rsample=False)
            odds = dist.Categorical(logits=torch.where(seen.unsqueeze(-1), known, logits))
            y = pyro.sample("y", odds, infer=_ENUMERATED)
            return pyro.sample("z", dist.Normal(*self.encode(x, y)).to_event(1))

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Location and scale of q(z | x, y), each `(..., latent_dim)`, of x `(..., num_features)` and classes y."""
        inputs = (x - self.input_shift) / self.input_scale
        return location_and_scale(self.encoder(_beside(inputs, self._indicators(y, x))))

    def decode(self, z: Tensor, y: Tensor) -> dist.TorchDistribution:  # type: ignore[override]
        """p(x | z, y) of z `(..., latent_dim)` and classes, with batch shape `(...)`, event shape `(num_features,)`."""
        return self.likelihood(self.decoder(_beside(z, self._indicators(y, z))))

    def classify(self, x: Tensor) -> Tensor:
        """q(y | x): `(..., num_features)` to `(..., num_labels)`, which sums to 1."""
        return self.classifier((x - self.input_shift) / self.input_scale).softmax(-1)

    def _indicators(self, y: Tensor, x: Tensor) -> Tensor:
        return F.one_hot(y, self.num_labels).to(x.dtype)


def _beside(values: Tensor, code: Tensor) -> Tensor:
    """Values and code in one row, with the dims that either has to the left: `(..., n)` and `(..., C)` to their sum."""
    batch = torch.broadcast_shapes(values.shape[:-1], code.shape[:-1])
    return torch.cat([values.expand(*batch, -1), code.expand(*batch, -1)], -1)
