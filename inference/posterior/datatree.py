"""A pair's posterior as an xarray DataTree in ArviZ's schema, so that all of ArviZ reads it.

Groups, with dims ``chain`` and ``draw`` (but for the data), then ``datum``, then the site's own:

    posterior                    draws of z for every datum, named after the sites
    sample_stats                 log_p = log p(x, z), log_q = log q(z|x), log_weight = log_p − log_q
    log_likelihood               log p(x|z), one number for each draw and datum
    posterior_predictive         x̃ ~ p(x|z), one for each draw of the posterior
    prior, prior_predictive      z ~ p(z) and x̃ ~ p(x|z); none where a prior is improper
    observed_data, constant_data what the model observes, and the context

ArviZ's comparisons take a dict of trees, such as the guide's beside a reference, of as many chains and draws each.

Draws that are independent are cut into ``num_chains`` chains of equal standing, which is all that R-hat and the rank
plots ask for: they then show what they show for perfectly mixed chains.

Leave-one-out. Each datum has latents of its own, so that without x_n nothing is known of z_n but its prior:
p(x_n|x_−n) = p(x_n). What ArviZ calls ``elpd_loo`` is here the sum of log p(x_n). From draws of the guide

    stats = tree["sample_stats"]
    loo_approximate_posterior(tree, log_p=stats["log_p"], log_q=stats["log_q"])

estimates it with the ratios p(z)/q(z|x), normalised by their sum. They go back to the prior, which is much wider than a
posterior, so that even an exact guide has a high k̂ there and an estimate that is nats too high: believe it only where
its k̂ is low, and take ``importance_evidence`` elsewhere, whose ratios are the guide's own.
Keep the dim ``datum`` in both arguments: a sum over the data would be one weight for all of them, and its k̂ would grow
with their number. Draws of the posterior itself ("exact", "psis", Markov chains) go to ``loo`` instead, whose ratios
1/p(x|z) are the harmonic mean's: believe it only where its k̂ says so.

References:
    DataTree schema specification for ArviZ, in ArviZ's documentation.
    Bayesian leave-one-out cross-validation for large data (Magnusson, Riis Andersen, Jonasson & Vehtari, 2019),
    arXiv:1904.10679.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from ppvae import __version__
from ppvae.datasets import column_names
from ppvae.errors import OptionError

from ..option_records import DrawsFrom, Source
from ..options import flag, instance_of, shown, valid_memory, valid_seed
from ..pair import Batch, Pair, Program, Values, as_batch, finite_batch, owner, seeded, where_parameters_are
from .draws import exact_draws, given_draws, guide_draws, resampled_draws, store, weight_stats, with_missing
from .labels import DATUM, RESERVED, SAMPLE, check_coords, dims_of_variables, with_columns
from .reference import Posterior

if TYPE_CHECKING:
    import xarray as xr

SOURCES = {
    "guide": "the guide, q(z|x)",
    "psis": "the guide, resampled by Pareto-smoothed importance weights",
    "exact": "the posterior in closed form",
}
OF_WEIGHTS = ("pareto_k", "importance_ess")


def to_datatree(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    draws: Source | DrawsFrom | Mapping[str, Any] | Posterior = "guide",
    predictive: bool = True,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[Hashable]] | None = None,
    seed: int | None = None,
    memory_mb: float = 64.0,
) -> xr.DataTree:
    """A DataTree in ArviZ's schema: draws of the latents of every datum, densities, data and predictions.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        draws: where the posterior's draws come from: ``"guide"``, ``"psis"`` or ``"exact"``, each for 4 chains of 250
            draws, or :class:`~ppvae.inference.DrawsFrom`, which explains the three and takes other numbers. Or draws of
            your own, a mapping from site to ``(chain, draw, datum, ...)``, such as the ``posterior`` group of another
            tree; or the record of :func:`~ppvae.inference.sample_posterior`, which puts ``converged``, R-hat and the
            rest into ``sample_stats``, by datum.
        predictive: also draw data, for ``prior_predictive`` and ``posterior_predictive``: each as large as x times the
            number of draws.
        coords: values along dims, by dim, as ArviZ takes them; ``"datum"`` names the data.
        dims: names of a site's own dims, by site, as ArviZ takes them; by default ``<site>_dim_0`` and so on, plates
            inside a datum first; of a table ``column``, with the names of its columns.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; the tree itself comes on top.

    Returns:
        xarray.DataTree: as described above; log densities are float64, in nats. Sites that are enumerated are summed
        out: the groups leave them out, and the attribute ``summed_out`` names them. What only the guide draws
        (auxiliary sites) is left out too. ``log_likelihood`` holds one variable, named after the observed site, or
        ``observed``, where there are several.

    Raises:
        OptionError: an argument has no meaning, or does not fit the pair.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, cannot draw what is asked for, or a site has a name that a dim has.
        NonFiniteError: a datum has no weights to resample by.

    Example:
        >>> import torch
        >>> from arviz_stats import summary
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2).set_exact_guide()
        >>> tree = to_datatree(pair.model, pair.guide, torch.randn(5, 3), seed=0)
        >>> list(tree["posterior"]["z"].sizes.items())
        [('chain', 4), ('draw', 250), ('datum', 5), ('z_dim_0', 2)]
        >>> len(summary(tree))
        10
        >>> sorted(tree.children)[:3]
        ['log_likelihood', 'observed_data', 'posterior']
    """
    import xarray as xr
    from arviz_base import dict_to_dataset

    seed, memory_mb, predictive = valid_seed(seed), valid_memory(memory_mb), flag("predictive", predictive)
    for name, value in (("coords", coords), ("dims", dims)):
        instance_of(name, {} if value is None else value, Mapping, "a mapping, or None")
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    asked, told = _asked(draws)
    source = asked.source if isinstance(asked, DrawsFrom) else None
    with seeded(seed), Pair.on(model, guide, batch) as pair, torch.no_grad():
        context = _context(pair)
        named, places = with_columns(pair, column_names(x), dims, coords)
        dims_of = dims_of_variables(pair, context, named)
        if isinstance(asked, DrawsFrom):
            size = asked.num_chains, asked.num_draws
            check_coords(places, dims_of, size)
            z, of_weights = _posterior(pair, asked.source, size[0] * size[1], memory_mb)
        else:
            z, *counts = given_draws(pair, asked)
            size, of_weights = (counts[0], counts[1]), {}
            check_coords(places, dims_of, size)
        groups = _read(pair, z, size[0] * size[1], predictive, memory_mb)
    if source == "guide":
        of_weights = dict(zip(OF_WEIGHTS, weight_stats(groups["sample_stats"]["log_weight"]), strict=True))
    of_weights |= told
    groups |= {"constant_data": context, "observed_data": with_missing(groups["observed_data"], batch[0])}
    attrs = _attributes(pair, source, seed)
    tree = {}
    for group, values in groups.items():
        log_densities, data = group in ("sample_stats", "log_likelihood"), group.endswith("_data")
        if values or group == "posterior":
            tree[group] = dict_to_dataset(
                {name: (value if data else value.unflatten(0, size)).numpy() for name, value in values.items()},
                dims={name: [DATUM] if log_densities else list(dims_of[name]) for name in values},
                sample_dims=() if data else SAMPLE,
                coords=dict(places) or None,
                attrs=attrs,
                inference_library=pyro,
                check_conventions=False,
            )
        if log_densities:
            for variable in tree.get(group, {}).values():
                variable.attrs["units"] = "nats"
    tree["sample_stats"] = tree["sample_stats"].assign({n: ((DATUM,), v.numpy()) for n, v in of_weights.items()})
    tree["posterior"] = tree["posterior"].assign_coords(tree["sample_stats"].coords)  # there may be no latent
    out = xr.DataTree.from_dict(tree)
    out.attrs = tree["posterior"].attrs
    return out


def _asked(draws: Any) -> tuple[DrawsFrom | Mapping[str, Any], Values]:
    """What makes the draws, or the draws; and what is told of each datum's, where they come in a record."""
    if isinstance(draws, str) and draws in SOURCES:
        return DrawsFrom(draws), {}  # type: ignore[arg-type]
    told: Values = {}
    if not isinstance(draws, (str, DrawsFrom, Mapping)):
        told, draws = getattr(draws, "diagnostics", {}), getattr(draws, "draws", draws)
    if isinstance(draws, (DrawsFrom, Mapping)):
        return draws, told
    raise OptionError(
        f"draws must be one of {list(SOURCES)}, a DrawsFrom, or a mapping from site to draws; it is {shown(draws)}."
    )


