"""Likelihoods: the distribution of x given the outputs of a network.

A likelihood is a module that maps the outputs of a decoder, `(..., D·k)`, to a Pyro distribution over x with batch
shape `(...)` and event shape `(D,)`:

    p(x | z) = Π_d p(x_d | η_d),    η_d = the k outputs of feature d, which stand side by side.

It is a normalised distribution over the data *as given*: one and the same object trains the pair and judges it, so
that no constant is dropped in one place and added in another, and data outside its support are refused.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ppvae.errors import DataError, OptionError

from .networks import whole_number

# The output bias starts at the data's mean, but no frequency starts nearer to 0 or 1 than this: a pixel that is black
# in all the data seen would otherwise start at a bias of minus infinity.
_SMALLEST_FREQUENCY = 0.001


class Likelihood(nn.Module, ABC):
    """The base of all likelihoods: subclasses give the distribution of one feature and the bias that fits a mean.

    Attributes:
        outputs_per_feature: k, the number of outputs that the network gives for each feature.
        support: the constraint that every value of x obeys.
    """

    outputs_per_feature: int = 1
    support: constraints.Constraint

    @abstractmethod
    def features(self, output: Tensor) -> dist.TorchDistribution:
        """The independent distributions of the features, of batch shape `(..., D)`.

        Args:
            output: the network's outputs, `(..., D·k)`.
        """

    @abstractmethod
    def initial_bias(self, x: Tensor) -> Tensor:
        """The output bias `(D·k,)` for which E[x] is the mean of the data, feature by feature.

        Args:
            x: the data, `(num_data, D)`.
        """

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        """p(x | z), of batch shape `(...)` and event shape `(D,)`; its `log_prob` is in nats.

        Args:
            output: the network's outputs, `(..., D·k)`.
        """
        return self.features(output).to_event(1)

    def mean(self, output: Tensor) -> Tensor:
        """E[x | z], of shape `(..., D)`, for instance to draw as a picture."""
        return self.features(output).mean

    def check(self, x: Tensor) -> None:
        """Refuse data over which this likelihood is not a normalised distribution.

        Args:
            x: the data, `(num_data, D)`.

        Raises:
            DataError: x is not a matrix of floating-point rows, is empty, is not finite, or leaves the support.
        """
        check_rows(x)
        outside = ~self.support.check(x)
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            raise DataError(
                f"{int(outside.sum())} of the {x.numel()} values of x lie outside the support of {self}: the first is "
                f"{x[row, column].item():g} in row {row}, feature {column}; {_remedy(x)}."
            )


class Bernoulli(Likelihood):
    """x ∈ {0, 1}, one logit a feature: log p(x | η) = x η − log(1 + e^η).

    Grey values are not in its support: over [0, 1] the formula above is no density, and a bound on it is comparable
    with nothing. Binarise them, as `load_dataset("mnist")` does at each draw.

    Example:
        >>> Bernoulli()(torch.zeros(5, 3)).log_prob(torch.ones(5, 3)).shape
        torch.Size([5])
    """

    support = constraints.boolean

    def features(self, output: Tensor) -> dist.TorchDistribution:
        """Bernoulli(logit η)."""
        return dist.Bernoulli(logits=output)

    def initial_bias(self, x: Tensor) -> Tensor:
        """The logit of the mean, which is kept within [0.001, 0.999]."""
        return torch.logit(x.mean(0), eps=_SMALLEST_FREQUENCY)


class Binomial(Likelihood):
    """x ∈ {0, …, n}, one logit a feature: log p(x | η) = log (n choose x) + x η − n log(1 + e^η).

    Args:
        total_count: n, the largest count, for instance 16 for `load_dataset("digits")`.

    Raises:
        OptionError: total_count is not a positive whole number.

    Example:
        >>> Binomial(16).mean(torch.zeros(2)).tolist()
        [8.0, 8.0]
    """

    def __init__(self, total_count: int):
        super().__init__()
        self.total_count = whole_number("total_count", total_count)
        self.support = constraints.integer_interval(0, total_count)

    def features(self, output: Tensor) -> dist.TorchDistribution:
        """Binomial(n, logit η)."""
        return dist.Binomial(total_count=self.total_count, logits=output)

    def initial_bias(self, x: Tensor) -> Tensor:
        """The logit of the mean over n, which is kept within [0.001, 0.999]."""
        return torch.logit(x.mean(0) / self.total_count, eps=_SMALLEST_FREQUENCY)

    def extra_repr(self) -> str:
        """The largest count."""
        return f"total_count={self.total_count}"


class Normal(Likelihood):
    """x ∈ ℝ with a fixed scale σ: log p(x | η) = −½ ((x − η) / σ)² − log σ − ½ log 2π.

    Args:
        scale: σ > 0.

    Raises:
        OptionError: scale is not a positive finite number.

    Example:
        >>> Normal(scale=0.5)(torch.zeros(4, 3)).variance[0].tolist()
        [0.25, 0.25, 0.25]
    """

    support = constraints.real

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = _positive("scale", scale)

    def features(self, output: Tensor) -> dist.TorchDistribution:
        """N(η, σ²)."""
        return dist.Normal(output, self.scale)

    def initial_bias(self, x: Tensor) -> Tensor:
        """The mean."""
        return x.mean(0)

    def extra_repr(self) -> str:
        """The fixed scale."""
        return f"scale={self.scale:g}"


class _NormalLearntScale(Likelihood):
    """x ∈ ℝ with a learnt scale σ = e^ρ: a step of the optimiser in ρ is a factor of σ, whatever the data's units."""

    support = constraints.real

    def __init__(self, num_scales: int, scale: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((num_scales,), math.log(_positive("scale", scale))))

    def features(self, output: Tensor) -> dist.TorchDistribution:
        """N(η, σ²)."""
        # The smallest step of the number format keeps σ, and its square, above zero where e^ρ underflows.
        return dist.Normal(output, self.log_scale.exp() + torch.finfo(output.dtype).eps)

    def initial_bias(self, x: Tensor) -> Tensor:
        """The mean."""
        return x.mean(0)


