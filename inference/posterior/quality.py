"""How good q(z|x) is as a posterior: the guide compared with reference draws, datum by datum.

In the unconstrained coordinates u of :mod:`ppvae.inference.pair`, where every moment of a common prior exists, and
with posterior draws from :func:`ppvae.inference.sample_posterior`:

    bias                (E_q u_j − E_p u_j)/sd_p(u_j), and sd_q(u_j)/sd_p(u_j), for every coordinate j
    Wasserstein         W₁ of u_j under q and p, in sd_p(u_j)
    correlation         the largest |ρ_q − ρ_p| of two coordinates
    KL(q‖p), KL(p‖q)    the gap of the ELBO, large where q is too wide; and its opposite, large where q is too narrow
    TV                  the largest difference of the probabilities of any event
    k̂                   whether importance weights would repair the guide (below 0.7)
    classifier          cross-validated accuracy of a quadratic discriminant between draws of q and p; ½ if they agree

log p(x), both divergences and TV come from the bridge between the two sets of draws
(:mod:`ppvae.inference.sampling.bridge_sampling`), which does not fail where the guide misses a part of the posterior.
Quadratic discriminants see means, scales and correlations, and cost milliseconds; TV sees everything, and (1 + TV)/2
is the accuracy of the best classifier there is. What is found is put into words by
:mod:`ppvae.inference.posterior.faults`, which states every limit.

A datum whose reference has not converged has no such numbers (NaN), and its verdict is ``cannot tell``.

References:
    Revisiting Classifier Two-Sample Tests (Lopez-Paz & Oquab, 2017), arXiv:1610.06545.
    Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao & Gabry, 2024), arXiv:1507.02646.
    Yes, but Did It Work?: Evaluating Variational Inference (Yao, Vehtari, Simpson & Gelman, 2018), arXiv:1802.02538.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from ppvae.errors import OptionError
from ppvae.progress import Progress

from ..evidence import PARETO_K_LIMIT, evidence_of, mean_with_errors
from ..options import instance_of, valid_compute
from ..pair import Batch, Pair, Program, as_batch, finite_batch, seeded, where_parameters_are, why_slow
from ..records import Summarised, of_data
from ..sampling import BridgeEstimate, bridge, effective_draws
from .c2st import classifier_accuracy
from .faults import CANNOT_TELL, FAULTS, WORDS, Measures, causes, missed_mass, verdict
from .reference import Posterior, sample_posterior

if TYPE_CHECKING:
    import xarray as xr

IN_NATS = ("log_evidence", "kl_guide", "kl_posterior", "shift_nats", "scale_nats", "correlation_nats")


@dataclass(frozen=True, repr=False)
class Quality(Summarised):
    """How good a guide is as a posterior; ``(num_data,)`` but where said, NaN without a converged reference.

    Attributes:
        verdicts: the words for each datum, the primary fault first; see :mod:`ppvae.inference.posterior.faults`.
        coordinates: names of the ``dim`` coordinates.
        bias: (E_q u − E_p u)/sd_p(u), ``(num_data, dim)``.
        bias_standard_error: of it.
        sd_ratio: sd_q(u)/sd_p(u), ``(num_data, dim)``.
        sd_ratio_standard_error: of it.
        wasserstein: W₁ of each coordinate in posterior standard deviations, ``(num_data, dim)``; about 1/√n, and not
            0, for draws of the same distribution that are worth n independent ones.
        missed_correlation: the largest ``|ρ_q − ρ_p|`` over pairs of coordinates; 0 where there is one only.
        missed_correlation_standard_error: of it.
        missed_mass: share of the posterior in a mode that the guide misses; 0 if none is seen.
        shift_nats: part of the Gaussian KL(q‖p) that the means account for, in nats.
        scale_nats: part that the scales account for.
        correlation_nats: part that only correlations could mend.
        log_evidence: log p(x) by the bridge, in nats.
        log_evidence_standard_error: of it.
        kl_guide: KL(q‖p), the gap, in nats.
        kl_guide_standard_error: of it.
        kl_posterior: KL(p‖q), in nats.
        kl_posterior_standard_error: of it.
        total_variation: TV(q, p), in [0, 1].
        total_variation_standard_error: of it.
        accuracy: of the classifier; ½ where draws of q and p cannot be told apart.
        accuracy_standard_error: of it.
        pareto_k: k̂ of the guide's weights; known without a reference too.
    """

    printed: ClassVar = "num_data num_judged good kl_guide kl_posterior"

    verdicts: tuple[tuple[str, ...], ...]
    coordinates: tuple[str, ...]
    bias: Tensor
    bias_standard_error: Tensor
    sd_ratio: Tensor
    sd_ratio_standard_error: Tensor
    wasserstein: Tensor
    missed_correlation: Tensor
    missed_correlation_standard_error: Tensor
    missed_mass: Tensor
    shift_nats: Tensor
    scale_nats: Tensor
    correlation_nats: Tensor
    log_evidence: Tensor
    log_evidence_standard_error: Tensor
    kl_guide: Tensor
    kl_guide_standard_error: Tensor
    kl_posterior: Tensor
    kl_posterior_standard_error: Tensor
    total_variation: Tensor
    total_variation_standard_error: Tensor
    accuracy: Tensor
    accuracy_standard_error: Tensor
    pareto_k: Tensor

    @property
    def judged(self) -> Tensor:
        """Which data had a reference, ``(num_data,)`` bool."""
        return ~self.total_variation.isnan()

    def summary(self) -> dict[str, float]:
        """How many data each verdict is the first of, and means over the data that had a reference.

        ``kl_guide`` and ``kl_posterior`` come with ``*_standard_error`` and its parts as in
        :meth:`Evidence.summary`, in nats.
        """
        judged = self.judged
        out: dict[str, float] = {"num_data": len(judged), "num_judged": int(judged.sum())}
        first = Counter(words[0] for words in self.verdicts)
        out |= {word.replace(" ", "_"): first[word] for word in WORDS}
        if judged.any():
            for name in ("kl_guide", "kl_posterior"):
                values, errors = (getattr(self, n)[judged] for n in (name, f"{name}_standard_error"))
                out |= {f"{name}{suffix}": value for suffix, value in mean_with_errors(values, errors).items()}
            out["total_variation"] = float(self.total_variation[judged].mean())
            out["accuracy"] = float(self.accuracy[judged].mean())
        out["pareto_k_share_above_0_7"] = float((~(self.pareto_k < PARETO_K_LIMIT)).double().mean())
        return out

    def remarks(self) -> list[str]:
        """Remarks, a sentence each: the verdicts, and what could not be judged."""
        n, unjudged = len(self.verdicts), int((~self.judged).sum())
        found = []
        for word, count in Counter(words[0] for words in self.verdicts).most_common():
            if word != CANNOT_TELL:
                found.append(f"as a posterior, the guide is {_PHRASES.get(word, word)} for {of_data(count, n)}.")
        every = Counter(word for words in self.verdicts for word in words if word in FAULTS)
        if any(len(words) > 1 for words in self.verdicts):
            counts = ", ".join(f"{word} {count}" for word, count in every.most_common())
            found.append(f"every fault counted: {counts} of {n} data." if n > 1 else f"all faults: {', '.join(every)}.")
        if unjudged:
            found.append(f"{of_data(unjudged, n)} have no reference: their chains did not converge.")
        if unclear := sum(words[0] == CANNOT_TELL for words in self.verdicts) - unjudged:
            found.append(f"for {of_data(unclear, n)} the Monte Carlo error is too large to tell: give more draws.")
        return found

    def to_dataset(self) -> xr.Dataset:
        """As an xarray Dataset with dims ``datum`` and ``coordinate``; the verdict as text."""
        import xarray as xr

        variables: dict[str, tuple[tuple[str, ...], object]] = {
            "verdict": (("datum",), np.array([", ".join(words) for words in self.verdicts]))
        }
        for name in NUMBERS:
            value = getattr(self, name)
            variables[name] = (("datum", "coordinate")[: value.dim()], value.numpy())
        coords = {"datum": range(len(self.verdicts)), "coordinate": list(self.coordinates)}
        dataset = xr.Dataset(variables, coords=coords)
        for name in IN_NATS:
            for variable in {name, f"{name}_standard_error"} & set(NUMBERS):
                dataset[variable].attrs["units"] = "nats"
        return dataset


NUMBERS = tuple(f.name for f in fields(Quality) if f.name not in {"verdicts", "coordinates"})
_PHRASES = {
    "correlation missed": "without correlations that the posterior has",
    "mode missed": "without a mode that the posterior has",
    "different shape": "of a different shape (no fault of place, width or correlation could be proved)",
}


def guide_quality(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    reference: Posterior | None = None,
    *,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> Quality:
    """Compare the guide with the posterior of every datum, and say in words what is wrong with it.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; it is what is judged.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        reference: posterior draws of the same data, from :func:`sample_posterior`; None draws them with its defaults.
            As many are drawn from the guide.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; the draws come on top.
        progress: show a progress bar with the time that remains.

    Returns:
        Quality: a verdict, and the measures behind it with their errors, for every datum.

    Raises:
        OptionError: an option cannot be used, or ``reference`` is of another number of data or latents.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, or a latent has no density on a continuum.

    Example:
        A guide with the best diagonal covariance, for a posterior with correlations:

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2, full_covariance=False)
        >>> with torch.no_grad():
        ...     _ = pair.weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 0.5]]))
        >>> _ = pair.set_best_guide()
        >>> quality = guide_quality(pair.model, pair.guide, torch.randn(2, 3), seed=0)
        >>> quality.verdicts[0]
        ('correlation missed', 'too narrow')
    """
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    if reference is not None:
        instance_of("reference", reference, Posterior, "the record of sample_posterior, or None")
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    with seeded(seed):
        if reference is None:
            reference = sample_posterior(model, guide, batch, memory_mb=memory_mb, progress=progress)
        with (
            Pair.on(model, guide, batch, start="guide") as pair,
            Progress("quality", pair.num_units, "data", progress, why_slow(pair)) as bar,
        ):
            wanted, given = (pair.num_units, pair.dim), tuple(reference.unconstrained.shape[2:])
            if given != wanted:
                raise OptionError(
                    f"reference holds {given[0]} data of {given[1]} coordinates, and the pair has {wanted[0]} of "
                    f"{wanted[1]}: give what sample_posterior returned for this pair and these data."
                )
            parts = []
            for n in range(pair.num_units):
                one = slice(n, n + 1)
                parts.append(_judged(pair.rows(one), reference.rows(one), memory_mb))
                bar.advance(1)
    numbers = {name: torch.stack([part[1][name] for part in parts]) for name in NUMBERS}
    return Quality(tuple(words for words, _ in parts), reference.coordinates, **numbers)


def _judged(pair: Pair, reference: Posterior, memory_mb: float) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """The verdict on one datum and the numbers behind it."""
    p = reference.unconstrained[:, :, 0].double()
    num_draws = p.shape[0] * p.shape[1]
    q, log_w = _guide_draws(pair, num_draws, memory_mb)
    pareto_k = evidence_of(log_w).pareto_k[0]
    if not reference.converged[0]:
        unknown = torch.tensor(math.nan, dtype=torch.float64)
        wide = {"bias", "bias_standard_error", "sd_ratio", "sd_ratio_standard_error", "wasserstein"}
        numbers = {name: unknown.expand(pair.dim) if name in wide else unknown for name in NUMBERS}
        return (CANNOT_TELL,), numbers | {"pareto_k": pareto_k}
    at_p = _log_w(pair, reference.unconstrained.flatten(0, 1), memory_mb).reshape(*p.shape[:2], 1)
    ends = bridge(log_w, at_p)
    measures = _measures(q, p, ends)
    ratio = np.exp(measures.log_ratio)
    worst = int(measures.correlation.argmax()) if measures.correlation.size else None
    accuracy, accuracy_error = classifier_accuracy(q, _independent(p))
    found = {
        "bias": measures.bias,
        "bias_standard_error": measures.bias_error,
        "sd_ratio": ratio,
        "sd_ratio_standard_error": ratio * measures.log_ratio_error,
        "wasserstein": _wasserstein(q.numpy(), p.flatten(0, 1).numpy()),
        "missed_correlation": 0.0 if worst is None else measures.correlation[worst],
        "missed_correlation_standard_error": 0.0 if worst is None else measures.correlation_error[worst],
        "missed_mass": measures.missed_mass,
        **dict(zip(("shift_nats", "scale_nats", "correlation_nats"), measures.causes, strict=True)),
        **{name: value[0] for name, value in ends._asdict().items()},
        "accuracy": accuracy,
        "accuracy_standard_error": accuracy_error,
        "pareto_k": pareto_k,
    }
    return verdict(measures), {name: torch.as_tensor(value, dtype=torch.float64) for name, value in found.items()}


def _guide_draws(pair: Pair, num_draws: int, memory_mb: float) -> tuple[Tensor, Tensor]:
    """Draws of q(u|x) for one datum, ``(num_draws, dim)``, and their log weights, ``(num_draws, 1)``; float64."""
    u = [pair.draw("guide", part.stop - part.start) for part in pair.portions(num_draws, memory_mb)]
    places = torch.cat(u)
    return places[:, 0].double().cpu(), _log_w(pair, places, memory_mb)


def _log_w(pair: Pair, u: Tensor, memory_mb: float) -> Tensor:
    """ℓ = log p(x, u) − log q(u|x) at ``(num_draws, 1, dim)``; ``(num_draws, 1)``."""
    terms, where = pair.path("guide"), pair.device
    with torch.no_grad():
        found = [terms(u[part].to(where)) for part in pair.portions(len(u), memory_mb)]
    return torch.cat([log_p - log_q for log_q, log_p in found]).cpu()


def _measures(q: Tensor, p: Tensor, ends: BridgeEstimate) -> Measures:
    """What the verdict reads, from draws ``(num_draws, dim)`` of q and ``(num_chains, num_draws, dim)`` of p."""
    flat = p.flatten(0, 1)
    scale_q, scale_p = q.std(0), flat.std(0)
    for_mean, for_sd = effective_draws(p), effective_draws(p, "sd")
    bias_error = ((scale_q / scale_p).square() / len(q) + 1 / for_mean).sqrt()
    ratio_error = ((_kurtosis(q) - 1) / (4 * len(q)) + (_kurtosis(flat) - 1) / (4 * for_sd)).sqrt()
    rows, columns = np.triu_indices(p.shape[-1], 1)
    rho_q, rho_p = (np.atleast_2d(np.corrcoef(u.numpy().T))[rows, columns] for u in (q, flat))
    worth = float(torch.minimum(for_mean, for_sd).min())
    rho_error = np.sqrt((1 - rho_q**2) ** 2 / len(q) + (1 - rho_p**2) ** 2 / worth)
    shift = (q.mean(0) - flat.mean(0)).numpy()
    covariances = (np.atleast_2d(np.cov(u.numpy().T)) for u in (q, flat))
    return Measures(
        bias=shift / scale_p.numpy(),
        bias_error=bias_error.numpy(),
        log_ratio=(scale_q / scale_p).log().numpy(),
        log_ratio_error=ratio_error.numpy(),
        correlation=abs(rho_q - rho_p),
        correlation_error=rho_error,
        total_variation=float(ends.total_variation),
        total_variation_error=float(ends.total_variation_standard_error),
        missed_mass=missed_mass(q.numpy(), flat.numpy(), worth),
        causes=causes(shift, *covariances),
    )


def _kurtosis(u: Tensor) -> Tensor:
    """E[(u − E u)⁴]/sd⁴, ``(num_draws, dim)`` → ``(dim,)``; 3 for a Gaussian."""
    centred = u - u.mean(0)
    return centred.pow(4).mean(0) / centred.square().mean(0).square()


def _wasserstein(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    from scipy.stats import wasserstein_distance

    scale = p.std(0)
    return np.array([wasserstein_distance(a, b) for a, b in zip((q / scale).T, (p / scale).T, strict=True)])


def _independent(p: Tensor) -> Tensor:
    """As many draws of the chains as they are worth, evenly spaced; ``(num_draws, dim)``."""
    every = math.ceil(p.shape[0] * p.shape[1] / float(effective_draws(p).min()))
    return p[:, every - 1 :: every].flatten(0, 1)
