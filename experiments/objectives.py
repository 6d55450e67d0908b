"""What does an objective change: the bound it trains on, the gap, or the units that a VAE uses?

One VAE on the digits is trained from the same start, with the same batches and the same number of steps, by each
objective of ``ppvae.inference.svi.objectives`` and by Pyro's ELBOs, with the same call but for ``loss=``. What comes
out is measured by one rule for all, on data that were not trained on: log p(x) to a tolerance, the ELBO of the guide,
their difference, and the latent units that are active.

Claims to be seen: a tighter bound on more particles trains a better model, log p(x), and a guide whose ELBO is worse
("Importance Weighted Autoencoders", Burda et al., 2016, arXiv:1509.00519; "Tighter Variational Bounds are Not
Necessarily Better", Rainforth et al., 2018, arXiv:1802.04537); weights of the KL below 1 at first, and free bits, keep
units in use that the ELBO lets collapse ("Ladder Variational Autoencoders", Sønderby et al., 2016, arXiv:1602.02282;
Kingma et al., 2016, arXiv:1606.04934), and so do steps of the guide alone before each of the model (He et al., 2019,
arXiv:1901.05534) and an encoder that gives each unit a rate at least, a property of the pair (δ-VAE, Razavi et al.,
2019, arXiv:1901.03416); a guide that is helped by gradient steps of each datum has a tighter bound (Kim et al., 2018,
arXiv:1802.02550), while the gap that is measured is that of the amortised guide. The trainings are short: who is ahead
is not who would win.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO

from ppvae.datasets import load_dataset
from ppvae.inference import (
    IWAE,
    STL,
    TVO,
    VIMCO,
    VRIWAE,
    Beta,
    ByTurns,
    Cyclical,
    DReG,
    Evidence,
    FreeBits,
    SemiAmortised,
    WakeSleep,
    WakeWake,
    WarmUp,
    estimate_evidence,
    fit,
    latent_units,
)
from ppvae.models import VAE, Binomial

from .experiment import Result
from .figures.objectives_figures import objectives_figure

TOTAL_COUNT = 16  # of a pixel of the digits


@dataclass(frozen=True)
class Config:
    """How large the experiment is.

    Args:
        num_data: training digits, the first of the set.
        num_test: test digits that log p(x) is estimated for.
        latent_dim: latent units, more than the ELBO uses.
        hidden: widths of the encoder.
        epochs: passes over the data.
        num_particles: K of the objectives over particles.
        nats: per unit and datum that free bits leave free, and that the δ-VAE's encoder gives at least.
        threshold: activity from which a unit counts, in variances of its prior; a short training leaves none idle.
        tolerance: half-width of the interval for log p(x) of a datum, in nats.
        budget: the most evaluations of the pair per datum for that.
        seed: of all randomness.
    """

    num_data: int = 1000
    num_test: int = 25
    latent_dim: int = 40
    hidden: tuple[int, ...] = (64, 64)
    epochs: int = 40
    num_particles: int = 8
    nats: float = 0.2
    threshold: float = 0.1
    tolerance: float = 0.3
    budget: int = 200_000
    seed: int = 0


SMALL = Config(num_data=60, num_test=4, latent_dim=2, hidden=(8,), epochs=1, num_particles=2, budget=500)


@dataclass(frozen=True)
class Outcome:
    """What one objective has made of the pair.

    Attributes:
        name: of the objective.
        trained_on: what it reports of the training data in the last epoch, per datum, in nats.
        evidence: log p(x) and the ELBO of the test data.
        active: latent units that are active on the training data.
        seconds: of the training.
    """

    name: str
    trained_on: float
    evidence: Evidence
    active: int
    seconds: float


def run(config: Config = Config()) -> Result:
    """Train the pair by each objective and measure what comes out.

    Args:
        config: how large.

    Returns:
        Result: a row per objective; means over the test data.
    """
    outcomes = [_outcome(name, make, config) for name, make in _objectives(config).items()]
    return Result(
        title=f"One VAE on the digits by {len(outcomes)} objectives, {config.epochs} epochs; nats per datum",
        rows=[_row(outcome, outcomes[0]) for outcome in outcomes],
        conclusions=_conclusions(outcomes, config),
        figures={"objectives": objectives_figure(outcomes, config.latent_dim)},
    )


def _objectives(config: Config) -> dict[str, Callable[[], ELBO]]:
    """The objectives by name, each made anew; schedules end before the training does."""
    K, steps = config.num_particles, config.epochs * math.ceil(config.num_data / 100)
    half, cycle = max(1, steps // 2), max(1, steps // 5)
    return {
        "ELBO": Trace_ELBO,
        "ELBO, analytic KL": TraceMeanField_ELBO,
        "ELBO, STL": STL,
        "warm-up": lambda: Beta(WarmUp(half)),
        "cyclical": lambda: Beta(Cyclical(cycle)),
        "by turns": lambda: ByTurns(cycle, guide_steps=5),
        "semi-amortised": SemiAmortised,
        f"free bits {config.nats:g}": lambda: FreeBits(config.nats),
        _delta_vae(config): Trace_ELBO,
        f"VR-IWAE ½, K = {K}": lambda: VRIWAE(0.5, K),
        f"TVO, K = {K}": lambda: TVO(K),
        f"IWAE, K = {K}": lambda: IWAE(K),
        f"DReG, K = {K}": lambda: DReG(K),
        f"wake-wake, K = {K}": lambda: WakeWake(K),
        f"wake-sleep, K = {K}": lambda: WakeSleep(K),
        f"wake-sleep and wake, K = {K}": lambda: WakeSleep(K, wake=True),
        f"VIMCO, K = {max(K, 2)}": lambda: VIMCO(max(K, 2)),
    }


def _delta_vae(config: Config) -> str:
    return f"δ-VAE {config.nats:g}"


def _outcome(name: str, make: Callable[[], ELBO], config: Config) -> Outcome:
    digits = load_dataset("digits")
    x, held_out = digits.train[: config.num_data], digits.test[: config.num_test]
    torch.manual_seed(config.seed)
    rate = config.nats if name == _delta_vae(config) else 0.0
    pair = VAE.for_data(
        x, Binomial(TOTAL_COUNT), latent_dim=config.latent_dim, hidden=config.hidden, committed_rate=rate
    )
    trained = fit(pair.model, pair.guide, x, loss=make(), epochs=config.epochs, learning_rate=3e-3, seed=config.seed,
                  accelerator="cpu")  # fmt: skip
    effort: dict[str, Any] = {"tolerance": config.tolerance, "budget": config.budget}
    evidence = estimate_evidence(pair.model, pair.guide, held_out, **effort, seed=config.seed)
    units = latent_units(pair.model, pair.guide, x[:300], threshold=config.threshold, seed=config.seed)
    return Outcome(name, trained.elbo, evidence, units.verdict.count("active"), trained.seconds)


def _row(outcome: Outcome, first: Outcome) -> dict[str, Any]:
    mean, error = _difference(outcome, first)
    log_p, elbo = outcome.evidence.log_evidence, outcome.evidence.elbo
    return {
        "objective": outcome.name,
        "trained on": outcome.trained_on,
        "log p(x)": float(log_p.mean()),
        "above the ELBO's": mean,
        "± standard error": error,
        "ELBO": float(elbo.mean()),
        "gap": float((log_p - elbo).mean()),
        "active units": outcome.active,
        "seconds": outcome.seconds,
    }


def _difference(outcome: Outcome, first: Outcome) -> tuple[float, float]:
    """log p(x) above that of another, paired by datum, and its standard error."""
    difference = outcome.evidence.log_evidence - first.evidence.log_evidence
    return float(difference.mean()), float(difference.std() / math.sqrt(len(difference)))


def _conclusions(outcomes: list[Outcome], config: Config) -> list[str]:
    first = outcomes[0]
    best = max(outcomes, key=lambda one: float(one.evidence.log_evidence.mean()))
    tightest = min(outcomes, key=lambda one: float(one.evidence.gap.mean()))
    busiest = max(outcomes, key=lambda one: one.active)
    mean, error = _difference(best, first)
    return [
        f"The highest log p(x) of data not trained on is that of {best.name}: {mean:.2f} ± {error:.2f} nats above that "
        "of the ELBO.",
        f"The smallest gap is that of {tightest.name}: {float(tightest.evidence.gap.mean()):.2f} nats, where the ELBO "
        f"leaves {float(first.evidence.gap.mean()):.2f}.",
        f"Most units are active under {busiest.name}: {busiest.active} of {config.latent_dim}, where the ELBO uses "
        f"{first.active}.",
    ]
