"""Log importance weights of a pair, per particle and datum: the one tensor that evidence is read from.

For z_k ~ q(z|x),

    log w_k(x) = log p(x, z_k) − log q(z_k|x),        E_q[w] = p(x),        E_q[log w] = ELBO.

Pyro's own helpers return one weight for the whole batch; these keep the data apart, because an amortised guide has
one posterior per datum. Discrete sites that are enumerated (``infer={"enumerate": "parallel"}``), in the model or in
the guide, are summed out exactly:

    log w(z) = log Σ_d p(x, z, d) − log q(z|x),

by Pyro's plated tensor contraction ("Tensor Variable Elimination for Plated Factor Graphs", Obermeyer et al., 2019,
arXiv:1902.03210). Scales set by ``poutine.scale`` or by a subsampling plate are training devices and are left out
here; masks count.
"""

from __future__ import annotations

from torch import Tensor

from ..options import valid_compute, whole_number
from ..pair import Batch, Pair, Program, as_batch, seeded, where_parameters_are


def log_weights(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    num_particles: int,
    *,
    seed: int | None = None,
    memory_mb: float = 64.0,
) -> Tensor:
    """log p(x, z_k) − log q(z_k|x) for z_k ~ q(z|x), in nats.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; it proposes the latents.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        num_particles: draws of the guide per datum, K ≥ 1.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; the result itself comes on top. How the work is cut
            depends on it, and with it which draws are made.

    Returns:
        float64 tensor of shape ``(num_particles, num_data)``. A draw outside the model's support has weight −inf.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum.
        PairError: the pair breaks the contract: a latent stands in one program only, or the guide is a point mass.

    Example:
        With the exact posterior as guide every weight is log p(x):

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> _ = pair.set_exact_guide()
        >>> x = torch.randn(4, 3)
        >>> log_w = log_weights(pair.model, pair.guide, x, num_particles=5)
        >>> log_w.shape
        torch.Size([5, 4])
        >>> torch.allclose(log_w, pair.log_evidence(x).expand(5, 4), atol=1e-4)
        True
    """
    count = whole_number("num_particles", num_particles)
    seed, memory_mb, _ = valid_compute(seed, memory_mb)
    batch = where_parameters_are(model, guide, as_batch(x))
    with seeded(seed), Pair.on(model, guide, batch) as pair:
        return pair.gathered_log_weights(count, memory_mb)
