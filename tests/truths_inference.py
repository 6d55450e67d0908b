"""Closed forms and reference integrals that hold inference to the truth. All in nats.

Gaussian algebra for pairs whose evidence and posterior are known, a dense grid for pairs with a two-dimensional
latent, and Gauss-Hermite quadrature for the bounds L_k = E log (1/k) Σ w of a one-dimensional Gaussian guide.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal

# |z| < 4.5 raises a false alarm once in 147 000 tests.
Z_LIMIT = 4.5


def gaussian_evidence(x: Tensor, weight: Tensor, bias: Tensor, noise: Tensor, loc: Tensor, cov: Tensor) -> Tensor:
    """log p(x) of z ~ N(loc, cov), x | z ~ N(weight z + bias, noise); `loc` and `bias` may differ between data."""
    marginal = MultivariateNormal(loc @ weight.T + bias, weight @ cov @ weight.T + noise)
    return marginal.log_prob(x)


def gaussian_posterior(
    x: Tensor, weight: Tensor, bias: Tensor, noise: Tensor, loc: Tensor, cov: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean (num_data, d) and covariance (d, d) of p(z | x) for the model of :func:`gaussian_evidence`."""
    gain = cov @ weight.T @ torch.linalg.inv(weight @ cov @ weight.T + noise)
    posterior_cov = cov - gain @ weight @ cov
    return loc + (x - bias - loc @ weight.T) @ gain.T, (posterior_cov + posterior_cov.T) / 2


def gaussian_kl(loc_q: Tensor, cov_q: Tensor, loc_p: Tensor, cov_p: Tensor) -> Tensor:
    """KL(N(loc_q, cov_q) || N(loc_p, cov_p)) = ½ [tr(P⁻¹Q) + δᵀP⁻¹δ − d + log |P|/|Q|]."""
    precision = torch.linalg.inv(cov_p)
    delta = loc_p - loc_q
    trace = (precision @ cov_q).diagonal(dim1=-2, dim2=-1).sum(-1)
    quadratic = torch.einsum("...i,...ij,...j->...", delta, precision, delta)
    return (trace + quadratic - delta.shape[-1] + torch.logdet(cov_p) - torch.logdet(cov_q)) / 2


def gaussian_scale_kl(scale: float, dim: int) -> float:
    """KL(N(m, s²S) || N(m, S)) = d (s² − 1 − log s²) / 2."""
    return dim * (scale**2 - 1 - math.log(scale**2)) / 2


def relative_weight_variance(scale: float, dim: int) -> float:
    """Var(w)/p(x)² when the posterior is N(m, S) and the guide N(m, s²S): (s / √(2 − 1/s²))^d − 1, for s² > ½."""
    return (scale / math.sqrt(2 - 1 / scale**2)) ** dim - 1


def relative_weights(scale: float, dim: int, count: int, times: int, exact: bool) -> Tensor:
    """log w − log p(x) of a guide `scale` times as wide as a Gaussian posterior, drawn from its closed form.

    With ε ~ N(0, I) in the guide's units, log w = d log s + (1 − s²) χ²_d / 2, and from the posterior χ²/s² for χ².
    """
    generator = np.random.default_rng(0)
    square = generator.chisquare(dim, (count, times)) / (scale**2 if exact else 1.0)
    return torch.from_numpy(dim * math.log(scale) + (1 - scale**2) * square / 2)


def grid_evidence(model: Callable[..., object], x: Tensor, site: str, half_width: float, points: int) -> Tensor:
    """log ∫ p(x, z) dz over a two-dimensional latent by the trapezoidal rule on [−half_width, half_width]².

    The pair's own program is the integrand: each row of the data is repeated once for every node of the grid. For an
    analytic integrand that vanishes at the edge the rule converges faster than any power of the mesh.
    """
    axis = torch.linspace(-half_width, half_width, points)
    z = torch.cartesian_prod(axis, axis)
    log_cell = 2 * torch.log(axis[1] - axis[0])
    rows = []
    for row in x:
        data = row.expand(len(z), *row.shape)
        trace: Any = poutine.trace(poutine.condition(model, {site: z})).get_trace(data)
        trace.compute_log_prob()
        terms = [trace.nodes[name]["log_prob"] for name in trace.observation_nodes]
        rows.append(torch.logsumexp(torch.stack(terms).sum(0).detach(), 0) + log_cell)
    return torch.stack(rows)


def bound_of_two(scale: float, order: int = 100) -> float:
    """L_2 − log p(x) = E log ½(w₁ + w₂) for the posterior N(m, S) in one dimension and the guide N(m, s²S), s > 1."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(order)
    mass = mass / mass.sum()
    # With z = m + s√S ε the relative weight is log w = log s − s²ε²/2 + ε²/2.
    log_w = math.log(scale) - (scale**2 - 1) * nodes**2 / 2
    pairs = np.logaddexp(log_w[:, None], log_w[None, :]) - math.log(2)
    return float(mass @ pairs @ mass)


def z_score(samples: Tensor, truth: float) -> float:
    """(mean − truth) in standard errors of the mean of independent samples."""
    return float((samples.mean() - truth) / (samples.std() / math.sqrt(len(samples))))


def binomial_alarm(hits: int, trials: int, probability: float) -> float:
    """P(at most `hits` successes): how often chance alone gives so low a coverage, were `probability` true."""
    return float(stats.binom.cdf(hits, trials, probability))


def plate_nesting(model: Callable[..., object], *args: Tensor) -> int:
    """The deepest plate of a program, as the number of batch dimensions it uses."""
    trace: Any = poutine.trace(model).get_trace(*args)
    frames = [frame for node in trace.nodes.values() for frame in node.get("cond_indep_stack", ()) if frame.vectorized]
    return max(-frame.dim for frame in frames)


def draw_particles(program: Callable[..., object], args: tuple[Tensor, ...], num_particles: int, nesting: int) -> Any:
    """One trace of a program under a particle plate, as the contract of a pair says it is run."""
    with pyro.plate("hand_particles", num_particles, dim=-nesting - 1):
        return poutine.trace(program).get_trace(*args)