def _posterior(pair: Pair, source: Source, num_draws: int, memory_mb: float) -> tuple[Values, Values]:
    """Draws by datum, and what is known of their weights."""
    if source == "psis":
        resampled = resampled_draws(pair, num_draws, memory_mb)
        return resampled.values, dict(zip(OF_WEIGHTS, (resampled.pareto_k, resampled.ess), strict=True))
    if source == "exact":
        return exact_draws(pair, num_draws), {}
    return guide_draws(pair, num_draws, memory_mb), {}


def _read(pair: Pair, z: Values, num_draws: int, predictive: bool, memory_mb: float) -> dict[str, Values]:
    """Every group's values, ``(num_draws, num_data, ...)``, and the data's, ``(num_data, ...)``."""
    names = ("sample_stats", "log_likelihood", "posterior_predictive", "prior", "prior_predictive")
    groups: dict[str, Values] = {name: {} for name in names}
    observed: Values = {}
    likelihood = next(iter(pair.structure.observed)) if len(pair.structure.observed) == 1 else "observed"
    for data, draws in pair.chunks(num_draws, memory_mb):
        part = pair.rows(data)
        count = draws.stop - draws.start
        here = {name: value[draws, data] for name, value in z.items()}
        log_p, log_q, log_likelihood = part.densities(here, count)
        stats = {"log_p": log_p} | ({} if log_q is None else {"log_q": log_q, "log_weight": log_p - log_q})
        prior = {} if part.structure.improper else part.prior_values(count, predictive=predictive)
        found = {
            "sample_stats": stats,
            "log_likelihood": {likelihood: log_likelihood} if pair.structure.observed else {},
            "posterior_predictive": part.predictions(here, count) if predictive else {},
            "prior": {name: prior[name] for name in pair.sites if name in prior},
            "prior_predictive": {name: prior[name] for name in pair.structure.observed if name in prior and predictive},
        }
        for group, values in found.items():
            store(groups[group], values, draws, data, (num_draws, pair.num_units))
        if draws.start == 0:
            first = {name: value[:1] for name, value in here.items()}
            store(observed, part.observations(first), slice(0, 1), data, (1, pair.num_units))
    posterior = {name: z[name] for name in pair.sites}
    return {"posterior": posterior, **groups, "observed_data": {name: value[0] for name, value in observed.items()}}


