"""Signal-to-noise of a guide's gradient against the number of particles, and its variance at the exact posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor

from ppvae.inference import IWAE, STL, DReG
from ppvae.models import LinearGaussian

from .row import Figure, Published, Row, RowEffort, RowOutcome

# As in the papers: 20 dimensions, a guide of variance 2/3 that is off its optimum by 0.01 in every parameter.
WIDTH, VARIANCE, OFF = 20, 2 / 3, 0.01
# The slopes are those of large K: DReG's is 0.452 ± 0.002 from K = 16 to 256.
PARTICLES, NUM_DATA, STARTS = (256, 1024, 4096), 8, 4
# Gradients for a mean and a spread, and for the standard deviations at the posterior.
OF_SLOPE, AT_OPTIMUM = 100, 300


def gaussian_pair(generator: torch.Generator) -> LinearGaussian:
    """z ~ N(0, I), x ~ N(z, I), q(z|x) = N(A x + b, 2/3 I), with A and b near their optimum."""
    pair = LinearGaussian(WIDTH, WIDTH, full_covariance=False).double()
    with torch.no_grad():
        pair.weight.copy_(torch.eye(WIDTH))
        pair.guide_weight.copy_(torch.eye(WIDTH) / 2 + OFF * torch.randn(WIDTH, WIDTH, generator=generator))
        pair.guide_bias.copy_(OFF * torch.randn(WIDTH, generator=generator))
        pair.guide_log_scale.fill_(math.log(VARIANCE) / 2)
    return pair


def gradients(pair: Any, objective: ELBO, x: Tensor, parameters: Sequence[Tensor], count: int) -> Tensor:
    """Gradients of the mean loss over the data, ``(count, num_parameters)``."""
    loss = objective.differentiable_loss  # type: ignore[attr-defined]
    found = [torch.autograd.grad(loss(pair.model, pair.guide, x) / len(x), list(parameters)) for _ in range(count)]
    return torch.stack([torch.cat([one.flatten() for one in each]) for each in found])


def slope(kind: Callable[[int], ELBO], effort: RowEffort) -> RowOutcome:
    """The slope of log signal-to-noise in log K, with the spread over starts as its error."""
    slopes, curves, differences = [], [], []
    for start in range(STARTS):
        generator = torch.Generator().manual_seed(effort.seed + start)
        pair = gaussian_pair(generator)
        x = math.sqrt(2) * torch.randn(NUM_DATA, WIDTH, generator=generator, dtype=torch.float64)
        with torch.random.fork_rng():
            torch.manual_seed(effort.seed + start)
            found = [signal_to_noise(pair, kind, K, x) for K in PARTICLES]
        ratios = [ratio for ratio, _ in found]
        logs = torch.tensor(PARTICLES, dtype=torch.float64).log()
        logs = logs - logs.mean()
        slopes.append(float((logs * torch.tensor(ratios, dtype=torch.float64).log()).sum() / logs.square().sum()))
        curves.append(ratios)
        differences.append([difference for _, difference in found])
    values = torch.tensor(slopes)
    details = {"particles": PARTICLES, "signal_to_noise": curves, "slopes": slopes, "mean_square_z": differences}
    return RowOutcome((Figure(float(values.mean()), float(values.std()) / math.sqrt(STARTS)),), details)


def signal_to_noise(pair: LinearGaussian, kind: Callable[[int], ELBO], K: int, x: Tensor) -> tuple[float, float]:
    """√(mean square of E g) / √(mean variance of g) over the guide's parameters, g the gradient by K particles.

    IWAE's mean is a thousandth of its spread, and thousands of gradients would show it. It is the gradient of the same
    bound as DReG's, whose mean is of the size of its spread: E g is taken of DReG, the variance of the objective.

    Returns:
        The ratio, and the mean over the parameters of z², z the difference of the two means in its standard errors:
        near 1 where both estimate one gradient, and 0 of DReG's own.
    """
    parameters = [pair.guide_bias, pair.guide_weight]
    quiet = gradients(pair, DReG(K), x, parameters, OF_SLOPE)
    found = quiet if kind is DReG else gradients(pair, kind(K), x, parameters, OF_SLOPE)
    # The square of a mean has the variance of the mean too much. What is left of one parameter may be negative, and
    # must count as that: only of all together is it surely none.
    signal = (quiet.mean(0).square() - quiet.var(0) / OF_SLOPE).mean().clamp(min=0).sqrt()
    z = (found.mean(0) - quiet.mean(0)) / ((found.var(0) + quiet.var(0)) / OF_SLOPE).sqrt()
    return float(signal / found.var(0).mean().sqrt()), float(z.square().mean())


def at_the_posterior(effort: RowEffort) -> RowOutcome:
    """Standard deviations of the guide's gradient where q is the exact posterior, of one datum."""
    torch_seed = effort.seed
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed)
        pair = LinearGaussian(1, 1).double().set_exact_guide()
        scale = float(pair.guide_log_scale.detach().exp())
        parameters = [pair.guide_bias, pair.guide_log_scale]
        x = torch.tensor([[0.7]], dtype=torch.float64)
        found = {
            name: gradients(pair, objective, x, parameters, AT_OPTIMUM).std(0)
            for name, objective in (("STL", STL()), ("DReG", DReG(8)), ("Trace_ELBO", Trace_ELBO()))
        }
    plain = found["Trace_ELBO"] * torch.tensor([scale, 1.0])
    # Standard errors of a standard deviation: of normal values, and of (squares of normal values, kurtosis 15).
    errors = plain * torch.tensor([math.sqrt(2 / 4), math.sqrt(14 / 4)]) / math.sqrt(AT_OPTIMUM)
    return RowOutcome(
        (
            Figure(float(found["STL"].max()), 0.0),
            Figure(float(found["DReG"].max()), 0.0),
            Figure(float(plain[0]), float(errors[0])),
            Figure(float(plain[1]), float(errors[1])),
        ),
        {"gradients": AT_OPTIMUM},
    )


