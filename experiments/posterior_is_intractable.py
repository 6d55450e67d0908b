"""What does the posterior that the notes call intractable look like, and how well does q(z|x) approximate it?

The notes: p(z|x) = p(z) p(x|z) / p(x), and p(x) = ∫ p(z) p(x|z) dz has no closed form, so that q(z|x) replaces
p(z|x). With two latents the integral can still be computed, as a sum over a grid of n² nodes,

    log p(x) = log Σ_ij p(z_ij) p(x|z_ij) h² + ε,      ε → 0 faster than any power of the mesh h,

and so can the posterior. With d latents the sum has n^d terms: this is what "intractable" means.

Claim: the posterior of a VAE of real digits is not a Gaussian with diagonal covariance: it is curved, correlated, and
has several modes; the guide, which minimises KL(q ‖ p), covers a part of it, and log p(x) = ELBO + KL(q(z|x) ‖ p(z|x))
holds to the error of the quadrature. Importance sampling from q finds the same log p(x), except where k-hat warns.

"Auto-Encoding Variational Bayes" (Kingma & Welling, 2014), arXiv:1312.6114; on the gap of such guides "Inference
Suboptimality in Variational Autoencoders" (Cremer, Li & Duvenaud, 2018), arXiv:1801.03558; on the trapezoidal rule
"The Exponentially Convergent Trapezoidal Rule" (Trefethen & Weideman, 2014), SIAM Review 56(3).

The figure should show how the shaded posterior and the ellipses of q differ, digit by digit, by the KL in the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from ppvae.datasets import load_dataset
from ppvae.inference import Evidence, fit, importance_evidence
from ppvae.models import VAE, Bernoulli
from ppvae.progress import Progress

from .experiment import Result
from .figures.posterior_panels import posterior_panels

# Nodes of the grid that are decoded at once: some tens of MiB.
_NODES = 20_000
# A pixel of the digits, 0 … 16, is ink from here on.
_INK = 8


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        num_digits: how many digits of the test set, the first ones.
        hidden: widths of the encoder's hidden layers.
        epochs: passes over the training digits.
        learning_rate: of Adam.
        half_width: the grid covers [−half_width, half_width]².
        points: nodes along an axis of the grid.
        order: nodes along an axis of the Gauss–Hermite rule for E_q.
        num_particles: draws of the guide for each digit.
        seed: of the training and the draws.
    """

    num_digits: int = 9
    hidden: tuple[int, ...] = (100, 100)
    epochs: int = 300
    learning_rate: float = 2e-3
    half_width: float = 6.0
    points: int = 601
    order: int = 80
    num_particles: int = 5000
    seed: int = 0


SMALL = Config(num_digits=3, hidden=(16,), epochs=6, learning_rate=1e-2, points=151, num_particles=1000)


@dataclass(frozen=True)
class Grid:
    """log p(x, z) on a square grid, and what follows from it.

    Attributes:
        axis: the nodes along either axis, ``(points,)``.
        log_joint: log p(x, z), ``(num_data, points, points)``, the first latent first.
    """

    axis: Tensor
    log_joint: Tensor

    @property
    def log_cell(self) -> Tensor:
        """log h², the area of a cell."""
        return 2 * (self.axis[1] - self.axis[0]).log()

    @property
    def log_evidence(self) -> Tensor:
        """log p(x) by the trapezoidal rule, ``(num_data,)``, in nats; the integrand vanishes at the edge."""
        return self.log_joint.flatten(1).logsumexp(1) + self.log_cell

    @property
    def posterior(self) -> Tensor:
        """p(z | x), a density, ``(num_data, points, points)``."""
        return (self.log_joint - self.log_evidence[:, None, None]).exp()


def run(config: Config = Config()) -> Result:
    """Train a VAE with two latents and compare q(z|x) with the true posterior.

    Args:
        config: the size.

    Returns:
        A row per digit, in nats, and the picture ``posterior``.
    """
    data = load_dataset("digits")
    train, x = ((part >= _INK).double() for part in (data.train, data.test[: config.num_digits]))
    digits = data.labels["test"][: config.num_digits].tolist() if data.labels else []
    vae = trained(train, config)
    grid = on_grid(vae, x, config.half_width, config.points)
    finer = on_grid(vae, x, *refined(config))
    sampled = importance_evidence(vae.model, vae.guide, x, config.num_particles, seed=config.seed)
    rows = _rows(digits, grid, finer, elbo(vae, x, config.order), divergence(vae, x, grid), sampled)
    with torch.no_grad():
        figure = posterior_panels(grid, *vae.encode(x), x.reshape(-1, *data.event_shape), digits)
    title = f"Two latents, {len(x)} digits: q(z|x) against the true posterior, in nats"
    return Result(title, rows, _conclusions(rows, config), {"posterior": figure})


def refined(config: Config) -> tuple[float, int]:
    """Half-width and points of a grid wider by one and finer by a third: it shows both errors, of cut and of mesh."""
    half_width = config.half_width + 1
    return half_width, round(1.5 * (config.points - 1) * half_width / config.half_width) + 1


