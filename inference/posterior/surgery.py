"""ELBO surgery: the KL of the guide from the prior, in two parts.

For N data let n be uniform on 1…N and q(n, z) = q(z|x_n)/N. The guide's average is the aggregate posterior,

    q(z) = (1/N) Σ_n q(z|x_n),

and the mean over the data of the ELBO's second term splits, exactly and for any pair, into

    ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)),
    (1/N) Σ_n KL(q(z|x_n) ‖ p(z)) = I_q(n; z) + KL(q(z) ‖ p(z)).

I_q(n; z) is what a code tells about which datum it came from, in nats: 0 when the guide ignores x, and log N, its
ceiling, when no two data share a code. Since KL(q(z) ‖ p(z)) ≥ 0 is all that is left to a better prior, it is also
what the ELBO could gain from one ("VAE with a VampPrior", Tomczak & Welling, 2018, arXiv:1705.07120).

Every term is a mean over the same draws z_nk ~ q(z|x_n), k = 1…K, with q(z) evaluated over all N data, none left out:

    Î = (1/NK) Σ_nk [log q(z_nk|x_n) − log (1/N) Σ_m q(z_nk|x_m)]

is unbiased for I_q(n; z) of *these* N data, and the two parts add up to the whole to the last digit. As an estimate of
I(x; z) in the population that the data come from it lies too low: it cannot exceed log N, and E[Î] grows with N.

References:
    ELBO surgery: yet another way to carve up the variational evidence lower bound (Hoffman & Johnson, 2016), NIPS
    workshop on Advances in Approximate Bayesian Inference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ppvae.errors import OptionError, PairError
from ppvae.progress import Progress

from ..options import valid_compute, whole_number
from ..pair import (
    Batch,
    Pair,
    Program,
    Values,
    as_batch,
    finite_batch,
    generator_kept,
    growth,
    seeded,
    where_parameters_are,
    why_slow,
)
from ..records import Summarised

TERMS = ("reconstruction", "kl", "mutual_information", "marginal_kl", "elbo")


# Data whose priors are compared.
SEVERAL = 8


@dataclass(frozen=True, repr=False)
class Surgery(Summarised):
    """The ELBO's parts for every datum, ``(num_data,)`` in nats, each with its Monte Carlo standard error.

    Attributes:
        reconstruction: E_q[log p(x|z)].
        kl: KL(q(z|x) ‖ p(z)).
        mutual_information: KL(q(z|x) ‖ q(z)); its mean over the data is I_q(n; z).
        marginal_kl: ``kl`` − ``mutual_information``; its mean over the data is KL(q(z) ‖ p(z)), while a single datum's
            may be negative.
        elbo: ``reconstruction`` − ``kl``.
        standard_error: of each of these by name, ``(num_data,)``, for the data as they are.
        num_particles: draws per datum, K.
    """

    printed: ClassVar = "num_data elbo reconstruction kl mutual_information marginal_kl"

    reconstruction: Tensor
    kl: Tensor
    mutual_information: Tensor
    marginal_kl: Tensor
    elbo: Tensor
    standard_error: dict[str, Tensor]
    num_particles: int

    @property
    def ceiling(self) -> float:
        """log N, which the mutual information cannot exceed, in nats."""
        return math.log(len(self.kl))

    def summary(self) -> dict[str, float]:
        """The mean of each term over the data and, as ``*_monte_carlo_error``, its standard error, in nats.

        The error is that of the integral over z alone: q(z) belongs to these data, so that the means are statements
        about them and not about a population.
        """
        out: dict[str, float] = {"num_data": len(self.kl), "num_particles": self.num_particles, "ceiling": self.ceiling}
        for name in TERMS:
            out[name] = float(getattr(self, name).mean())
            out[f"{name}_monte_carlo_error"] = float(self.standard_error[name].norm() / len(self.kl))
        return out


def elbo_surgery(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    num_particles: int = 100,
    *,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> Surgery:
    """Split the ELBO of every datum into reconstruction, mutual information and KL of the aggregate posterior.

    The work grows with N² K densities of the guide; the memory does not.

    Args:
        model: ``model(x)``, the generative program; its latents must be drawn from one prior for all data.
        guide: ``guide(x)``; its latents are all of the model's, in any number of sites, and none is enumerated.
        x: data, ``(num_data, ...)``, or a tuple ``(x, *context)``; q(z) is the guide's average over all of them.
        num_particles: draws of the guide per datum, K ≥ 2.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; the N·K draws themselves come on top.
        progress: show a progress bar with the time that remains.

    Returns:
        Surgery: tensors of shape ``(num_data,)``, float64, in nats.

    Raises:
        OptionError: ``num_particles`` is below 2, or ``memory_mb`` is not positive.
        DataError: ``x`` is not a tensor of at least one datum, or holds NaN or infinite values.
        PairError: the pair breaks the contract, its latents are shared by the data, it enumerates a site, its guide
            draws what the model does not, or its prior differs between data, as with context it may.

    Example:
        A guide that ignores x tells nothing of it, and all of its distance from the prior is the average's:

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> with torch.no_grad():
        ...     _ = pair.guide_bias.fill_(1.0)
        >>> parts = elbo_surgery(pair.model, pair.guide, torch.randn(20, 3), num_particles=2000, seed=0).summary()
        >>> abs(parts["mutual_information"]) < 1e-5, round(parts["marginal_kl"], 1)
        (True, 1.0)
    """
    num_particles = whole_number("num_particles", num_particles)
    if num_particles < 2:
        raise OptionError("num_particles is 1, from which no error can be read: give at least 2.")
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    batch = finite_batch(as_batch(x))
    batch = where_parameters_are(model, guide, batch)
    with seeded(seed), Pair.on(model, guide, batch) as pair, torch.no_grad():
        _demand_parts(pair)
        draws, log_likelihood, log_prior, log_q = _draw(pair, num_particles, memory_mb)
        log_aggregate = _log_aggregate(pair, draws, memory_mb, progress).reshape(log_q.shape)
    terms = {
        "reconstruction": log_likelihood,
        "kl": log_q - log_prior,
        "mutual_information": log_q - log_aggregate,
        "marginal_kl": log_aggregate - log_prior,
        "elbo": log_likelihood + log_prior - log_q,
    }
    errors = {name: term.std(0) / math.sqrt(num_particles) for name, term in terms.items()}
    means = {name: term.mean(0) for name, term in terms.items()}
    return Surgery(**means, standard_error=errors, num_particles=num_particles)


def _demand_parts(pair: Pair) -> None:
    """Raise PairError unless the ELBO of a pair can be carved up."""
    if pair.unit == "data set":
        raise PairError(
            "the latents are shared by the data, so that there is no code of a datum: give a pair with latents "
            "for each datum."
        )
    if pair.structure.auxiliary:
        raise PairError(
            f"{sorted(pair.structure.auxiliary)[0]!r} is a latent of one program only: give it to the model and the "
            "guide."
        )
    if pair.summed:
        raise PairError("the pair sums a discrete site out: draw it in the guide instead of enumerating it.")
    some = pair.rows(slice(0, SEVERAL))
    with generator_kept():
        drawn = some.guide_values(1)
    z = {name: value[:, :1].expand_as(value) for name, value in drawn.items()}
    found = some.densities(z)
    log_prior = found.log_p - found.log_likelihood
    if not log_prior.isclose(log_prior[:, :1], rtol=1e-5, atol=1e-4, equal_nan=True).all():
        raise PairError(
            "the prior differs between data, so that the average of q(z|x) has none to be compared with: give "
            "one for all data."
        )


def _draw(pair: Pair, num_particles: int, memory_mb: float) -> tuple[Values, Tensor, Tensor, Tensor]:
    """The draws by site, flattened to ``(K·N, ...)``, and log p(x|z), log p(z), log q(z|x), ``(K, N)`` each."""
    size = num_particles, pair.num_units
    log_likelihood, log_prior, log_q = (torch.zeros(size, dtype=torch.float64) for _ in range(3))
    draws: Values = {}
    for units, particles in pair.chunks(num_particles, memory_mb):
        part = pair.rows(units)
        z = part.guide_values(particles.stop - particles.start)
        found = part.densities(z)
        assert found.log_q is not None  # the guide's own draws hold all that it draws
        log_likelihood[particles, units] = found.log_likelihood.cpu()
        log_prior[particles, units] = (found.log_p - found.log_likelihood).cpu()
        log_q[particles, units] = found.log_q.cpu()
        for name, value in z.items():
            if name not in draws:
                draws[name] = value.new_empty((*size, *value.shape[2:]))
            draws[name][particles, units] = value
    return {name: value.flatten(0, 1) for name, value in draws.items()}, log_likelihood, log_prior, log_q


def _log_aggregate(pair: Pair, draws: Values, memory_mb: float, progress: bool) -> Tensor:
    """log (1/N) Σ_m q(z|x_m) of every draw, ``(num_draws,)``, a block of draws × data at a time."""
    num_draws = len(next(iter(draws.values())))
    log_sum = torch.full((num_draws,), -math.inf, dtype=torch.float64)
    with Progress("q(z)", num_draws * pair.num_units, "densities", progress, why_slow(pair)) as bar:
        few, most = pair.few, min(SEVERAL, num_draws)
        each = growth(lambda count: _densities(few, draws, slice(0, count)), 1, most) // few.num_units
        pair = replace(pair, bytes_each=2 * each)  # with a gradient
        for units, block in pair.chunks(num_draws, memory_mb):
            log_q = _densities(pair.rows(units), draws, block)
            log_sum[block] = torch.logaddexp(log_sum[block], torch.logsumexp(log_q, 1).cpu())
            bar.advance(log_q.numel())
    return log_sum - math.log(pair.num_units)


def _densities(pair: Pair, draws: Values, block: slice) -> Tensor:
    """log q(z|x_m) of a block of draws under every datum, ``(num_draws, num_data)``."""
    placed = {name: z[block, None].expand(-1, pair.num_units, *z.shape[1:]) for name, z in draws.items()}
    return pair.log_guide(placed, block.stop - block.start)
