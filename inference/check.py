"""Does a pair keep the contract? Run it a few times and say, a sentence each, how it does not.

The contract: two callables of one signature; every latent inside a plate over the data at dim −1; the guide proposes
what the model hides; the likelihood is a normalised distribution over the data as given; the pair runs under an outer
plate of particles; a datum's weight does not depend on its neighbours; a gradient reaches every parameter. Each test
below exists because a published program broke the rule in silence.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from ppvae.errors import PpvaeError, first_line

from .importance import finite_batch
from .objective import elbo_for
from .parameters import (
    buffers_kept,
    evaluation_mode,
    modules_of,
    named_parameters,
    own_parameters,
    where_parameters_are,
)
from .structure import Finding, outside_plate, unmatched_sites
from .traces import (
    Batch,
    Plates,
    Program,
    as_batch,
    generator_kept,
    latents,
    particle_traces,
    plain_traces,
    plates_of,
    rows,
    sample_sites,
)
from .weights import site_log_prob, weigh

# Weights of the same latents, computed in two ways, differ by rounding alone: this much per nat of their size.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
_PARTICLES = 3


def check(model: Program, guide: Program, x: Tensor | Batch) -> list[Finding]:
    """Run a pair a few times and list every way in which it breaks the contract.

    The pair's parameters, buffers and the global generators are left as they were.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: some data to run it on, first dimension ``num_data``; or a tuple ``(x, *context)``. A few dozen do.

    Returns:
        The findings; empty when the pair keeps the contract.

    Raises:
        DataError: ``x`` is not a tensor of at least one datum, or holds NaN or infinite values.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Bernoulli(logits=z), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
        >>> check(model, guide, torch.tensor([0.0, 1.0]))
        []
        >>> for finding in check(model, guide, torch.tensor([0.0, 0.4])):
        ...     print(finding.code, finding.site)
        support-of-data x
    """
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    with _undisturbed(model, guide):
        try:
            model_trace, guide_trace = plain_traces(model, guide, batch)
        except Exception as error:
            return [_failure("fails", "the pair fails when it is run once", error)]
        found = [
            *unmatched_sites(model_trace, guide_trace),
            *_supports(model_trace, guide_trace),
            *_scales(model_trace),
        ]
        try:
            plates = plates_of(model, guide, batch, (model_trace, guide_trace))
        except PpvaeError as error:
            return [*found, Finding("no-data-plate", "", *_split(str(error)))]
        found += outside_plate(plates, model_trace, guide_trace)
        if not any(finding.fatal for finding in found):
            found += _behaviour(model, guide, batch, plates)
        return found + list(_gradients(model, guide, batch, plates, model_trace, guide_trace))


@contextmanager
def _undisturbed(model: Program, guide: Program) -> Iterator[None]:
    """Run without validation, warnings, changes of buffers, or use of the global generators."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for context in (
            pyro.validation_enabled(False),
            generator_kept(0),
            own_parameters(model, guide),
            buffers_kept(model, guide),
        ):
            stack.enter_context(context)
        yield


def _failure(code: str, what: str, error: Exception) -> Finding:
    message = f"{what} ({type(error).__name__}: {first_line(error)})"
    remedy = "run it by hand on a few data to see where"
    if "Shape mismatch inside plate" in message:
        remedy = "the site has dimensions that no plate stands for: make them its event, as with .to_event(1)"
    return Finding(code, "", message, remedy)


def _split(sentence: str) -> tuple[str, str]:
    message, _, remedy = sentence.partition(": ")
    return message, remedy.rstrip(".")