class NormalSharedScale(_NormalLearntScale):
    """x ∈ ℝ with one learnt scale for all features: log p(x | η) = −½ ((x − η) / σ)² − log σ − ½ log 2π.

    Args:
        scale: the value from which σ starts.

    Raises:
        OptionError: scale is not a positive finite number.

    Example:
        >>> NormalSharedScale().log_scale.tolist()
        [0.0]
    """

    def __init__(self, scale: float = 1.0):
        super().__init__(1, scale)


class NormalFeatureScale(_NormalLearntScale):
    """x ∈ ℝ with a learnt scale for each feature: log p(x_d | η_d) = −½ ((x_d − η_d) / σ_d)² − log σ_d − ½ log 2π.

    The likelihood of a feature that never varies has no maximum: its σ_d shrinks towards zero. Leave such features out.

    Args:
        num_features: D.
        scale: the value from which each σ_d starts.

    Raises:
        OptionError: num_features is not a positive whole number, or scale is not a positive finite number.

    Example:
        >>> NormalFeatureScale(3).log_scale.shape
        torch.Size([3])
    """

    def __init__(self, num_features: int, scale: float = 1.0):
        super().__init__(whole_number("num_features", num_features), scale)

    def check(self, x: Tensor) -> None:
        """Refuse data that are not finite real rows of `num_features` features; see :meth:`Likelihood.check`."""
        super().check(x)
        if x.shape[1] != len(self.log_scale):
            raise DataError(
                f"x has {x.shape[1]} features but the likelihood was made for {len(self.log_scale)}; "
                f"use NormalFeatureScale(num_features={x.shape[1]})."
            )

    def extra_repr(self) -> str:
        """The number of features."""
        return f"num_features={len(self.log_scale)}"


class _Codes(dist.Categorical):
    """A categorical distribution whose draws have the type of its logits, so that an encoder can read them again."""

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().sample(*args, **kwargs).to(self.logits.dtype)


class Categorical(Likelihood):
    """x ∈ {0, …, C − 1}, C logits a feature: log p(x | η) = η_x − log Σ_c e^{η_c}.

    Args:
        num_categories: C.

    Raises:
        OptionError: num_categories is not a whole number of at least 2.

    Example:
        >>> Categorical(3).outputs_per_feature, Categorical(3)(torch.zeros(5, 2 * 3)).event_shape
        (3, torch.Size([2]))
    """

    def __init__(self, num_categories: int):
        super().__init__()
        self.outputs_per_feature = whole_number("num_categories", num_categories, at_least=2)
        self.support = constraints.integer_interval(0, num_categories - 1)

    def features(self, output: Tensor) -> dist.TorchDistribution:
        """Categorical(logits η), whose draws are floating-point numbers, as all data are."""
        return _Codes(logits=output.unflatten(-1, (-1, self.outputs_per_feature)))

    def mean(self, output: Tensor) -> Tensor:
        """The mean code Σ_c c p(c | η), of shape `(..., D)`; it is a picture only where codes are grey levels."""
        probs = self.features(output).probs
        return probs @ torch.arange(self.outputs_per_feature, dtype=probs.dtype, device=probs.device)

    def initial_bias(self, x: Tensor) -> Tensor:
        """The logarithms of the frequencies, none of which starts below 0.001."""
        # One category after another: all at once would hold C copies of the data.
        codes = range(self.outputs_per_feature)
        frequencies = torch.stack([(x == code).to(x.dtype).mean(0) for code in codes], dim=-1)
        return frequencies.clamp(min=_SMALLEST_FREQUENCY).log().flatten()

    def extra_repr(self) -> str:
        """The number of categories."""
        return f"num_categories={self.outputs_per_feature}"