def trained(x: Tensor, config: Config) -> VAE:
    """A VAE with two latents, trained on zeros and ones ``(num_data, D)`` in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        vae = VAE.for_data(x, Bernoulli(), latent_dim=2, hidden=config.hidden)
    fit(vae.model, vae.guide, x, epochs=config.epochs, learning_rate=config.learning_rate, seed=config.seed,
        accelerator="cpu", precision="64-true")  # fmt: skip
    return vae


@torch.no_grad()
def on_grid(vae: VAE, x: Tensor, half_width: float, points: int) -> Grid:
    """log p(x, z) for all nodes of [−half_width, half_width]², a piece of the grid at a time."""
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    pieces = torch.cartesian_prod(axis, axis).split(_NODES)
    log_joint = []
    with Progress("quadrature", len(pieces), "pieces") as bar:
        for z in pieces:
            log_joint.append(_log_joint(vae, x, z))
            bar.advance(1)
    return Grid(axis, torch.cat(log_joint, dim=1).reshape(len(x), points, points))


def _log_joint(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z), ``(num_data, nodes)``, for nodes ``(nodes, 2)`` common to all data or ``(num_data, nodes, 2)``."""
    prior = Normal(0.0, 1.0).log_prob(z).sum(-1)
    return prior + vae.decode(z).log_prob(x[:, None])


@torch.no_grad()
def elbo(vae: VAE, x: Tensor, order: int) -> Tensor:
    """E_q[log p(x, z) − log q(z|x)] by the Gauss–Hermite rule, ``(num_data,)``, in nats.

    The grid of the posterior has no part in it, so that ELBO + KL = log p(x) is a check and no identity of sums.
    """
    nodes, masses = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(order))
    noise, mass = torch.cartesian_prod(nodes, nodes), torch.outer(masses, masses).flatten() / masses.sum() ** 2
    loc, scale = vae.encode(x)
    entropy = (scale.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
    z = loc[:, None] + scale[:, None] * noise
    return _log_joint(vae, x, z) @ mass + entropy


@torch.no_grad()
def divergence(vae: VAE, x: Tensor, grid: Grid) -> Tensor:
    """KL(q(z|x) ‖ p(z|x)) = ∫ q log (q / p) dz on the grid, ``(num_data,)``, in nats."""
    loc, scale = vae.encode(x)
    first, second = Normal(loc[..., None], scale[..., None]).log_prob(grid.axis).unbind(1)
    log_q = first[:, :, None] + second[:, None, :]
    log_posterior = grid.log_joint - grid.log_evidence[:, None, None]
    return (log_q.exp() * (log_q - log_posterior)).flatten(1).sum(1) * grid.log_cell.exp()


def _rows(
    digits: Sequence[int], grid: Grid, finer: Grid, bound: Tensor, kl: Tensor, sampled: Evidence
) -> list[dict[str, float]]:
    columns = {
        "digit": torch.tensor(digits),
        "log p(x)": finer.log_evidence,
        "change by refining": finer.log_evidence - grid.log_evidence,
        "ELBO": bound,
        "KL(q‖p)": kl,
        "ELBO + KL − log p(x)": bound + kl - finer.log_evidence,
        "sampled log p(x)": sampled.log_evidence,
        "± SE": sampled.standard_error,
        "sampled log p(x) − ELBO": sampled.gap,
        "± SE of that": sampled.gap_standard_error,
        "k-hat": sampled.pareto_k,
    }
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


def _conclusions(rows: Sequence[dict[str, float]], config: Config) -> list[str]:
    identity = max(abs(row["ELBO + KL − log p(x)"]) for row in rows)
    change = max(abs(row["change by refining"]) for row in rows)
    kl = [row["KL(q‖p)"] for row in rows]
    away = [(row["sampled log p(x)"] - row["log p(x)"]) / row["± SE"] for row in rows]
    trusted = [abs(z) for z, row in zip(away, rows, strict=True) if row["k-hat"] < 0.7]
    out = [
        f"ELBO + KL(q‖p) = log p(x) for every digit, to {identity:.1g} nats; refining the grid changes log p(x) by at "
        f"most {change:.1g} nats.",
        f"KL(q‖p) lies between {min(kl):.2f} and {max(kl):.2f} nats, {sum(kl) / len(kl):.2f} on average: so far "
        "from the posterior is the Gaussian along the axes that the encoder gives.",
        f"Importance sampling agrees with quadrature for the {len(trusted)} of {len(rows)} digits with k-hat < 0.7: it "
        f"is at most {max(trusted, default=0.0):.1f} standard errors away.",
    ]
    if len(trusted) < len(rows):
        untrusted = [
            f"{row['sampled log p(x)'] - row['log p(x)']:+.2f} nats at k-hat {row['k-hat']:.2f}"
            for row in rows
            if row["k-hat"] >= 0.7
        ]
        out.append(f"Where k-hat warns, the sampled log p(x) is off by {', '.join(untrusted)}.")
    nodes = 20 * math.log10(config.points)
    out.append(
        f"The grid has {config.points}² = {config.points**2:,} nodes; with 20 latents it would have 10^{nodes:.0f}."
    )
    return out
