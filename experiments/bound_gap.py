"""Is log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)), and what are its parts while a pair learns?

The notes end in the evidence lower bound, which Jensen's inequality gives; what the inequality leaves out has a name:

    log p(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) + KL(q(z|x) ‖ p(z|x))
             = ELBO + gap.

Claim: this is an identity, for every datum and at every moment of training. Each side is measured on its own:

- a linear-Gaussian pair, where ELBO, gap and log p(x) each have a closed form: they agree to 10⁻⁸ nats;
- a VAE with two latent dimensions: ELBO by draws of the guide, gap and log p(x) by quadrature over the plane: they
  agree within the error of the draws;
- a VAE with more latent dimensions, where no quadrature reaches: log p(x) is the K-sample bound for a large K, and the
  gap is what is then missing ("Importance Weighted Autoencoders", Burda, Grosse & Salakhutdinov, 2016,
  arXiv:1509.00519). On the other two pairs the bound is seen to climb to the true log p(x).

The price KL(q(z|x) ‖ p(z)) is carved up further, into what the code tells of the datum and how far the codes' average
is from the prior: "ELBO surgery: yet another way to carve up the variational evidence lower bound" (Hoffman & Johnson,
2016). That average is taken over the training data, so everything here is shown on them; the identities hold for any x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from ppvae.datasets import load_dataset
from ppvae.inference import Evidence, fit, importance_evidence
from ppvae.inference.surgery import Surgery, elbo_surgery
from ppvae.models import VAE, Binomial, LinearGaussian

from .experiment import Result
from .figures.style import BLACK, BLUE, GREEN, ORANGE, new_figure, new_panels

LINEAR, FLAT, WIDE = "linear-Gaussian, d = 2", "VAE, d = 2", "VAE, d = {}"
TOTAL_COUNT = 16  # of the digits' counts


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        epochs: at which the pairs are looked at, rising; all are also looked at before training.
        num_data: training digits, the first of the set.
        hidden: widths of the VAEs' encoders.
        wide_latent_dim: latent dimensions of the VAE that no quadrature reaches.
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
class Look:
    """What is known of a pair at one moment of its training, per datum, in nats.

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
    """Train three pairs on the digits and measure every term of the identity on the way.

    Args:
        config: how large.

    Returns:
        Result: a row per pair and look; means over the data.
    """
    x = load_dataset("digits").train[: config.num_data].double()
    torch.manual_seed(config.seed)
    wide = WIDE.format(config.wide_latent_dim)
    pairs: dict[str, Any] = {
        LINEAR: LinearGaussian.for_data(x, latent_dim=2),
        FLAT: VAE.for_data(x, Binomial(TOTAL_COUNT), latent_dim=2, hidden=config.hidden),
        wide: VAE.for_data(x, Binomial(TOTAL_COUNT), latent_dim=config.wide_latent_dim, hidden=config.hidden),
    }
    looks = {name: [_look(name, epoch, pair, x, config) for epoch in _training(pair, x, config)]
             for name, pair in pairs.items()}  # fmt: skip
    climbs = {name: importance_evidence(pair.model, pair.guide, x[: config.num_bound_data], config.num_bound_particles,
                                        seed=config.seed, progress=True) for name, pair in pairs.items()}  # fmt: skip
    last = {name: of_pair[-1] for name, of_pair in looks.items()}
    return Result(
        title="log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)) on the digits, nats per datum",
        rows=[_row(look) for of_pair in looks.values() for look in of_pair],
        conclusions=_conclusions(looks, climbs),
        figures={
            "identity": identity_figure(looks[FLAT]),
            "residual": residual_figure(looks[FLAT]),
            "bounds": bounds_figure(climbs, last),
            "gap_per_datum": gap_figure({name: climbs[name] for name in (LINEAR, FLAT)}, last),
            "surgery": surgery_figure(looks),
        },
    )


