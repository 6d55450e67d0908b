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

from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from ppvae.errors import OptionError

from .chunks import bytes_per_particle, chunks
from .contraction import has_enumerated, sum_out
from .parameters import evaluation_mode, own_parameters, where_parameters_are
from .structure import sound_plates
from .traces import Batch, Plates, Program, as_batch, particle_traces, rows, sample_sites, seeded


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
        guide: ``guide(x, *context)``, the program that proposes the latents.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        num_particles: draws of the guide per datum, K ≥ 1.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; the result itself comes on top. How the work is cut
            depends on it, and with it which draws are made.

    Returns:
        float64 tensor of shape ``(num_particles, num_data)``. A draw outside the model's support has weight −inf.

    Raises:
        OptionError: ``num_particles`` or ``memory_mb`` is not positive.
        DataError: ``x`` is not a tensor of at least one datum.
        PairError: the pair has no data plate, a site lies outside it, or a latent stands in one program only.

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
    batch = as_batch(x)
    out = torch.empty(check_particles(num_particles), len(batch[0]), dtype=torch.float64)
    with seeded(seed):
        for data, particles, log_w in weight_chunks(model, guide, batch, num_particles, memory_mb):
            out[particles, data] = log_w.cpu()
    return out


def check_particles(num_particles: int) -> int:
    """``num_particles`` if it counts particles.

    Raises:
        OptionError: it is not an integer of at least 1.
    """
    if isinstance(num_particles, bool) or not isinstance(num_particles, int) or num_particles < 1:
        raise OptionError(f"num_particles must be an integer of at least 1; it is {num_particles!r}.")
    return num_particles


def weight_chunks(
    model: Program, guide: Program, batch: Batch, num_particles: int, memory_mb: float
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The log weights piece by piece: ``(data, particles, log_w)``, data outermost, in bounded memory."""
    batch = where_parameters_are(model, guide, batch)
    with torch.no_grad(), own_parameters(model, guide), evaluation_mode(model, guide):
        plates = sound_plates(model, guide, batch)
        bytes_each = bytes_per_particle(model, guide, batch, plates)
        for data, particles in chunks(num_particles, len(batch[0]), bytes_each, memory_mb):
            part = rows(batch, data)
            traces = particle_traces(model, guide, part, particles.stop - particles.start, plates)
            yield data, particles, weigh(*traces, plates, particles.stop - particles.start, len(part[0]))


def weigh(model_trace: Trace, guide_trace: Trace, plates: Plates, num_particles: int, num_data: int) -> Tensor:
    """log p − log q of a pair of particle traces, float64 ``(num_particles, num_data)``."""
    terms = [(site, site_log_prob(site)) for _, site in sample_sites(model_trace)]
    terms += [(s, -site_log_prob(s)) for _, s in sample_sites(guide_trace) if s["infer"].get("_enumerate_dim") is None]
    if has_enumerated(model_trace, guide_trace):
        return sum_out(terms, model_trace, guide_trace, plates.data, num_particles, num_data)
    total = torch.zeros(num_particles, num_data, dtype=torch.float64, device=_device(terms))
    for _, term in terms:
        total = total + sum_plates(term, plates).expand(num_particles, num_data)
    return total


def _device(terms: list[tuple[Any, Tensor]]) -> torch.device | None:
    return terms[0][1].device if terms else None


def site_log_prob(site: dict[str, Any]) -> Tensor:
    """The log density of a site in float64, summed over events, masked, not scaled."""
    args, kwargs = site["args"], site["kwargs"]
    log_prob = site["fn"].log_prob(site["value"], *args, **kwargs)
    return scale_and_mask(log_prob, 1.0, site["mask"]).double()


def sum_plates(term: Tensor, plates: Plates) -> Tensor:
    """Sum a log density over the pair's inner plates: ``(..., num_data)`` → ``(num_particles, num_data)``."""
    term = term.reshape((1,) * (plates.nesting + 1 - term.dim()) + tuple(term.shape))
    inner = tuple(range(plates.particle_dim + 1, -1))
    return term.sum(inner) if inner else term
