"""The feed-forward network: a conditional density without latents, so that its ELBO is the empirical risk.

    h¹ = φ(W¹ x + b¹),   …,   h^{L−1} = φ(W^{L−1} h^{L−2} + b^{L−1}),   ŷ = g(W^L h^{L−1} + b^L)

    model   y ~ p(y | ŷ)
    guide   nothing: nothing is hidden

where g and p are the likelihood's: identity and Normal, sigmoid and Bernoulli, softmax and Categorical.

Hence every log weight is log p(y | x) and Pyro's Trace_ELBO is minus the loss of the data,

    −ELBO / N = (1/N) Σ_i L(f_θ(x_i), y_i),      L(ŷ, y) = −log p(y | ŷ),

in nats: ½ (y − ŷ)² + ½ log 2π for `Normal()`, −log ŷ_y for `Categorical`. To fit the pair by SVI with
`torch.optim.SGD` is therefore gradient descent on that mean, θ ← θ − η ∇_θ L, by the chain rule:
"Learning representations by back-propagating errors" (Rumelhart, Hinton & Williams, 1986), Nature 323.
"""

from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.errors import DataError

from .likelihoods import Likelihood, Normal, check_rows
from .networks import MLP, whole_number


class FeedForward(nn.Module):
    """A pair of the targets y given the inputs x: a network and likelihood as the model, an empty guide.

    The data of the two programs are the targets, the inputs their context: `fit(net.model, net.guide, (y, x))`.
    Site: the observation `y`, event shape `(num_targets,)`, in the plate `data` at dim −1.

    Args:
        num_features: the length of x.
        num_targets: the length of y; 1 for a class label, which is one number 0 … C − 1 with `Categorical(C)`.
        hidden: widths of h¹ … h^{L−1}; `()` leaves one affine neuron for each output.
        likelihood: p(y | ŷ), by default `Normal()`, half the squared error.
        nonlinearity: the module class of φ.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> from ppvae.models import Categorical
        >>> net = FeedForward(num_features=64, likelihood=Categorical(10))
        >>> net.predict(torch.zeros(5, 64)).log_prob(torch.zeros(5, 1)).shape
        torch.Size([5])
    """

    # What the network sees is (x − shift) / scale.
    input_shift: Tensor
    input_scale: Tensor

    def __init__(
        self,
        num_features: int,
        num_targets: int = 1,
        hidden: tuple[int, ...] = (100,),
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        self.likelihood = Normal() if likelihood is None else likelihood
        num_outputs = whole_number("num_targets", num_targets) * self.likelihood.outputs_per_feature
        self.network = MLP(num_features, hidden, num_outputs, nonlinearity)
        self.register_buffer("input_shift", torch.zeros(num_features))
        self.register_buffer("input_scale", torch.tensor(1.0))

    @classmethod
    def for_data(cls, y: Tensor, x: Tensor, likelihood: Likelihood | None = None, **options: Any) -> Self:
        """A network for these data: its first guess of every target is near their mean, whatever the input.

        The network sees x less its mean, over one scale for all features, the largest distance from it: bring features
        of different units to a common one before.

        Args:
            y: the targets as the likelihood sees them, `(num_data, num_targets)`.
            x: the inputs, `(num_data, num_features)`.
            likelihood: p(y | ŷ), by default `Normal()`.
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: the targets do not fit the inputs, or leave the likelihood's support.
            OptionError: an option has a value that cannot be used.

        Example:
            >>> x, y = torch.tensor([[0.0], [2.0], [4.0]]), torch.tensor([[1.0], [2.0], [6.0]])
            >>> net = FeedForward.for_data(y, x)
            >>> net.predict(x.mean(0)).mean.tolist(), net.input_scale.item()
            ([3.0], 2.0)
        """
        likelihood = Normal() if likelihood is None else likelihood
        check_rows(x)
        _check_targets(y, x, likelihood)
        net = cls(x.shape[1], y.shape[1], likelihood=likelihood, **options).to(x)
        with torch.no_grad():
            shift, scale = centre_and_reach(x)
            net.input_shift.copy_(shift)
            net.input_scale.copy_(scale)
            net.network.output_bias.copy_(likelihood.initial_bias(y))
        return net

    def predict(self, x: Tensor) -> dist.TorchDistribution:
        """p(y | x); its `mean` is ŷ for one output a target.

        Args:
            x: `(..., num_features)`.

        Returns:
            A distribution of batch shape `(...)` and event shape `(num_targets,)`.
        """
        return self.likelihood(self.network((x - self.input_shift) / self.input_scale))

    def model(self, y: Tensor, x: Tensor) -> Tensor:
        """The generative program, p(y | x).

        Args:
            y: the targets of a batch, `(num_data, num_targets)`.
            x: their inputs, `(num_data, num_features)`.

        Returns:
            y; under `poutine.uncondition`, targets drawn for these inputs.
        """
        pyro.module("feed_forward", self)
        with pyro.plate("data", len(y)):
            return pyro.sample("y", self.predict(x), obs=y)

    def guide(self, y: Tensor, x: Tensor) -> None:
        """An empty guide: the model has no latents.

        Args:
            y: the targets of a batch, `(num_data, num_targets)`.
            x: their inputs, `(num_data, num_features)`.
        """


def centre_and_reach(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of every feature, and the largest distance from it of any value (1 where nothing varies).

    Args:
        x: `(num_data, num_features)`.

    Returns:
        The mean `(num_features,)` and the distance `()`: (x − mean) / distance lies in [−1, 1], where tanh is not flat.

    Example:
        >>> centre_and_reach(torch.tensor([[0.0, 5.0], [4.0, 5.0]]))
        (tensor([2., 5.]), tensor(2.))
    """
    mean = x.mean(0)
    reach = (x - mean).abs().max()
    return mean, torch.where(reach > 0, reach, torch.ones_like(reach))


def _check_targets(y: Tensor, x: Tensor, likelihood: Likelihood) -> None:
    if y.ndim != 2:
        raise DataError(
            f"y has shape {tuple(y.shape)}, not (num_data, num_targets); give one target a datum as y[:, None]."
        )
    if len(y) != len(x):
        raise DataError(f"y has {len(y)} rows but x has {len(x)}; give the targets of these inputs, row by row.")
    try:
        likelihood.check(y)
    except DataError as error:
        raise DataError(f"y does not fit the likelihood, which calls it x: {error}") from error