def _training(pair: Any, x: Tensor, config: Config) -> Iterator[int]:
    """One training, stopped for a look before it and after each of the given numbers of epochs."""
    yield 0
    with TemporaryDirectory() as folder:
        for i, epochs in enumerate(config.epochs):
            fit(pair.model, pair.guide, x, epochs=epochs, learning_rate=3e-3, seed=config.seed, accelerator="cpu",
                precision="64-true", checkpoint=Path(folder) / "training.pt", resume=i > 0)  # fmt: skip
            yield epochs


def _look(name: str, epoch: int, pair: Any, x: Tensor, config: Config) -> Look:
    parts = elbo_surgery(pair.model, pair.guide, x, config.num_particles, seed=config.seed + epoch, progress=True)
    with torch.no_grad():
        if name == LINEAR:
            elbo = pair.exact_elbo(x)
            return Look(name, epoch, parts, elbo, torch.zeros_like(elbo), exact_gap(pair, x), pair.log_evidence(x))
        error = parts.standard_error["elbo"]
        if name != FLAT:
            return Look(name, epoch, parts, parts.elbo, error)
        log_evidence, gap, shift = quadrature(pair, x, config.half_width, config.num_nodes)
        return Look(name, epoch, parts, parts.elbo, error, gap, log_evidence, shift)


def exact_gap(pair: LinearGaussian, x: Tensor) -> Tensor:
    """KL(q(z|x) ‖ p(z|x)) of two Gaussians, ``(num_data,)``; neither the ELBO nor log p(x) enters."""
    guide: Any = poutine.trace(pair.guide).get_trace(x).nodes["z"]["fn"]
    return kl_divergence(guide, pair.posterior(x))


def quadrature(pair: VAE, x: Tensor, half_width: float, num_nodes: int) -> tuple[Tensor, Tensor, float]:
    """log p(x) and KL(q(z|x) ‖ p(z|x)) by the trapezoidal rule over the plane of a two-dimensional z.

        log p(x) = log Σ_g h² p(x, z_g),    KL = Σ_g h² q(z_g|x) [log q(z_g|x) − log p(x, z_g)] + log p(x)

    For smooth integrands that vanish at the border the rule's error falls exponentially in 1/h, so that the shift from
    spacing 2h to h bounds that of h with room to spare.

    Args:
        pair: with `latent_dim` 2 and the likelihood `Binomial`.
        x: ``(num_data, D)``.
        half_width: the square is [−half_width, half_width]².
        num_nodes: along each axis, odd.

    Returns:
        log p(x) and the KL, ``(num_data,)`` each, in nats; and the largest shift of either when every second node of
        each axis is left out.
    """
    axis = torch.linspace(-half_width, half_width, num_nodes).to(x)
    log_prior = Normal(0.0, 1.0).log_prob(axis)
    logits, normaliser = _decoded(pair, torch.cartesian_prod(axis, axis))
    # log p(x|z) is linear in x but for a term that does not depend on x: a matrix product replaces D sums.
    own = (log_prior[:, None] + log_prior).flatten() - normaliser
    location, scale = pair.encode(x)
    log_q = Normal(location[..., None], scale[..., None]).log_prob(axis)
    finer, coarser = [], []
    for rows in torch.arange(len(x)).split(4):
        log_joint = torch.addmm(own, x[rows], logits.T).add_(_constant(pair, x[rows])[:, None])
        log_joint = log_joint.reshape(len(rows), num_nodes, num_nodes)
        finer.append(_integrals(log_joint, log_q[rows], axis))
        coarser.append(_integrals(log_joint[:, ::2, ::2], log_q[rows][..., ::2], axis[::2]))
    fine, coarse = torch.cat(finer, 1), torch.cat(coarser, 1)
    return fine[0], fine[1], float((fine - coarse).abs().max())


def _decoded(pair: VAE, z: Tensor) -> tuple[Tensor, Tensor]:
    """Of every node, the logits η and Σ_d n log(1 + e^η_d)."""
    logits = pair.decoder(z)
    return logits, TOTAL_COUNT * F.softplus(logits).sum(-1)