def _supports(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """Data lie in the likelihood's support; prior and guide have the same support."""
    for name, site in sample_sites(model_trace):
        if site["is_observed"]:
            outside = _count_outside(site["fn"], site["value"], site["mask"])
            if outside:
                yield Finding(
                    "support-of-data",
                    name,
                    f"{outside} observed values lie outside the support of {_kind(site['fn'])}, which is then no "
                    "normalised likelihood of these data",
                    "use a likelihood for such values, or bring the data to the support (binarise grey pixels)",
                )
    for name, site in latents(guide_trace).items():
        prior = model_trace.nodes.get(name)
        if prior is None or prior["is_observed"]:
            continue
        if _count_outside(prior["fn"], site["value"], None):
            yield Finding(
                "support",
                name,
                f"the guide ({_kind(site['fn'])}) proposes values outside the support of the prior "
                f"({_kind(prior['fn'])})",
                "use a guide with the prior's support, or dist.TransformedDistribution to reach it",
            )
        elif _reaches_less(prior["fn"], site["fn"]):
            yield Finding(
                "support",
                name,
                f"the guide ({_kind(site['fn'])}) cannot propose all that the prior ({_kind(prior['fn'])}) allows, so "
                "log p(x) comes out too low",
                "widen the guide's support to the prior's",
            )


def _kind(fn: Any) -> str:
    while type(fn).__name__ in {"Independent", "MaskedDistribution", "ExpandedDistribution"}:
        fn = fn.base_dist
    return type(fn).__name__


def _count_outside(fn: Any, value: Tensor, mask: Tensor | bool | None) -> int:
    try:
        inside = fn.support.check(value)
    except (NotImplementedError, AttributeError, RuntimeError, ValueError):
        return 0  # a distribution that does not know its support
    if mask is not None:
        inside = inside | ~torch.as_tensor(mask)
    return int((~inside).sum())


def _reaches_less(prior: Any, proposal: Any) -> bool:
    """Whether draws of the prior lie outside the guide's support (a point mass has none to compare)."""
    if _kind(proposal) == "Delta":
        return False
    try:
        draws = prior.sample((100,))
    except NotImplementedError:
        return False
    return _count_outside(proposal, draws, None) > 0


def _scales(model_trace: Trace) -> Iterator[Finding]:
    """A scale on a site belongs to training alone."""
    for name, site in sample_sites(model_trace):
        scale = site["scale"]
        if isinstance(scale, Tensor) or scale != 1.0:
            yield Finding(
                "scale",
                name,
                "its log density is scaled (a subsampling plate or poutine.scale): right for Trace_ELBO, wrong for a "
                "bound with a logarithm of a mean (RenyiELBO), which puts the scale inside; evidence leaves it out",
                "give the plate the size of the batch, pyro.plate('data', len(x)), and no scale",
                fatal=False,
            )


def _behaviour(model: Program, guide: Program, batch: Batch, plates: Plates) -> list[Finding]:
    """What only shows when the pair runs under particles, again, and on part of the data."""
    pair = _Weigher(model, guide, plates)
    try:
        with torch.no_grad(), evaluation_mode(model, guide):
            model_trace, guide_trace = particle_traces(model, guide, batch, _PARTICLES, plates)
            log_w = weigh(model_trace, guide_trace, plates, _PARTICLES, len(batch[0]))
            if not log_w.isfinite().all():
                return list(_non_finite(model_trace, guide_trace))
            found = list(_coupling(pair, batch, guide_trace, log_w))
        with torch.no_grad():
            return found or list(_coupling_in_training(pair, batch, guide_trace))
    except Exception as error:
        return [_failure("particles", "the pair does not run under an outer plate of particles", error)]


def _non_finite(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    for program, trace in (("model", model_trace), ("guide", guide_trace)):
        for name, site in sample_sites(trace):
            log_prob = site_log_prob(site)
            if not log_prob.isfinite().all():
                count = int((~log_prob.isfinite()).sum())
                yield Finding(
                    "non-finite",
                    name,
                    f"{count} of {log_prob.numel()} of its log densities in the {program} are not finite",
                    "keep scales away from 0, use logits instead of probabilities, and scale the data to about 1",
                )


@dataclass(frozen=True)
class _Weigher:
    """Computes the weights of given latents once more."""

    model: Program
    guide: Program
    plates: Plates

    def again(self, batch: Batch, guide_trace: Trace, particles: slice, data: slice) -> Tensor:
        """Log weights of a part of the latents of ``guide_trace``, the pair being run on that part alone."""
        part = self._part(guide_trace, particles, data)
        num_particles = len(range(_PARTICLES)[particles])
        batch = rows(batch, data)
        traces = particle_traces(self.model, poutine.replay(self.guide, part), batch, num_particles, self.plates)
        return weigh(*traces, self.plates, num_particles, len(batch[0]))

    def _part(self, guide_trace: Trace, particles: slice, data: slice) -> Trace:
        part = Trace()
        for name, site in latents(guide_trace).items():
            if site["infer"].get("_enumerate_dim") is None:
                value = site["value"]
                for dim, index in ((-1, data), (self.plates.particle_dim, particles)):
                    value = _cut(value, dim - site["fn"].event_dim, index)
                part.add_node(name, **{**site, "value": value})
        return part


def _cut(value: Tensor, dim: int, index: slice) -> Tensor:
    if value.dim() < -dim or value.shape[dim] == 1:
        return value
    return value.movedim(dim, 0)[index].movedim(0, dim)


def _differ(one: Tensor, other: Tensor, guide_trace: Trace) -> bool:
    dtypes = {site["value"].dtype for site in latents(guide_trace).values() if site["value"].is_floating_point()}
    rounding = max((_ROUNDING.get(dtype, 1e-1) for dtype in dtypes), default=_ROUNDING[torch.float32])
    return bool(((one - other).abs() > rounding * (1 + one.abs())).any())


def _coupling(pair: _Weigher, batch: Batch, guide_trace: Trace, log_w: Tensor) -> Iterator[Finding]:
    """The weight of a datum and a latent depends on nothing else."""
    everything = slice(None)
    if _differ(log_w, pair.again(batch, guide_trace, everything, everything), guide_trace):
        yield Finding(
            "random",
            "",
            "the same latents get another density when the pair runs again",
            "draw every random number with pyro.sample",
        )
        return
    if _differ(log_w[:1], pair.again(batch, guide_trace, slice(0, 1), everything), guide_trace):
        yield Finding(
            "particles",
            "",
            "a particle's weight changes with the number of particles",
            "let the programs broadcast over the dimensions left of the data, and normalise over none of them",
        )
    half = slice(0, len(batch[0]) // 2)
    if len(batch[0]) > 1 and _differ(log_w[:, half], pair.again(batch, guide_trace, everything, half), guide_trace):
        yield Finding(
            "batch-coupled",
            "",
            "a datum's weight changes with the rest of the batch",
            "compute nothing over the data dimension (batch statistics, softmax or means over dim 0)",
        )


def _coupling_in_training(pair: _Weigher, batch: Batch, guide_trace: Trace) -> Iterator[Finding]:
    """In training mode batch norm couples the data of a batch; dropout, which is random, is left alone."""
    if len(batch[0]) < 4 or not any(
        m.training for owned in modules_of(pair.model, pair.guide) for m in owned.modules()
    ):
        return
    everything, half = slice(None), slice(0, len(batch[0]) // 2)
    whole, again = (pair.again(batch, guide_trace, everything, everything) for _ in range(2))
    if _differ(whole, again, guide_trace):
        return
    if _differ(whole[:, half], pair.again(batch, guide_trace, everything, half), guide_trace):
        yield Finding(
            "batch-coupled",
            "",
            "in training mode a datum's weight changes with the rest of the batch, as batch norm makes it do: the ELBO "
            "that is trained is then no sum over data",
            "use layer norm, or none",
            fatal=False,
        )


def _gradients(
    model: Program, guide: Program, batch: Batch, plates: Plates, model_trace: Trace, guide_trace: Trace
) -> Iterator[Finding]:
    """A gradient of the ELBO reaches every parameter."""
    parameters = named_parameters(model, guide, batch)
    loss: Any = elbo_for(model_trace, guide_trace, plates.nesting)
    try:
        value = loss.differentiable_loss(model, guide, *batch)
        reached: Any = [None] * len(parameters)
        if isinstance(value, Tensor) and value.requires_grad and parameters:
            reached = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    except Exception as error:
        yield _failure("loss", f"{type(loss).__name__} cannot be computed", error)
        return
    for name, gradient in zip(parameters, reached, strict=True):
        if gradient is None:
            yield Finding(
                "no-gradient",
                name,
                "no gradient of the ELBO reaches this parameter",
                "use it, remove it, or look for a detach() or no_grad() on its way",
                fatal=False,
            )
