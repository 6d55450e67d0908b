"""Does log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)) hold during training, and how large are its parts?

The notes derive the ELBO by Jensen's inequality; the difference that the inequality drops is the gap:

    log p(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) + KL(q(z|x) ‖ p(z|x))
             = ELBO + gap.

Claim: this is an identity, for every datum and at every epoch of training. Each term is measured independently:

- a linear-Gaussian pair, where ELBO, gap and log p(x) each have a closed form: they agree to 10⁻⁸ nats;
- a VAE with two latent dimensions: ELBO by draws of the guide, gap and log p(x) by quadrature over the plane: they
  agree within the error of the draws;
- a VAE with more latent dimensions, too many for quadrature: log p(x) is estimated by the K-sample bound for a large
  K, and the gap is its difference from the ELBO. On the other two pairs the bound converges to the true log p(x).
  "Importance Weighted Autoencoders" (Burda, Grosse & Salakhutdinov, 2016), arXiv:1509.00519.

KL(q(z|x) ‖ p(z)) is split further, into the mutual information of datum and code and the KL of the codes' average from
the prior: "ELBO surgery: yet another way to carve up the variational evidence lower bound" (Hoffman & Johnson,
2016). That average is taken over the training data, so all results are on them; the identities hold for any x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ppvae.datasets import load_dataset
from ppvae.inference import Evidence, fit, importance_evidence
from ppvae.inference.posterior.surgery import Surgery, elbo_surgery
from ppvae.models import VAE, Binomial, LinearGaussian

from .exact_terms import TOTAL_COUNT, exact_gap, quadrature
from .experiment import Result
from .figures.bound_gap_figures import bounds_figure, gap_figure, identity_figure, residual_figure, surgery_figure

LINEAR, FLAT, WIDE = "linear-Gaussian, d = 2", "VAE, d = 2", "VAE, d = {}"


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        epochs: at which the pairs are measured, rising; all are also measured before training.
        num_data: training digits, the first of the set.
        hidden: widths of the VAEs' encoders.
        wide_latent_dim: latent dimensions of the VAE with too many for quadrature.
        num_particles: draws per datum for the ELBO's parts.
        num_bound_data: data whose K-sample bounds are followed.
        num_bound_particles: the largest K of these bounds.
        half_width: the quadrature covers [−half_width, half_width]².
        num_nodes: of the quadrature along each axis, odd.
        seed: of all randomness.
    """

    epochs: tuple[int, ...] = (1, 3, 10, 30)
    num_data: int = 600
    hidden: tuple[int, ...] = (64, 64)
    wide_latent_dim: int = 16
    num_particles: int = 20
    num_bound_data: int = 40
    num_bound_particles: int = 100_000
    half_width: float = 6.0
    num_nodes: int = 601
    seed: int = 0


SMALL = Config(
    epochs=(3,),
    num_data=60,
    hidden=(8,),
    wide_latent_dim=4,
    num_particles=200,
    num_bound_data=4,
    num_bound_particles=2000,
    num_nodes=241,
)


@dataclass(frozen=True)
class Snapshot:
    """The terms of the identity for a pair at one epoch of its training, per datum, in nats.

    Attributes:
        pair: its name.
        epoch: epochs of training behind it.
        parts: the ELBO and its parts, by draws of the guide.
        elbo: in closed form if there is one, else ``parts.elbo``.
        elbo_error: its standard error, 0 for a closed form.
        gap: KL(q(z|x) ‖ p(z|x)), by closed form or quadrature; None where neither exists.
        log_evidence: log p(x), likewise.
        quadrature_error: how far log p(x) or the gap moves when every second node is left out; 0 for a closed form.
    """

    pair: str
    epoch: int
    parts: Surgery
    elbo: Tensor
    elbo_error: Tensor
    gap: Tensor | None = None
    log_evidence: Tensor | None = None
    quadrature_error: float = 0.0

    @property
    def residual(self) -> Tensor | None:
        """ELBO + gap − log p(x), which should be 0."""
        return None if self.gap is None or self.log_evidence is None else self.elbo + self.gap - self.log_evidence


def run(config: Config = Config()) -> Result:
    """Train three pairs on the digits and measure every term of the identity during training.

    Args:
        config: how large.

    Returns:
        Result: a row per pair and epoch; means over the data.
    """
    x = load_dataset("digits").train[: config.num_data].double()
    torch.manual_seed(config.seed)
    wide = WIDE.format(config.wide_latent_dim)
    pairs: dict[str, Any] = {
        LINEAR: LinearGaussian.for_data(x, latent_dim=2),
        FLAT: VAE.for_data(x, Binomial(TOTAL_COUNT), latent_dim=2, hidden=config.hidden),
        wide: VAE.for_data(x, Binomial(TOTAL_COUNT), latent_dim=config.wide_latent_dim, hidden=config.hidden),
    }
    snapshots = {
        name: [_snapshot(name, epoch, pair, x, config) for epoch in _training(pair, x, config)]
        for name, pair in pairs.items()
    }
    few, K = x[: config.num_bound_data], config.num_bound_particles
    bounds = {
        name: importance_evidence(pair.model, pair.guide, few, K, seed=config.seed, progress=True)
        for name, pair in pairs.items()
    }
    last = {name: history[-1] for name, history in snapshots.items()}
    return Result(
        title="log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)) on the digits, nats per datum",
        rows=[_row(s) for history in snapshots.values() for s in history],
        conclusions=_conclusions(snapshots, bounds),
        figures={
            "identity": identity_figure(snapshots[FLAT]),
            "residual": residual_figure(snapshots[FLAT]),
            "bounds": bounds_figure(bounds, last),
            "gap_per_datum": gap_figure({name: bounds[name] for name in (LINEAR, FLAT)}, last),
            "surgery": surgery_figure(snapshots),
        },
    )