PROTOCOL = (
    "20-dimensional linear-Gaussian pair near its optimum, K = 256, 1024 and 4096, 8 data, four starts, whose spread "
    f"is the error; {OF_SLOPE} gradients"
)

ROWS = (
    Row(
        "snr_iwae",
        "Signal-to-noise of the guide's gradient by IWAE",
        (Published("slope of its logarithm in log K", -0.5, 0.0005),),
        "Rainforth et al. (2018), arXiv:1802.04537, theorem 1",
        f"{PROTOCOL}; their mean is that of as many by DReG, which estimates the same gradient with less spread",
        "",
        partial(slope, IWAE),
    ),
    Row(
        "snr_dreg",
        "The same by DReG",
        (Published("slope of its logarithm in log K", 0.5, 0.0005),),
        "Tucker, Lawson, Gu & Maddison (2019), arXiv:1810.04152, section 4",
        f"{PROTOCOL}. The slope is that of large K: from 16 to 256, with 64 data, it is 0.452 ± 0.002",
        "",
        partial(slope, DReG),
    ),
    Row(
        "gradient_at_the_posterior",
        "The guide's gradient where q(z|x) is the posterior",
        (
            Published("standard deviation by STL", 0.0, 1e-9),
            Published("standard deviation by DReG", 0.0, 1e-9),
            Published("standard deviation by Pyro's Trace_ELBO, location, in 1/σ", 1.0, 0.0005),
            Published("standard deviation by Pyro's Trace_ELBO, log σ", math.sqrt(2), 0.0005),
        ),
        "Roeder, Wu & Duvenaud (2017), arXiv:1703.09194: the score of q, (z − μ)/σ² and (z − μ)²/σ² − 1, remains",
        "one datum of a linear-Gaussian pair with its exact posterior, 300 gradients",
        "",
        at_the_posterior,
    ),
)
