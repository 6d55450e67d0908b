"""k-hat of mean-field variational inference on the eight schools, centred and not."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppvae.inference import fit, log_weights
from ppvae.inference.evidence import tail_shape

from .row import Figure, Published, Row, RowEffort, RowOutcome

STEPS, RATE, DRAWS, TRAININGS = 2000, 0.05, 100_000, 3


def schools() -> tuple[Tensor, Tensor]:
    """Rubin (1981): effects of coaching in eight schools, and their standard errors."""
    effect = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    return effect, torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def centred(y: Tensor, sigma: Tensor) -> None:
    """mu ~ N(0, 5²), tau ~ HalfCauchy(5), theta_j ~ N(mu, tau²), y_j ~ N(theta_j, sigma_j²)."""
    mu, tau = pyro.sample("mu", dist.Normal(0.0, 5.0)), pyro.sample("tau", dist.HalfCauchy(5.0))
    theta = pyro.sample("theta", dist.Normal(mu[..., None].expand(*mu.shape, 8), tau[..., None]).to_event(1))
    pyro.sample("y", dist.Normal(theta, sigma).to_event(1), obs=y)


def non_centred(y: Tensor, sigma: Tensor) -> None:
    """The same with theta_j = mu + tau eta_j, eta_j ~ N(0, 1)."""
    mu, tau = pyro.sample("mu", dist.Normal(0.0, 5.0)), pyro.sample("tau", dist.HalfCauchy(5.0))
    eta = pyro.sample("eta", dist.Normal(torch.zeros(8), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(mu[..., None] + tau[..., None] * eta, sigma).to_event(1), obs=y)


def k_hat(model: Callable[..., Any], effort: RowEffort) -> RowOutcome:
    """k-hat of the importance weights of 100 000 draws of the trained guide."""
    data, values = schools(), []
    for seed in range(effort.seed, effort.seed + TRAININGS):
        pyro.clear_param_store()
        guide = AutoNormal(model, init_scale=0.5)
        trained = fit(
            model,
            guide,
            data,
            epochs=STEPS,
            learning_rate=RATE,
            scheduler=partial(CosineAnnealingLR, T_max=STEPS),
            seed=seed,
            compile=effort.compile,
            accelerator="cpu",
            progress=False,
        )
        values.append(float(tail_shape(log_weights(trained.model, trained.guide, data, DRAWS, seed=seed))[0]))
    found = torch.tensor(values)
    return RowOutcome(
        (Figure(float(found.mean()), float(found.std()) / math.sqrt(TRAININGS)),), {"k_hat": values, "steps": STEPS}
    )


def _row(name: str, title: str, model: Callable[..., Any], published: float) -> Row:
    return Row(
        name,
        title,
        (Published("k-hat of 100 000 draws", published, 0.005, better="lower"),),
        "Yao, Vehtari, Simpson & Gelman (2018), arXiv:1802.02538, section 4.2",
        "Pyro's `AutoNormal`, 2000 steps of Adam with a falling rate; the mean of three trainings",
        "Stan's ADVI in the paper, which stops by its own rule",
        partial(k_hat, model),
    )


ROWS = (
    _row("eight_schools_centred", "Mean-field guide of the eight schools, centred", centred, 1.00),
    _row("eight_schools_non_centred", "The same, not centred", non_centred, 0.64),
)
