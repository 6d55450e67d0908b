"""Draws of data from the model: z ~ p(z), x ~ p(x|z), as many as are asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from ppvae.errors import OptionError

from ..calibration import drawn
from ..options import valid_compute, whole_number
from ..pair import Batch, Entries, Pair, Program, as_batch, demand_prior, finite_batch, seeded, where_parameters_are


def sample(
    model: Program,
    guide: Program,
    like: Tensor | Batch,
    num_samples: int = 1,
    *,
    seed: int | None = None,
    memory_mb: float = 64.0,
) -> Tensor:
    """Draw data from the model's prior predictive distribution, p(x) = ∫ p(z) p(x|z) dz.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; it is not drawn from, but a trained pair keeps its parameters together.
        like: data, or a tuple ``(x, *context)``, that show shape and type of what is drawn. Draw i is given the context
            of row i, and the rows are gone through again where more are asked for; context that the model observes is
            drawn with x.
        num_samples: how many.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair.

    Returns:
        Draws of x, ``(num_samples, *event)``. Where the data share latents, each draw is a data set as large as
        ``like``: ``(num_samples, num_data, *event)``.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``like`` is not a tensor of at least one datum.
        PairError: the pair breaks the contract, or nothing can be drawn from its model; see
            :func:`ppvae.inference.simulate`, which gives the latents of the draws too.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> sample(pair.model, pair.guide, torch.zeros(1, 3), 5, seed=0).shape
        torch.Size([5, 3])
    """
    return samples(model, guide, as_batch(like, "like"), num_samples, seed, memory_mb, given=True)


def samples(
    model: Program, guide: Program, like: Batch, num_samples: int, seed: int | None, memory_mb: float, *, given: bool
) -> Tensor:
    """Draws of data from a pair's model; see :func:`sample`.

    Raises:
        OptionError: the draws depend on a context by datum that nobody has given.
    """
    num_samples = whole_number("num_samples", num_samples)
    seed, memory_mb, _ = valid_compute(seed, memory_mb)
    batch = where_parameters_are(model, guide, finite_batch(like, "like"))
    with seeded(seed), Pair.on(model, guide, batch, density=False) as pair, torch.no_grad():
        demand_prior(pair)
        if not given and pair.unit == "datum":
            _demand_no_context(pair)
        if pair.unit == "data set":
            return torch.stack([drawn(pair).batch[0] for _ in range(num_samples)])
        if not pair.divisible:
            rounds = -(-num_samples // pair.num_units)
            return torch.cat([drawn(pair).batch[0] for _ in range(rounds)])[:num_samples]
        many = pair.rows(torch.arange(num_samples, device=pair.device) % pair.num_units)
        out = torch.empty((num_samples, *batch[0].shape[1:]), dtype=batch[0].dtype, device=pair.device)
        for data, _ in many.chunks(1, memory_mb, gradient=True):
            out[data] = drawn(many.rows(data)).batch[0]
        return out


def _demand_no_context(pair: Pair) -> None:
    """Raise OptionError if each datum has a context of its own that the model does not draw."""
    few = pair.few
    own = {i for i, by_row in enumerate(pair.arguments.by_row) if by_row}
    if own - {0} and own - Entries.of(few, few.guide_values(1)).data.keys():
        raise OptionError(
            "the model is given a context with each datum, so that draws need one too: give like=(x, *context), whose "
            "row i draw i is given."
        )