def _training(pair: Any, x: Tensor, config: Config) -> Iterator[int]:
    """One training, interrupted before it and after each of the given numbers of epochs."""
    yield 0
    with TemporaryDirectory() as folder:
        for i, epochs in enumerate(config.epochs):
            fit(pair.model, pair.guide, x, epochs=epochs, learning_rate=3e-3, seed=config.seed, accelerator="cpu",
                precision="64-true", checkpoint=Path(folder) / "training.pt", resume=i > 0)  # fmt: skip
            yield epochs


def _snapshot(name: str, epoch: int, pair: Any, x: Tensor, config: Config) -> Snapshot:
    parts = elbo_surgery(pair.model, pair.guide, x, config.num_particles, seed=config.seed + epoch, progress=True)
    with torch.no_grad():
        if name == LINEAR:
            elbo = pair.exact_elbo(x)
            return Snapshot(name, epoch, parts, elbo, torch.zeros_like(elbo), exact_gap(pair, x), pair.log_evidence(x))
        error = parts.standard_error["elbo"]
        if name != FLAT:
            return Snapshot(name, epoch, parts, parts.elbo, error)
        log_evidence, gap, shift = quadrature(pair, x, config.half_width, config.num_nodes)
        return Snapshot(name, epoch, parts, parts.elbo, error, gap, log_evidence, shift)


def _row(snapshot: Snapshot) -> dict[str, Any]:
    parts, residual = snapshot.parts.summary(), snapshot.residual
    nothing = math.nan
    return {
        "pair": snapshot.pair,
        "epochs": snapshot.epoch,
        "E log p(x|z)": parts["reconstruction"],
        "KL(q‖p(z))": parts["kl"],
        "of it I(n; z)": parts["mutual_information"],
        "of it KL(q(z)‖p(z))": parts["marginal_kl"],
        "ELBO": float(snapshot.elbo.mean()),
        "KL(q‖p(z|x))": nothing if snapshot.gap is None else float(snapshot.gap.mean()),
        "log p(x)": nothing if snapshot.log_evidence is None else float(snapshot.log_evidence.mean()),
        "ELBO + KL − log p": nothing if residual is None else float(residual.mean()),
        "± Monte Carlo": float(snapshot.elbo_error.norm() / len(snapshot.elbo)),
        "± quadrature": snapshot.quadrature_error,
    }


def _conclusions(snapshots: dict[str, list[Snapshot]], bounds: Mapping[str, Evidence]) -> list[str]:
    found = []
    exact = max(float(s.residual.abs().max()) for s in snapshots[LINEAR] if s.residual is not None)
    found.append(
        f"Linear-Gaussian pair, closed forms: |ELBO + KL − log p(x)| ≤ {exact:.1e} nats for each of "
        f"{len(snapshots[LINEAR][0].elbo)} data at each of {len(snapshots[LINEAR])} snapshots."
    )
    scores = torch.cat([s.residual / s.elbo_error for s in snapshots[FLAT] if s.residual is not None])
    found.append(
        f"VAE with d = 2, ELBO by draws against quadrature: ELBO + KL − log p(x) has a root mean square of "
        f"{float(scores.square().mean().sqrt()):.2f} standard errors over all data and snapshots; the error of the "
        f"quadrature is at most {max(s.quadrature_error for s in snapshots[FLAT]):.0e} nats."
    )
    for name, evidence in bounds.items():
        found.extend(_bound_sentences(name, evidence, snapshots[name][-1].log_evidence))
    for name, history in snapshots.items():
        parts = history[-1].parts.summary()
        found.append(
            f"{name}, after {history[-1].epoch} epochs: KL(q(z|x) ‖ p(z)) = {parts['kl']:.3f}, of which I(n; z) = "
            f"{parts['mutual_information']:.3f} ± {parts['mutual_information_monte_carlo_error']:.3f}, which cannot "
            f"exceed log N = {parts['ceiling']:.3f}, and KL(q(z) ‖ p(z)) = {parts['marginal_kl']:.3f} ± "
            f"{parts['marginal_kl_monte_carlo_error']:.3f}."
        )
    return found


def _bound_sentences(name: str, evidence: Evidence, log_evidence: Tensor | None) -> Iterator[str]:
    """The rise of the bound, and its distance from log p(x): a guide that misses a mode gives no sign of it."""
    bound, num_data = evidence.bound.mean(1), len(evidence.elbo)
    error = float(evidence.standard_error.norm() / num_data)
    rise = (
        f"{name}: over {num_data} data the bound rises from {bound[0]:.3f} (K = 1) to "
        f"{bound[-1]:.3f} ± {error:.3f} (K = {evidence.num_particles})"
    )
    if log_evidence is None:
        yield f"{rise}; k-hat is not below 0.7 for {int((~evidence.reliable).sum())} data."
        return
    truth = log_evidence[:num_data]
    yield f"{rise}; the truth is {float(truth.mean()):.3f}."
    short = truth - evidence.log_evidence
    missed, unreliable = short > 1, ~evidence.reliable
    if missed.any():
        worst = int(short.argmax())
        yield (
            f"{name}: for {int(missed.sum())} of {num_data} data importance sampling falls more than 1 nat short, at "
            f"worst {float(short[worst]):.1f} where it states an error of {float(evidence.standard_error[worst]):.2g}: "
            "the guide hardly ever draws where the posterior has its mass. k-hat is not below 0.7 for "
            f"{int((unreliable & missed).sum())} of these {int(missed.sum())}, and for "
            f"{int((unreliable & ~missed).sum())} of the others."
        )
