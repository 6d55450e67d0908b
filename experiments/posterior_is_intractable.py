"""How does the posterior that the notes call intractable look, and what does q(z|x) make of it?

The notes: p(z|x) = p(z) p(x|z) / p(x), and p(x) = ∫ p(z) p(x|z) dz has no closed form, so that q(z|x) stands in for
p(z|x). With two latents the integral can be had all the same, as a sum over a grid of n² nodes,

    log p(x) = log Σ_ij p(z_ij) p(x|z_ij) h² + ε,      ε → 0 faster than any power of the mesh h,

and so the posterior can be looked at. With d latents the sum has n^d terms: this is what "intractable" means.

Claim: the posterior of a VAE of real digits is no Gaussian along the axes: it is bent, tilted, has several modes; the
guide covers the part of it that KL(q ‖ p) lets it, and log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)) holds to the error of the
quadrature. Importance sampling from q finds the same log p(x), except where k-hat warns.

"Auto-Encoding Variational Bayes" (Kingma & Welling, 2014), arXiv:1312.6114; on the gap of such guides "Inference
Suboptimality in Variational Autoencoders" (Cremer, Li & Duvenaud, 2018), arXiv:1801.03558; on the trapezoidal rule
"The Exponentially Convergent Trapezoidal Rule" (Trefethen & Weideman, 2014), SIAM Review 56(3).

The reader should see the shaded posterior and the ellipses of q disagree, digit by digit, by the KL of the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch
from torch import Tensor
from torch.distributions import Normal

from ppvae.datasets import load_dataset
from ppvae.inference import Evidence, fit, importance_evidence
from ppvae.models import VAE, Bernoulli
from ppvae.progress import Progress

from .experiment import Result
from .figures.style import BLUE, ORANGE, WIDTH

# Nodes of the grid that are decoded at once: some tens of MiB.
_NODES = 20_000
# A pixel of the digits, 0 … 16, is ink from here on.
_INK = 8
# What the ellipses of one, two and three standard deviations of a Gaussian in the plane hold, 1 − exp(−k²/2).
_MASSES = tuple(1 - math.exp(-(k**2) / 2) for k in (1, 2, 3))
_SHADES = (BLUE, "#6FAFDA", "#CFE4F3")


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        num_digits: digits of the test set that are looked at, the first ones.
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


def posterior_panels(grid: Grid, loc: Tensor, scale: Tensor, pictures: Tensor, digits: Sequence[int]) -> Figure:
    """A panel per digit: regions of the highest posterior density, and the ellipses of q over them.

    The regions hold as much of the posterior as the ellipses hold of q, so that they would coincide were q exact. All
    panels have the same scale.

    Args:
        grid: the posterior.
        loc: of q, ``(num_data, 2)``.
        scale: of q, ``(num_data, 2)``.
        pictures: ``(num_data, height, width)``.
        digits: the classes, for the titles.
    """
    columns = min(3, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = Figure(figsize=(WIDTH, 0.98 * rows * WIDTH / columns + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    posterior, axis = grid.posterior.numpy(), grid.axis.numpy()
    levels = [_levels(density) for density in posterior]
    boxes = np.array([_box(axis, d, low[0], m, s) for d, low, m, s in zip(posterior, levels, loc, scale, strict=True)])
    side = 1.06 * (boxes[:, 1] - boxes[:, 0]).max()
    for i, axes in enumerate(panels.flat):
        if i >= len(pictures):
            axes.set_axis_off()
            continue
        axes.contourf(axis, axis, posterior[i].T, levels=[*levels[i], posterior[i].max()], colors=_SHADES[::-1])
        _draw_ellipses(axes, loc[i].tolist(), scale[i].tolist())
        x, y = boxes[i].mean(0)
        axes.set(xlim=(x - side / 2, x + side / 2), ylim=(y - side / 2, y + side / 2), aspect="equal")
        axes.tick_params(labelsize=7)
        axes.set_title(f"digit {digits[i]}", fontsize=9)
        axes.set_xlabel(r"$z_1$", fontsize=8, labelpad=1)
        axes.set_ylabel(r"$z_2$", fontsize=8, labelpad=0)
        inset = axes.inset_axes((0.02, 0.74, 0.24, 0.24))
        inset.imshow(pictures[i].numpy(), cmap="gray_r", interpolation="nearest")
        inset.set(xticks=[], yticks=[])
    figure.legend(handles=_legend(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _levels(density: np.ndarray) -> list[float]:
    """The densities above which 99, 86 and 39 % of the mass lie, in rising order."""
    falling = np.sort(density, axis=None)[::-1]
    mass = falling.cumsum() / falling.sum()
    return [float(falling[np.searchsorted(mass, share)]) for share in _MASSES[::-1]]


def _box(axis: np.ndarray, density: np.ndarray, lowest: float, loc: Tensor, scale: Tensor) -> np.ndarray:
    """The corners ``(2, 2)``, low and high, of what is drawn of one digit."""
    places = axis[np.argwhere(density >= lowest)]
    m, s = loc.numpy(), scale.numpy()
    return np.stack([np.minimum(places.min(0), m - 2 * s), np.maximum(places.max(0), m + 2 * s)])


def _draw_ellipses(axes: Axes, loc: Sequence[float], scale: Sequence[float]) -> None:
    for k, style in ((1, "-"), (2, "--")):
        width, height = (2 * k * s for s in scale)
        axes.add_patch(Ellipse((loc[0], loc[1]), width, height, fill=False, color=ORANGE, linestyle=style, lw=1.2))


def _legend() -> list[Patch | Line2D]:
    regions = [
        Patch(color=shade, label=f"p(z|x): its densest {share:.0%}")
        for shade, share in zip(_SHADES, _MASSES, strict=True)
    ]
    ellipses = [
        Line2D([], [], color=ORANGE, linestyle=style, label=f"q(z|x): {k}σ, {share:.0%} of it")
        for k, style, share in zip((1, 2), ("-", "--"), _MASSES, strict=False)
    ]
    return [*regions, *ellipses]
