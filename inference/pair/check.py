"""Check a pair: run it a few times, and list in a sentence each how it breaks the contract.

The contract: two callables of one signature; the guide proposes what the model hides, with a density; the likelihood is
a normalised distribution over the data as given; the programs draw every random number by ``pyro.sample``; a gradient
reaches every parameter. Everything else (plates, batch dimensions, context, shared latents) is found out and adapted
to.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.poutine import Trace
from torch import Tensor

from ppvae.errors import PpvaeError

from ..records import Printed
from .agreement import equal
from .arguments import Batch, as_batch, finite_batch
from .contract import ContractError, Finding, unmatched_sites, unnormalised, without_density
from .dependence import dependence
from .devices import where_parameters_are
from .distribution_parameters import distribution_parameters
from .failures import FailedRun
from .gradient_run import GradientRun, gradient_run
from .modes import buffers_kept, reachable_modules
from .pair import Pair
from .parameters import own_parameters
from .randomness import generator_kept
from .repeated_terms import all_masked, changed_in_the_model, repeated_terms
from .source_lines import SourceLines
from .supports import supports
from .traces import Program, guide_log_prob, plain_traces, sample_sites, site_log_prob
from .training_findings import failure, training_findings

_DRAWS = 3


class Findings(list[Finding], Printed):
    """What :func:`check` found, a list; empty when the pair keeps the contract.

    Attributes:
        pair: the pair as it is measured (its unit and its layouts); None if it cannot be measured.
    """

    def __init__(self, found: list[Finding], pair: Pair | None) -> None:
        super().__init__(found)
        self.pair = pair

    def __str__(self) -> str:
        lines = [str(finding) for finding in self] or ["the pair keeps the contract."]
        if self.pair is not None:
            lines.append(
                f"unit: {self.pair.unit}; layouts: model {self.pair.model_layout}, guide {self.pair.guide_layout}."
            )
        return "\n".join(lines)


def check(model: Program, guide: Program, x: Tensor | Batch) -> Findings:
    """Run a pair a few times and list every way in which it breaks the contract.

    The pair's parameters, buffers and the global generators are left as they were. Whatever the programs raise is a
    finding.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``. A few dozen do.

    Returns:
        The findings; empty when the pair keeps the contract. Its ``pair`` says of which unit and in which layouts the
        pair is measured.

    Raises:
        DataError: ``x`` is not a tensor of at least one datum, or holds infinite values.

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
            with SourceLines() as lines:
                model_trace, guide_trace = plain_traces(model, guide, batch)
        except Exception as error:
            return Findings([failure("fails", "the pair fails when it is run once", error)], None)
        found = [
            *unmatched_sites(model_trace, guide_trace),
            *without_density(model_trace, guide_trace),
            *supports(model_trace, guide_trace),
            *_scales(model_trace),
            *unnormalised(model_trace, guide_trace),
            *_tried(repeated_terms, model_trace, guide_trace),
            *_tried(all_masked, model_trace),
        ]
        run, pair = gradient_run(model, guide, batch), None
        if run is not None:
            found += _tried(distribution_parameters, run)
            found += _tried(changed_in_the_model, model, guide, run.batch, run.model_trace)
        if not any(finding.fatal for finding in found):
            pair, more = _measured(model, guide, batch, run)
            found += more
        found += training_findings(model, guide, batch, (model_trace, guide_trace), run)
        return Findings(list(map(lines.added_to, found)), pair)


def fatal_findings(model: Program, guide: Program, batch: Batch) -> list[Finding]:
    """What :func:`check` calls fatal and is also an obstacle to training.

    A guide without a density is none; what is not finite, a training says by itself.
    """
    harmless = ("point-mass", "discrete-or-not", "masked-in-guide", "non-finite")
    return [finding for finding in check(model, guide, batch) if finding.fatal and finding.code not in harmless]


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


def _tried(findings: Callable[..., Iterable[Finding]], *args: Any) -> list[Finding]:
    """What a search finds that is a suspicion, and no demand of the contract; nothing where the programs resist it."""
    try:
        return list(findings(*args))
    except Exception:
        return []


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


# --- the pair as it is measured -------------------------------------------------------------------------------------


