"""The pairs whose steps are timed: the VAE of all of the bench, and one of each kind that trains otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from ppvae.models import VAE, Bernoulli, ConvolutionalVAE, FlowVAE, GaussianMixtureVAE, HierarchicalVAE

LATENT, HIDDEN, NUM_FEATURES = 50, 200, 784
# Of the regression.
NUM_COVARIATES = 50

Program = Callable[..., Any]


@dataclass(frozen=True)
class StepPair:
    """A pair with what a step of it takes.

    Attributes:
        model: the generative program.
        guide: the proposal.
        data: of one turn, a tuple ``(x, *context)``.
        elbo: the class of Pyro's ELBO.
        one_batch: whether all data are one batch, which a step takes and a turn takes again and again.
    """

    model: Program
    guide: Program
    data: tuple[Tensor, ...]
    elbo: Callable[[], Any] = Trace_ELBO
    one_batch: bool = False


def vae_for(x: Tensor) -> VAE:
    """The VAE that most of the bench works on, 784-200-200-50 with tanh."""
    return VAE.for_data(x, Bernoulli(), latent_dim=LATENT, hidden=(HIDDEN, HIDDEN))


def pixels(num_data: int) -> Tensor:
    """Pictures of noise as dark as those of MNIST, `(num_data, 784)`: what they show takes no time."""
    return torch.bernoulli(torch.full((num_data, NUM_FEATURES), 0.13))


def _convolutional(num_data: int, _: int) -> StepPair:
    x = pixels(num_data)
    pair = ConvolutionalVAE.for_data(x, Bernoulli())
    return StepPair(pair.model, pair.guide, (x,))


def _hierarchical(num_data: int, _: int) -> StepPair:
    x = pixels(num_data)
    pair = HierarchicalVAE.for_data(x, Bernoulli())
    return StepPair(pair.model, pair.guide, (x,))


def _mixture(num_data: int, _: int) -> StepPair:
    x = pixels(num_data)
    pair = GaussianMixtureVAE.for_data(x, Bernoulli())
    return StepPair(pair.model, pair.guide, (x,), lambda: TraceEnum_ELBO(max_plate_nesting=1))


def _flow(num_data: int, _: int) -> StepPair:
    x = pixels(num_data)
    pair = FlowVAE.for_data(x, Bernoulli())
    return StepPair(pair.model, pair.guide, (x,))


def _regression(_: int, batch_size: int) -> StepPair:
    """All data share the weights, so that they are one batch."""
    covariates = torch.randn(batch_size, NUM_COVARIATES)
    answers = torch.bernoulli(torch.full((batch_size,), 0.5))
    return StepPair(logistic_regression, AutoNormal(logistic_regression), (answers, covariates), one_batch=True)


def logistic_regression(y: Tensor, covariates: Tensor) -> None:
    """Bayesian logistic regression, w ~ N(0, I), b ~ N(0, 10²), y ~ Bernoulli(logit w·c + b).

    Args:
        y: answers 0 and 1, `(num_data,)`.
        covariates: c, `(num_data, num_covariates)`.
    """
    weight = pyro.sample("weight", dist.Normal(covariates.new_zeros(covariates.shape[-1]), 1.0).to_event(1))
    intercept = pyro.sample("intercept", dist.Normal(covariates.new_zeros(()), 10.0))
    pyro.sample("y", dist.Bernoulli(logits=covariates @ weight + intercept).to_event(1), obs=y)


# What each pair is called, and what makes it from the number of data and of those in a step.
STEP_PAIRS: dict[str, Callable[[int, int], StepPair]] = {
    "convolutional VAE": _convolutional,
    "hierarchical VAE, two layers": _hierarchical,
    "mixture VAE, ten components enumerated": _mixture,
    "flow VAE": _flow,
    "logistic regression, AutoNormal": _regression,
}
