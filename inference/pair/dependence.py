"""Findings about what the densities of a pair depend on: data, latents, parameters.

Read off the graph of one run (:mod:`ppvae.inference.pair.gradient_run`), and by values, where both must say so: a
network whose last layer starts at zero gives the same to all, and depends on its input all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .contract import Finding
from .distributions import opened
from .gradient_run import GradientRun, leaves
from .pair import FEW, Pair
from .traces import latents, observations

# With fewer data, a guide that proposes the same for all may be meant; and entries of x that are looked at.
LEAST_ROWS, ENTRIES = 10, 8


def dependence(pair: Pair, run: GradientRun) -> Iterator[Finding]:
    """Findings about what the densities depend on, of a pair that can be measured."""
    if pair.unit == "datum":
        with torch.enable_grad():
            yield from list(_reads_its_data(run))
        yield from _ignores_the_data(pair, run)
    yield from _without_effect(pair, run)


def _reads_its_data(run: GradientRun) -> Iterator[Finding]:
    """A likelihood of x_i whose parameters depend on x_i."""
    x = run.batch[0]
    for name, site in observations(run.model_trace).items():
        value = site["value"]
        if not isinstance(value, Tensor) or id(x) not in leaves(value):
            continue
        for parameter in _tensors(opened(site["fn"])[0]):
            if id(x) in leaves(parameter) and _own_entry_is_read(parameter, value, x):
                yield Finding(
                    "reads-its-data",
                    name,
                    "the likelihood of a number of the data depends on that number itself (an encoder's features that "
                    "reach the decoder, a mean of the data), so that it is no density of it",
                    "let the likelihood read the latents alone, and of x what comes before",
                    fatal=False,
                )
                break


def _tensors(core: object) -> list[Tensor]:
    return [value for value in vars(core).values() if isinstance(value, Tensor) and value.requires_grad]


def _own_entry_is_read(parameter: Tensor, value: Tensor, x: Tensor) -> bool:
    if len(value.shape) < parameter.dim():
        return False
    try:
        parameter = parameter.expand(value.shape)
    except RuntimeError:  # a matrix for each vector, or the like
        return False
    places = torch.randperm(value.numel(), generator=torch.Generator().manual_seed(0))[:ENTRIES].tolist()
    for place in places:
        entry = torch.autograd.grad(value.reshape(-1)[place], x, retain_graph=True)[0]
        read = torch.autograd.grad(parameter.reshape(-1)[place], x, retain_graph=True)[0]
        if bool((read[entry != 0].abs() > 1e-8).any()):
            return True
    return False


def _ignores_the_data(pair: Pair, run: GradientRun) -> Iterator[Finding]:
    """A guide with parameters, none for a single datum, that proposes the same for all data."""
    x, num_rows = run.batch[0], len(run.batch[0])
    if not x.is_floating_point() or not pair.divisible or num_rows < LEAST_ROWS or not pair.sites:
        return
    reached: dict[Any, Any] = {}
    for name in latents(run.guide_trace):
        reached |= run.reached["guide", name]
    parameters = run.parameters(reached).values()
    by_datum = any(num_rows in parameter.shape for parameter in parameters)
    if run.data & reached.keys() or not parameters or by_datum or bool((x == x[:1]).all()):
        return
    few, others = pair.rows(slice(0, FEW)), pair.rows(slice(FEW, 2 * FEW))
    z = few.guide_values(3)
    if torch.equal(few.log_guide(z, 3), others.log_guide(z, 3)):
        yield Finding(
            "ignores-x",
            "",
            "the guide proposes the same for every datum, whatever x is, so that q(z|x) is a posterior of no datum",
            "let its distributions depend on x; with a constant proposal on purpose, nothing is wrong but its accuracy",
            fatal=False,
        )


def _without_effect(pair: Pair, run: GradientRun) -> Iterator[Finding]:
    """Latents that no other site depends on, where another latent has an effect."""
    idle = [name for name, leaf in run.drawn.items() if name in pair.sites and not _has_effect(run, name, leaf)]
    if not idle or len(idle) == len(pair.sites):
        return
    z = pair.few.guide_values(3)
    before = pair.few.densities(z).log_likelihood
    for name in idle:
        if torch.equal(pair.few.densities({**z, name: z[name].roll(1, 0)}).log_likelihood, before):
            yield Finding(
                "no-effect",
                name,
                "no other site of the model depends on it, so that its posterior is its prior",
                "let the likelihood read it, or take it out of both programs",
                fatal=False,
            )


def _has_effect(run: GradientRun, name: str, leaf: Tensor) -> bool:
    others = (reached for (program, other), reached in run.reached.items() if (program, other) != ("model", name))
    return any(id(leaf) in reached for reached in others)