def _measured(
    model: Program, guide: Program, batch: Batch, run: GradientRun | None
) -> tuple[Pair | None, list[Finding]]:
    """The pair as it is measured, and what shows only then."""
    try:
        with Pair.on(model, guide, batch) as pair, torch.no_grad():
            log_w = pair.few.log_weights(_DRAWS)
            found = list(_without_effect(pair.few)) if log_w.isfinite().all() else list(_non_finite(pair.few))
            more = [] if run is None or found else _tried(dependence, pair, run)
    except ContractError as error:
        return None, [error.finding]
    except FailedRun as error:
        return None, [failure("measurement", "the pair cannot be measured", error.__cause__ or error)]
    except PpvaeError as error:
        return None, [Finding("refused", "", *_split(str(error)))]
    except Exception as error:
        return None, [failure("measurement", "the pair cannot be measured", error)]
    found += more
    found += pair.structure.otherwise
    if pair.coupled:
        found.append(_coupled(pair))
    try:
        with torch.no_grad():
            return pair, found or list(_coupling_in_training(pair))
    except Exception:
        return pair, found  # in training mode a program may do what it likes


def _split(sentence: str) -> tuple[str, str]:
    message, _, remedy = sentence.partition(": ")
    return message, remedy.rstrip(".")


def _coupled(pair: Pair) -> Finding:
    if pair.unit == "data set":
        return Finding(
            "batch-coupled",
            "",
            "a datum's density under the model changes with the rest of the batch, so that only all data together have "
            "an evidence",
            "compute nothing over the data dimension (batch statistics, softmax or means over dim 0)",
        )
    return Finding(
        "batch-coupled",
        "",
        "a datum's density under the guide changes with the rest of the batch, so that training and measurement run on "
        "all data at once",
        "compute nothing over the data dimension (batch statistics, softmax or means over dim 0)",
        fatal=False,
    )


def _non_finite(pair: Pair) -> Iterator[Finding]:
    model_trace, guide_trace = pair.programs.traces(pair.frame, pair.batch)
    for program, trace, log_density in (("model", model_trace, site_log_prob), ("guide", guide_trace, guide_log_prob)):
        for name, site in sample_sites(trace):
            log_prob = log_density(site)
            if not log_prob.isfinite().all():
                count = int((~log_prob.isfinite()).sum())
                yield Finding(
                    "non-finite",
                    name,
                    f"{count} of {log_prob.numel()} of its log densities in the {program} are not finite",
                    "keep scales away from 0, use logits instead of probabilities, and scale the data to about 1",
                )


def _without_effect(pair: Pair) -> Iterator[Finding]:
    """The likelihood changes with the latents, and reads no parameters of the guide in their stead."""
    if not pair.sites or pair.structure.unnormalised:
        return
    z = pair.guide_values(_DRAWS)
    log_likelihood = pair.densities(z).log_likelihood
    moved = any(bool((z[name] != z[name][:1]).any()) for name in pair.sites)
    if moved and bool((log_likelihood == log_likelihood[:1]).all()):
        yield Finding(
            "no-effect",
            "",
            "the likelihood is the same whatever the latents are, so that nothing is inferred of them and log p(x) is "
            "that likelihood (a model whose likelihood reads the guide's parameters has no log p(x))",
            "let the likelihood depend on what the model samples",
            fatal=False,
        )


def _coupling_in_training(pair: Pair) -> Iterator[Finding]:
    """In training mode batch norm couples the data of a batch; dropout, which is random, is left alone."""
    training = any(m.training for module in reachable_modules(pair.model, pair.guide) for m in module.modules())
    if not (training and pair.divisible and pair.num_units >= 4):
        return
    half = slice(0, pair.num_units // 2)
    z = pair.guide_values(1)
    whole, again = (pair.densities(z) for _ in range(2))
    part = pair.rows(half).densities({name: value[:, half] for name, value in z.items()})
    for one, other, third in ((whole.log_p, again.log_p, part.log_p), (whole.log_q, again.log_q, part.log_q)):
        assert one is not None
        assert other is not None
        assert third is not None
        if equal(one, other, z) and not equal(one[:, half], third, z):
            yield Finding(
                "batch-coupled",
                "",
                "in training mode a datum's weight changes with the rest of the batch, as batch norm makes it do: the "
                "ELBO that is trained is then no sum over data",
                "use layer norm, or none",
                fatal=False,
            )
            return