class Poisson(Likelihood):
    """x ∈ {0, 1, 2, …}, one log rate a feature: log p(x | η) = x η − e^η − log x!.

    Example:
        >>> Poisson().mean(torch.zeros(2)).tolist()
        [1.0, 1.0]
    """

    support = constraints.nonnegative_integer

    def features(self, output: Tensor) -> dist.TorchDistribution:
        """Poisson(e^η)."""
        # The smallest normal number changes no rate that can be told from it, and keeps log p finite if e^η underflows.
        return dist.Poisson(output.exp() + torch.finfo(output.dtype).tiny)

    def initial_bias(self, x: Tensor) -> Tensor:
        """The logarithm of the mean, which is kept above 0.001."""
        return x.mean(0).clamp(min=_SMALLEST_FREQUENCY).log()


class NegativeBinomial(Likelihood):
    """x ∈ {0, 1, 2, …} with more spread than Poisson: mean m = e^η, variance m + m² / r, one learnt r for all features.

        log p(x | η) = log Γ(x + r) − log Γ(r) − log x! + r log (r / (m + r)) + x log (m / (m + r))

    Args:
        dispersion: the value from which r starts; the larger it is, the nearer to Poisson.

    Raises:
        OptionError: dispersion is not a positive finite number.

    Example:
        >>> NegativeBinomial(dispersion=2.0)(torch.zeros(1)).variance.tolist()
        [1.5]
    """

    support = constraints.nonnegative_integer

    def __init__(self, dispersion: float = 1.0):
        super().__init__()
        self.log_dispersion = nn.Parameter(torch.full((1,), math.log(_positive("dispersion", dispersion))))

    def features(self, output: Tensor) -> dist.TorchDistribution:
        """NegativeBinomial(r, logit η − log r), whose mean is r e^{η − log r} = e^η."""
        return dist.NegativeBinomial(
            total_count=self.log_dispersion.exp() + torch.finfo(output.dtype).tiny, logits=output - self.log_dispersion
        )

    def initial_bias(self, x: Tensor) -> Tensor:
        """The logarithm of the mean, which is kept above 0.001."""
        return x.mean(0).clamp(min=_SMALLEST_FREQUENCY).log()


def check_rows(x: Tensor) -> None:
    """Refuse x unless it is a matrix of finite floating-point rows, `(num_data, num_features)`, that is not empty.

    Args:
        x: the data.

    Raises:
        DataError: x is something else.

    Example:
        >>> check_rows(torch.zeros(10, 8, 8))
        Traceback (most recent call last):
        ...
        ppvae.errors.DataError: x has shape (10, 8, 8), not (num_data, num_features); lay each datum flat: x.flatten(1).
    """
    if x.ndim != 2:
        raise DataError(
            f"x has shape {tuple(x.shape)}, not (num_data, num_features); lay each datum flat: x.flatten(1)."
        )
    if x.numel() == 0:
        raise DataError(f"x has shape {tuple(x.shape)} and so holds no values; give at least one row and one feature.")
    if not x.is_floating_point():
        raise DataError(f"x holds {x.dtype} values; networks compute with floating-point numbers: x.float().")
    wrong = ~x.isfinite()
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        raise DataError(
            f"{int(wrong.sum())} of the {x.numel()} values of x are not finite: the first is {x[row, column].item()} "
            f"in row {row}, feature {column}; leave such rows out or fill them in."
        )


def _remedy(x: Tensor) -> str:
    """Which likelihood fits finite values."""
    smallest, largest = x.min().item(), x.max().item()
    if smallest < 0:
        return "NormalSharedScale() fits real values"
    if (x == x.round()).all():
        if largest <= 1:
            return "Bernoulli() fits values that are 0 or 1"
        return f"Binomial(total_count={largest:.0f}) or Poisson() fits counts"
    if largest <= 1:
        return "binarise grey values first, x = torch.bernoulli(x), or use NormalSharedScale()"
    return "NormalSharedScale() fits real values"


def _positive(name: str, value: float) -> float:
    if not (0 < value < math.inf):
        raise OptionError(f"{name} is {value!r}; give a positive finite number.")
    return value
