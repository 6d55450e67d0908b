"""A distribution of latents near the data: drawn from and evaluated exactly, whatever the guide is.

The aggregate posterior q(u) = (1/N) Σ_n q(u|x_n) says where the codes of the data lie, but as an average over N guides
it is dear to evaluate, and in many dimensions it falls apart into islands. A Gaussian mixture r(u) fitted to its draws
is and does neither. What is exact with r is so however well it fits; the better it fits, the nearer to the data are
draws of p(x|u), u ~ r.

References:
    From Variational to Deterministic Autoencoders (Ghosh, Sajjadi, Vergari, Black & Schölkopf, 2020),
    arXiv:1903.12436: simulations from a mixture fitted to the codes lie nearer to the data than those from the prior.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ..pair import Pair

# Draws of the guide that are fitted, and components at most; so many draws for each coordinate, and so many data, are
# needed for one component.
FITTED_DRAWS, MOST_COMPONENTS = 5000, 10
DRAWS_PER_COORDINATE, DATA_PER_COMPONENT = 20, 20

LogDensity = Callable[[Tensor], Tensor]


def aggregate(pair: Pair, num_draws: int, memory_mb: float) -> tuple[Tensor, LogDensity]:
    """Fit r to the guide's draws at the data, and draw from it.

    Args:
        pair: the pair on the data.
        num_draws: of r.
        memory_mb: budget in MiB for one pass of the guide.

    Returns:
        Independent draws of r, ``(num_draws, dim)``; and log r but for a constant, a function of u on the CPU,
        ``(..., num_data, dim)`` ↦ ``(..., num_data)``, float64.
    """
    from sklearn.mixture import GaussianMixture  # slow to import

    u = _codes(pair, memory_mb)
    center, scale = u.double().mean(0), u.double().std(0)
    scale = torch.where(scale > 0, scale, 1.0)
    most = min(pair.num_units // DATA_PER_COMPONENT, len(u) // (DRAWS_PER_COORDINATE * pair.dim), MOST_COMPONENTS)
    mixture = GaussianMixture(max(most, 1), reg_covar=1e-4, max_iter=50, random_state=int(torch.randint(2**31, ())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not converged serves as well
        mixture.fit(((u - center) / scale).numpy())
    # The mixture gives its draws component by component.
    drawn = torch.from_numpy(mixture.sample(num_draws)[0])[torch.randperm(num_draws)]

    def log_r(u: Tensor) -> Tensor:
        v = (u.double() - center) / scale
        return torch.from_numpy(mixture.score_samples(v.flatten(0, -2).numpy())).reshape(u.shape[:-1])

    return (center + scale * drawn).to(u.dtype).to(pair.device), log_r


def _codes(pair: Pair, memory_mb: float) -> Tensor:
    """Draws of the guide at some of the data or all, ``(about FITTED_DRAWS, dim)``, on the CPU."""
    chosen = torch.randperm(pair.num_units)[:FITTED_DRAWS]
    some = pair.rows(chosen) if len(chosen) < pair.num_units else pair
    each = -(-FITTED_DRAWS // some.num_units)
    parts = [
        some.rows(data).draw("guide", draws.stop - draws.start).flatten(0, 1).cpu()
        for data, draws in some.chunks(each, memory_mb, gradient=True)
    ]
    return torch.cat(parts)
