"""The deep Markov model: a chain of latents with a nonlinear transition, behind sequences of several lengths.

    model   z_1 ~ N(m_0, s_0²),   z_t ~ N(m(z_{t−1}), s(z_{t−1})²),   x_t ~ p(x_t | f(z_t))      for t ≤ the length
    guide   q(z_t | z_{t−1}, x_{t:T}) = N(μ(z_{t−1}, h_t), σ(z_{t−1}, h_t)²)

h_t are the states of a recurrent network that reads the sequence backwards, packed, so that what stands after a
sequence's end is never read. After the end the guide follows the transition, whose density cancels, and no x counts.
By default the digits are read as eight steps of eight pixels; `--data jsb_chorales --pair_args.num_steps 160` takes the
paper's chorales: 320 sites, a slow pair, whose ELBO is that of a whole sequence (the paper divides it by the length).
"Structured Inference Networks for Nonlinear State Space Models" (Krishnan et al., 2017), arXiv:1609.09869.
"""

from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ppvae.errors import OptionError

from .likelihoods import Bernoulli, Likelihood
from .location_scale import location_and_scale
from .networks import MLP, whole_number


class DeepMarkovModel(nn.Module):
    """A deep Markov model with a structured guide.

    Sites: the latents `z1` … `zT`, event shapes `(latent_dim,)`, and the observations `x1` … `xT`, event shapes
    `(num_features / num_steps,)`, all in the plate `data` at dim −1.

    Args:
        num_features: T·F, the length of a datum: its steps laid flat, one after another.
        num_steps: T.
        latent_dim: d, the length of each z_t.
        hidden: width of the networks' hidden layer and of the recurrent state; 0 makes all maps but the guide's affine.
        likelihood: p(x_t | f(z_t)), by default `Bernoulli()`.

    Raises:
        OptionError: a size is not a positive whole number, or the steps do not divide a datum.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> pair = DeepMarkovModel(num_features=12, num_steps=4, latent_dim=2, hidden=8)
        >>> len(pair.guide(torch.zeros(5, 12), torch.tensor([4, 2, 1, 3, 4])))
        4
    """

    # What the recurrent network sees is (x − shift) / scale.
    input_shift: Tensor
    input_scale: Tensor

    def __init__(
        self,
        num_features: int,
        num_steps: int = 8,
        latent_dim: int = 8,
        hidden: int = 64,
        likelihood: Likelihood | None = None,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        self.num_steps, d = whole_number("num_steps", num_steps), whole_number("latent_dim", latent_dim)
        if num_features % num_steps:
            raise OptionError(
                f"num_steps is {num_steps}, which does not divide the {num_features} numbers of a datum; give a "
                "divisor."
            )
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        F_, width = num_features // num_steps, (hidden,) if hidden else ()
        self.start = nn.Parameter(torch.cat([torch.zeros(d), torch.full((d,), 0.5413)]))  # softplus is 1
        self.transition = MLP(d, width, 2 * d)
        self.emission = MLP(d, width, F_ * self.likelihood.outputs_per_feature)
        self.rnn = nn.GRU(F_, hidden or d, batch_first=True)
        self.combiner = MLP(d + (hidden or d), width, 2 * d)
        self.register_buffer("input_shift", torch.tensor(0.0))
        self.register_buffer("input_scale", torch.tensor(1.0))

    def model(self, x: Tensor, lengths: Tensor | None = None) -> None:
        """The generative program, step by step.

        Args:
            x: a batch, `(num_data, num_features)`; what stands after a sequence's end does not count.
            lengths: of the sequences, whole numbers 1 … T, `(num_data,)`; None for T.
        """
        pyro.module("deep_markov_model", self)
        steps, there = self._steps(x, lengths)
        with pyro.plate("data", len(x)):
            moments = location_and_scale(self.start)
            for t in range(self.num_steps):
                z = pyro.sample(f"z{t + 1}", dist.Normal(*moments).to_event(1))
                observed = self.likelihood(self.emission(z)).mask(there[:, t])
                pyro.sample(f"x{t + 1}", observed, obs=steps[:, t])
                moments = location_and_scale(self.transition(z))

    def guide(self, x: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """The proposal, step by step, from what is still to come.

        Args:
            x: as the model takes it.
            lengths: see there.

        Returns:
            The draws of z_1 … z_T.
        """
        pyro.module("deep_markov_model", self)
        steps, there = self._steps(x, lengths)
        future = self._future(steps, there.sum(-1))
        draws: list[Tensor] = []
        with pyro.plate("data", len(x)):
            prior, before = location_and_scale(self.start), x.new_zeros(len(self.start) // 2)
            for t in range(self.num_steps):
                state = future[:, t]
                before = before.expand(*torch.broadcast_shapes(before.shape[:-1], state.shape[:-1]), -1)
                loc, scale = location_and_scale(
                    self.combiner(torch.cat([before, state.expand(*before.shape[:-1], -1)], -1))
                )
                on = there[:, t].unsqueeze(-1)
                proposal = dist.Normal(torch.where(on, loc, prior[0]), torch.where(on, scale, prior[1]))
                before = pyro.sample(f"z{t + 1}", proposal.to_event(1))
                draws.append(before)
                prior = location_and_scale(self.transition(before))
        return draws

    @classmethod
    def for_data(cls, x: Tensor, likelihood: Likelihood, **options: Any) -> Self:
        """A pair whose every step starts with the data's mean, over all steps.

        Args:
            x: the data as the likelihood sees them, `(num_data, T·F)`.
            likelihood: p(x_t | f(z_t)).
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
            pair.emission.output_bias.copy_(likelihood.initial_bias(x.reshape(len(x) * pair.num_steps, -1)))
            pair.input_shift.copy_(x.min())
            pair.input_scale.copy_((x.max() - x.min()).clamp(min=torch.finfo(x.dtype).tiny))
        return pair

    def _steps(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """x by step, `(num_data, T, F)`, and which steps are there, `(num_data, T)`."""
        steps = x.reshape(len(x), self.num_steps, -1)
        number = torch.arange(self.num_steps, device=x.device)
        lengths = torch.full((len(x),), self.num_steps, device=x.device) if lengths is None else lengths
        return steps, number < lengths.unsqueeze(-1)

    def _future(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """h_t, `(num_data, T, width)`: each sequence is turned round, read up to its length, and turned back."""
        number = torch.arange(self.num_steps, device=steps.device)
        turned = (lengths.unsqueeze(-1) - 1 - number).clamp(min=0).unsqueeze(-1)
        inputs = ((steps - self.input_shift) / self.input_scale).take_along_dim(turned, 1)
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=self.num_steps)
        return states.take_along_dim(turned, 1)