def _constant(pair: VAE, x: Tensor) -> Tensor:
    """What log p(x|z) holds beside Σ_d x_d η_d − n log(1 + e^η_d), read off at z = 0: ``(num_data,)``."""
    origin = x.new_zeros(1, 2)
    logits, normaliser = _decoded(pair, origin)
    return pair.decode(origin).log_prob(x) - (x @ logits[0] - normaliser)


def _integrals(log_joint: Tensor, log_q: Tensor, axis: Tensor) -> Tensor:
    """log p(x) and the KL, ``(2, num_data)``, from log p(x, z) at the nodes and log q(z|x) along each axis.

    q is a product over the axes, and so is its weight at a node: no exponential over the whole plane is needed for it.
    """
    spacing = float(axis[1] - axis[0])
    log_evidence = log_joint.flatten(1).logsumexp(1) + 2 * math.log(spacing)
    q = log_q.exp() * spacing  # (num_data, 2, num_nodes)
    total, negentropy = q.sum(-1), (q * log_q).sum(-1)
    mean_log_joint = torch.einsum("ni,nij,nj->n", q[:, 0], log_joint, q[:, 1])
    kl = negentropy[:, 0] * total[:, 1] + negentropy[:, 1] * total[:, 0] - mean_log_joint + log_evidence
    return torch.stack([log_evidence, kl])


def _row(look: Look) -> dict[str, Any]:
    parts, residual = look.parts.summary(), look.residual
    nothing = math.nan
    return {
        "pair": look.pair,
        "epochs": look.epoch,
        "E log p(x|z)": parts["reconstruction"],
        "KL(q‖p(z))": parts["kl"],
        "of it I(n; z)": parts["mutual_information"],
        "of it KL(q(z)‖p(z))": parts["marginal_kl"],
        "ELBO": float(look.elbo.mean()),
        "KL(q‖p(z|x))": nothing if look.gap is None else float(look.gap.mean()),
        "log p(x)": nothing if look.log_evidence is None else float(look.log_evidence.mean()),
        "ELBO + KL − log p": nothing if residual is None else float(residual.mean()),
        "± Monte Carlo": float(look.elbo_error.norm() / len(look.elbo)),
        "± quadrature": look.quadrature_error,
    }


def _conclusions(looks: dict[str, list[Look]], climbs: dict[str, Evidence]) -> list[str]:
    found = []
    exact = max(float(look.residual.abs().max()) for look in looks[LINEAR] if look.residual is not None)
    found.append(
        f"Linear-Gaussian pair, closed forms: |ELBO + KL − log p(x)| ≤ {exact:.1e} nats for each of "
        f"{len(looks[LINEAR][0].elbo)} data at each of {len(looks[LINEAR])} looks."
    )
    scores = torch.cat([look.residual / look.elbo_error for look in looks[FLAT] if look.residual is not None])
    found.append(
        f"VAE with d = 2, ELBO by draws against quadrature: ELBO + KL − log p(x) has a root mean square of "
        f"{float(scores.square().mean().sqrt()):.2f} standard errors over all data and looks; the quadrature itself "
        f"is good to {max(look.quadrature_error for look in looks[FLAT]):.0e} nats."
    )
    for name, evidence in climbs.items():
        found.extend(_of_bounds(name, evidence, looks[name][-1].log_evidence))
    for name, of_pair in looks.items():
        parts = of_pair[-1].parts.summary()
        found.append(
            f"{name}, after {of_pair[-1].epoch} epochs: KL(q(z|x) ‖ p(z)) = {parts['kl']:.3f}, of which I(n; z) = "
            f"{parts['mutual_information']:.3f} ± {parts['mutual_information_monte_carlo_error']:.3f}, which cannot "
            f"exceed log N = {parts['ceiling']:.3f}, and KL(q(z) ‖ p(z)) = {parts['marginal_kl']:.3f} ± "
            f"{parts['marginal_kl_monte_carlo_error']:.3f}."
        )
    return found


