"""Terms of the ELBO that are counted twice, observations that are masked out, and data that are changed in the model.

What :mod:`ppvae.inference.pair.observed` cannot see by differentiation is seen here by comparing values.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence
from torch.utils._pytree import tree_flatten

from .arguments import Batch, map_tensors
from .contract import Finding
from .distributions import left_out, masked
from .traces import Program, is_factor, latents, observations, plain_traces, sample_sites, site_log_prob

Terms = dict[str, Tensor]


def repeated_terms(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """Findings of factors that the ELBO contains already, and of data of integers that two sites observe."""
    factors = [
        (name, torch.as_tensor(site["fn"].log_factor).detach(), trace is guide_trace)
        for trace in (model_trace, guide_trace)
        for name, site in sample_sites(trace)
        if is_factor(site) and hasattr(site["fn"], "log_factor")
    ]
    terms = _terms(model_trace, guide_trace) if factors else {}
    for name, value, of_guide in factors:
        for what, term in terms.items():  # the ELBO subtracts what the guide adds
            if _same(-value if of_guide else value, term):
                yield Finding(
                    "counted-twice",
                    name,
                    f"the factor is {what}, which the ELBO contains already, so that a training counts it twice",
                    "leave the factor out; to weight the term on purpose, use poutine.scale",
                    fatal=False,
                )
                break
    for (name, one), (other, two) in combinations(observations(model_trace).items(), 2):
        if _one_tensor(one, two):
            yield Finding(
                "observed-twice",
                other,
                f"it observes the same values as {name!r}, so that p(x|z) is no density of x and the number is the "
                "logarithm of an integral, not log p(x)",
                "observe every number once",
                fatal=False,
            )


def _terms(model_trace: Trace, guide_trace: Trace) -> Terms:
    """What the ELBO adds up, with its sign, in parts and together."""
    prior = {name: site_log_prob(site) for name, site in latents(model_trace).items()}
    proposal = {name: site_log_prob(site) for name, site in latents(guide_trace).items() if name in prior}
    likelihood = {name: site_log_prob(site) for name, site in observations(model_trace).items()}
    kl = {}
    for name in proposal:
        try:
            q, p = (trace.nodes[name]["fn"] for trace in (guide_trace, model_trace))
            kl[name] = -kl_divergence(q, p)  # type: ignore[arg-type]
        except (NotImplementedError, ValueError, RuntimeError):
            continue
    parts = {
        "log p(z)": prior,
        "log p(x|z)": likelihood,
        "−KL(q ‖ p)": kl,
        "−log q(z|x)": {name: -value for name, value in proposal.items()},
        "log p(z) − log q(z|x)": {name: prior[name] - value for name, value in proposal.items()},
    }
    found: Terms = {}
    for what, by_site in parts.items():
        found |= {f"{what} of {name!r}": value for name, value in by_site.items()}
        if len(by_site) > 1 and len({value.shape for value in by_site.values()}) == 1:
            found[what] = torch.stack(list(by_site.values())).sum(0)
    return found


def _same(value: Tensor, term: Tensor) -> bool:
    if value.numel() != term.numel():
        value, term = value.sum(), term.sum()
    value, term = value.reshape(-1).double(), term.reshape(-1).double()
    return bool((term != 0).any()) and bool(torch.isclose(value, term, rtol=1e-4, atol=1e-8).all())


def _one_tensor(one: Any, two: Any) -> bool:
    """Whether two sites observe the same integers, none of which either leaves out."""
    a, b = one["value"], two["value"]
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.is_floating_point() or masked(one) or masked(two):
        return False
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def all_masked(model_trace: Trace) -> Iterator[Finding]:
    """The finding that the masks of a model leave out all that it observes."""
    observed = observations(model_trace)
    if observed and all(bool(left_out(site).all()) for site in observed.values()):
        yield Finding(
            "all-masked",
            next(iter(observed)),
            "its mask leaves all of the data out, as a mask does that is the wrong way round",
            "let the mask be True where a value counts, as ~x.isnan() is",
            fatal=False,
        )


def changed_in_the_model(model: Program, guide: Program, batch: Batch, model_trace: Trace) -> Iterator[Finding]:
    """Findings of observed values that are made from the data: rounded, binarised, made integers."""
    held = [leaf.detach().double().reshape(-1) for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]
    num_rows, numbers = len(batch[0]), torch.cat(held)
    observed = observations(model_trace)
    doubtful = [name for name in observed if _is_none_of(observed[name], numbers, batch[0])]
    if len(observed) > 1:  # which values are missing is part of the data, beside those that are there
        doubtful = [name for name in doubtful if not _is_what_is_missing(observed[name]["value"], batch[0])]
    if not doubtful:
        return
    turned = map_tensors(lambda value: value.roll(1, 0) if value.dim() and len(value) == num_rows else value, batch)
    again, _ = plain_traces(model, guide, turned)
    for name in doubtful:
        values: list[Any] = [trace.nodes[name]["value"] for trace in (again, model_trace)]
        if not torch.equal(*values):
            yield Finding(
                "observes-a-function",
                name,
                "the model observes a function of the data (rounded, binarised or scaled values), so that the number "
                "is the log density of that function's values, not of x",
                "transform the data beforehand",
                fatal=False,
            )


def _is_none_of(site: Any, numbers: Tensor, x: Tensor) -> bool:
    value = site["value"]
    if not isinstance(value, Tensor) or masked(site) or bool((value == value.flatten()[:1]).all()):
        return False
    if value.requires_grad and bool((torch.autograd.grad(value.sum(), x, allow_unused=True)[0] != 0).any()):
        return False  # found by differentiation, if it is a function
    return not bool(torch.isin(value.detach().double(), numbers).all())


def _is_what_is_missing(value: Tensor, x: Tensor) -> bool:
    """Whether a value says of each number of x that it is missing (NaN), or of each that it is not."""
    missing, value = x.isnan().reshape(-1), value.reshape(-1)
    return len(value) == len(missing) and any(torch.equal(value, one.to(value)) for one in (missing, ~missing))
