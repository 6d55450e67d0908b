"""What the model makes of data through the guide: the posterior predictive moments of x̃,

    E[x̃|x] = ∫ E[x̃|z] q(z|x) dz,      Var(x̃|x) = ∫ Var(x̃|z) q(z|x) dz + Var_q(E[x̃|z]),

entry by entry, with the guide in place of the posterior. A reconstruction has them for all of x. An imputation has them
for what is missing from x, and needs p(x|z) to be independent between its entries, so that z says all that is known of
them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

from ..options import valid_compute, whole_number
from ..pair import (
    Batch,
    Entries,
    Pair,
    Program,
    as_batch,
    demand_masked,
    demand_prediction,
    finite_batch,
    given_context,
    predicted,
    seeded,
    where_parameters_are,
)
from ..records import Printed
from .moments import Mixture, RunningMoments


@dataclass(frozen=True, repr=False)
class Prediction(Printed):
    """Data as the model predicts them, in the shape of x.

    Attributes:
        mean: E[x̃|x]; of an imputation x itself where it is seen.
        standard_deviation: of x̃ given x, noise of the likelihood included; 0 where an imputation has x itself.
        monte_carlo_error: standard error of ``mean``, from the number of draws.
        imputed: how many numbers of x were missing; None of a reconstruction.
    """

    mean: Tensor
    standard_deviation: Tensor
    monte_carlo_error: Tensor
    imputed: int | None = None

    def __repr__(self) -> str:
        filled = self.standard_deviation[self.standard_deviation > 0]
        spread = f"{filled.double().mean():.4g}" if len(filled) else "0"
        what = "reconstruction" if self.imputed is None else f"imputation of {self.imputed} missing values"
        return "\n".join(
            [
                f"Prediction of shape {tuple(self.mean.shape)}: {what}",
                f"  standard deviation, mean         {spread}",
                f"  Monte Carlo error, largest       {self.monte_carlo_error.max():.2g}",
            ]
        )


def reconstruct(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    num_particles: int = 100,
    seed: int | None = None,
    memory_mb: float = 64.0,
) -> Prediction:
    """The posterior predictive mean of the data through the guide, and its standard deviation.

    Context that the model observes is kept as it is given.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        num_particles: draws of the guide to average over, at least 2.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair.

    Returns:
        Prediction: mean, standard deviation and Monte Carlo error, each in the shape of x.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds infinite values.
        PairError: the pair breaks the contract, the model does not observe every entry of x as it is, once, it reads x
            where it does not observe it, or its data have no mean.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=2).set_exact_guide(), torch.randn(4, 3)
        >>> found = reconstruct(pair.model, pair.guide, x, seed=0)
        >>> exact = pair.posterior(x).mean.float() @ pair.weight.T
        >>> bool(((found.mean - exact).abs() < 5 * found.monte_carlo_error).all())
        True
    """
    batch, num_particles, seed, memory_mb = _checked(model, guide, x, num_particles, seed, memory_mb)
    with seeded(seed), Pair.on(model, guide, batch, density=False) as pair, torch.no_grad():
        demand_prediction(pair, "x cannot be reconstructed by the model")
        found = _moments(pair, num_particles, memory_mb, None)
    return Prediction(*found)


def impute(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    num_particles: int = 100,
    seed: int | None = None,
    memory_mb: float = 64.0,
) -> Prediction:
    """Fill the missing values (NaN) of data by their posterior predictive mean through the guide.

    Args:
        model: ``model(x, *context)``, the generative program; it masks what is missing.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        num_particles: draws of the guide to average over, at least 2.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair.

    Returns:
        Prediction: x with the means in place of NaN; the standard deviations of what was missing, and 0 elsewhere.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, it holds infinite values, or a missing value reaches a
            density.
        PairError: as of :func:`reconstruct`; or the model does not mask what is missing, or the entries of x depend on
            each other given the latents.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> def model(x):  # three readings of z, some of them missing
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         seen = ~x.isnan()
        ...         pyro.sample("x", dist.Normal(z[..., None], 0.5).mask(seen).to_event(1), obs=x.nan_to_num())
        >>> def guide(x):  # the posterior given those that are there
        ...     precision = 1 + 4 * (~x.isnan()).sum(-1)
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(4 * x.nan_to_num().sum(-1) / precision, precision**-0.5))
        >>> filled = impute(model, guide, torch.tensor([[1.0, 1.4, torch.nan]]), seed=0)
        >>> filled.mean[0, :2].tolist(), bool((filled.mean[0, 2] - 9.6 / 9).abs() < 0.2)
        ([1.0, 1.399999976158142], True)
    """
    batch, num_particles, seed, memory_mb = _checked(model, guide, x, num_particles, seed, memory_mb)
    own: Tensor = batch[0]
    missing = own.isnan()
    cannot = "missing values cannot be imputed by the model"
    with seeded(seed), Pair.on(model, guide, batch, density=False) as pair, torch.no_grad():
        demand_prediction(pair, cannot, apart=True)
        found = _moments(pair, num_particles, memory_mb, missing)
    spread, error = (torch.where(missing, value, torch.zeros_like(value)) for value in found[1:])
    return Prediction(torch.where(missing, found.mean, own.to(found.mean.dtype)), spread, error, int(missing.sum()))


def _checked(
    model: Program, guide: Program, x: Tensor | Batch, num_particles: int, seed: int | None, memory_mb: float
) -> tuple[Batch, int, int | None, float]:
    num_particles = whole_number("num_particles", num_particles, 2)
    seed, memory_mb, _ = valid_compute(seed, memory_mb)
    return where_parameters_are(model, guide, finite_batch(as_batch(x))), num_particles, seed, memory_mb


def _moments(pair: Pair, num_particles: int, memory_mb: float, missing: Tensor | None) -> Mixture:
    """The moments of x̃ in the shape of x; what is missing is held to be masked.

    Moments cost about what gradients do: means, variances and draws are held at once.
    """
    x = pair.batch[0]
    out = Mixture(*(torch.empty_like(x, dtype=float_type(x)) for _ in range(3)))
    for data, chunk in groupby(pair.chunks(num_particles, memory_mb, gradient=True), key=itemgetter(0)):
        part, rows = pair.rows(data), data if pair.divisible else slice(None)
        first = part.guide_values(1)
        entries = Entries.of(part, first, "data cannot be predicted by the model")
        if missing is not None:
            demand_masked(part, entries, missing[rows], "missing values cannot be imputed by the model")
        given, moments = given_context(part, entries, first), defaultdict[str, RunningMoments](RunningMoments)
        for _, draws in chunk:
            count = draws.stop - draws.start
            found = predicted(part, part.guide_values(count) | given, count)
            for name, means in found.means.items():
                moments[name].add(means, found.variances[name])
        by_site = {name: one.mixture() for name, one in moments.items()}
        for i, whole in enumerate(out):
            whole[rows] = entries.x_of({name: mixture[i] for name, mixture in by_site.items()}).to(whole.dtype)
    return out


def float_type(x: Tensor) -> torch.dtype:
    """The type of means of x: its own, or torch's default where it holds whole numbers."""
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()