def _of_bounds(name: str, evidence: Evidence, log_evidence: Tensor | None) -> Iterator[str]:
    """How far the bound climbs, and what it misses: a guide that never visits a mode cannot know of it."""
    bound, num_data = evidence.bound.mean(1), len(evidence.elbo)
    error = float(evidence.standard_error.norm() / num_data)
    climb = (
        f"{name}: over {num_data} data the bound climbs from {bound[0]:.3f} (K = 1) to {bound[-1]:.3f} ± {error:.3f} "
        f"(K = {evidence.num_particles})"
    )
    if log_evidence is None:
        yield f"{climb}; k-hat is not below 0.7 for {int((~evidence.reliable).sum())} data."
        return
    truth = log_evidence[:num_data]
    yield f"{climb}; the truth is {float(truth.mean()):.3f}."
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


def identity_figure(looks: Sequence[Look]) -> Figure:
    """The reconstruction less its price is the ELBO, and the gap above that is log p(x), over training.

    Args:
        looks: at one pair whose gap is known, in order of training.
    """
    figure, (left, right) = new_panels(3.6, 2)
    reconstruction, elbo = [look.parts.reconstruction for look in looks], [look.elbo for look in looks]
    log_evidence, gap = [_known(look.log_evidence) for look in looks], [_known(look.gap) for look in looks]
    _curve(left, looks, reconstruction, GREEN, "$E_q$ log p(x|z)")
    _curve(left, looks, log_evidence, BLACK, "log p(x), by quadrature")
    _curve(left, looks, elbo, BLUE, "ELBO")
    _curve(
        right, looks, [look.parts.kl for look in looks], ORANGE, "price: KL(q(z|x) ‖ p(z)),\nfrom green down to blue"
    )
    _curve(right, looks, gap, BLUE, "gap: KL(q(z|x) ‖ p(z|x)),\nfrom blue up to black")
    left.set_ylabel("mean over the data (nats)\n± 2 standard errors over the data")
    right.set_ylim(0, None)
    left.legend(fontsize=8, loc="lower right")
    right.legend(fontsize=8, loc="upper right")
    return figure


def residual_figure(looks: Sequence[Look]) -> Figure:
    """ELBO + gap − log p(x), mean over the data, over training: 0 but for the Monte Carlo error of the ELBO.

    Args:
        looks: at one pair whose gap is known, in order of training.
    """
    figure, axes = new_figure(2.6)
    residual = [float(_known(look.residual).mean()) for look in looks]
    bars = [2 * float(look.elbo_error.norm() / len(look.elbo)) for look in looks]
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.errorbar(range(len(looks)), residual, yerr=bars, color=BLACK, marker="o", markersize=3.5, linestyle="",
                  capsize=3)  # fmt: skip
    _epochs(axes, looks)
    axes.set_ylabel("ELBO + gap − log p(x) (nats)\n± 2 Monte Carlo errors")
    return figure