def _context(pair: Pair) -> Values:
    """The tensors and numbers that come with x, named as the model names its arguments."""
    program = getattr(pair.model, "forward", pair.model)
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [p.name for p in inspect.signature(program).parameters.values() if p.kind in kinds]
    taken = RESERVED | set(pair.sites) | set(pair.structure.observed)
    out = {}
    for i, value in enumerate(pair.batch[1:], start=1):
        name = names[i] if i < len(names) and names[i] not in taken else f"context_{i}"
        if isinstance(value, (Tensor, int, float)):
            out[name] = torch.as_tensor(value).cpu()
    return out


def _attributes(pair: Pair, source: Source | None, seed: int | None) -> dict[str, Any]:
    """What every group says of itself."""
    model, guide = (_name(program) for program in (pair.model, pair.guide))
    attrs: dict[str, Any] = {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "ppvae",
        "creation_library_version": __version__,
        "torch_version": str(torch.__version__),
        "pair": model if model == guide else f"{model}, {guide}",
        "draws": "given" if source is None else SOURCES[source],
    }
    if seed is not None:
        attrs["seed"] = seed
    if pair.summed:
        attrs["summed_out"] = ", ".join(sorted(pair.summed))
    return attrs


def _name(program: Program) -> str:
    """What a program belongs to, or its own name."""
    of = owner(program)
    return str(getattr(of, "__qualname__", type(of).__qualname__))