def _curve(axes: Axes, looks: Sequence[Look], values: Sequence[Tensor], colour: str, label: str) -> None:
    mean = np.array([float(value.mean()) for value in values])
    error = 2 * np.array([float(value.std() / math.sqrt(len(value))) for value in values])
    axes.plot(range(len(looks)), mean, color=colour, marker="o", markersize=3.5, label=label)
    axes.fill_between(range(len(looks)), mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    _epochs(axes, looks)


def _epochs(axes: Axes, looks: Sequence[Look]) -> None:
    axes.set_xticks(range(len(looks)), [str(look.epoch) for look in looks])
    axes.set_xlabel("epochs of training")


def _known(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def bounds_figure(climbs: dict[str, Evidence], looks: dict[str, Look]) -> Figure:
    """The K-sample bounds of each pair, against K, and log p(x) where it is known.

    Args:
        climbs: evidence of the first data of each pair.
        looks: each pair's last.
    """
    figure, panels = new_panels(3.0, len(climbs))
    for axes, (name, evidence) in zip(panels, climbs.items(), strict=True):
        k, mean = evidence.bound_k.numpy(), evidence.bound.mean(1).numpy()
        error = 2 * (evidence.bound_standard_error.square().sum(1).sqrt() / evidence.bound.shape[1]).numpy()
        axes.fill_between(k, mean - error, mean + error, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(k, mean, color=BLUE, marker="o", markersize=3, label="bound")
        truth = looks[name].log_evidence
        if truth is not None:
            exact = float(truth[: evidence.bound.shape[1]].mean())
            axes.axhline(exact, color=GREEN, linestyle="--", label="log p(x)")
        axes.axhline(mean[0], color=ORANGE, linestyle=":", label="ELBO")
        axes.set(xscale="log", xlabel="particles per datum, K")
        axes.set_title(name, fontsize=9)
        axes.legend(fontsize=8, loc="center right")
    panels[0].set_ylabel("mean over the data (nats)\n± 2 Monte Carlo errors")
    return figure


def gap_figure(climbs: dict[str, Evidence], looks: dict[str, Look]) -> Figure:
    """The gap of single data: as a KL to the true posterior, and as what importance sampling adds to the ELBO.

    Args:
        climbs: evidence of the first data of each pair whose gap is known.
        looks: each pair's last.
    """
    figure, panels = new_panels(3.2, len(climbs))
    for axes, (name, evidence) in zip(panels, climbs.items(), strict=True):
        gap = looks[name].gap
        if gap is None:
            continue
        exact, estimate = gap[: len(evidence.elbo)].numpy(), evidence.gap.numpy()
        error = 2 * evidence.gap_standard_error.numpy()
        axes.axline((0.0, 0.0), slope=1, color="0.5", linewidth=0.8)
        reliable = evidence.reliable.numpy()
        for shown, colour, marker, label in ((reliable, BLUE, "o", "k-hat < 0.7"), (~reliable, ORANGE, "s", "≥ 0.7")):
            if shown.any():
                axes.errorbar(exact[shown], estimate[shown], yerr=error[shown], color=colour, linestyle="",
                              marker=marker, markersize=3, linewidth=0.8, label=label)  # fmt: skip
        margin = 0.15 * (exact.max() - exact.min()) + float(np.median(error))
        limits = (exact.min() - margin, exact.max() + margin)
        axes.set(xlim=limits, ylim=limits, xlabel="KL(q(z|x) ‖ p(z|x)) (nats)", aspect="equal")
        axes.set_title(name, fontsize=9)
        axes.legend(fontsize=8, loc="upper left")
    panels[0].set_ylabel("$\\log \\hat p_K(x)$ − ELBO (nats)\n± 2 Monte Carlo errors")
    return figure


def surgery_figure(looks: dict[str, list[Look]]) -> Figure:
    """KL(q(z|x) ‖ p(z)) of each pair over training, in its two parts, with Monte Carlo errors.

    Args:
        looks: of each pair, in order of training.
    """
    figure, panels = new_panels(3.4, len(looks))
    for axes, (name, of_pair) in zip(panels, looks.items(), strict=True):
        parts = [look.parts.summary() for look in of_pair]
        places = np.arange(len(parts))
        information = np.array([part["mutual_information"] for part in parts])
        marginal = np.array([part["marginal_kl"] for part in parts])
        errors = [[2 * part[f"{term}_monte_carlo_error"] for part in parts] for term in ("mutual_information", "kl")]
        axes.bar(places, information, color=BLUE, yerr=errors[0], capsize=2, label="I(n; z)")
        axes.bar(places, marginal, bottom=information, color=ORANGE, hatch="///", edgecolor="white", linewidth=0,
                 yerr=errors[1], capsize=2, label="KL(q(z) ‖ p(z))")  # fmt: skip
        axes.axhline(parts[0]["ceiling"], color=BLACK, linestyle="--", linewidth=1, label="log N, ceiling of I")
        _epochs(axes, of_pair)
        axes.set_title(name, fontsize=9)
    panels[0].set_ylabel("KL(q(z|x) ‖ p(z)), mean over the data\n(nats, ± 2 Monte Carlo errors)")
    panels[0].legend(fontsize=8, loc="upper left")
    return figure
