"""The contract of a pair, read off one run of both programs: what breaks it, and what each breach leaves possible.

- a latent that one of the programs does not know, or a model that observes nothing: nothing can be trained or measured;
- a guide without a density of all latents (a point mass, a mask): training is possible, evidence is not;
- a model whose p(x, z) is no density (``pyro.factor``, a masked prior): a number comes out, the log of an integral.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pyro.poutine import Trace

from ppvae.errors import PairError
from ppvae.printed import Printed

from .distributions import is_discrete, is_improper, is_point_mass, masked, masked_more
from .traces import enumerated, is_factor, latents, sample_sites


@dataclass(frozen=True)
class Finding(Printed):
    """One way in which a pair breaks the contract.

    Attributes:
        code: a short name of the rule.
        site: the sample site or parameter, or ``""`` where the whole pair is meant.
        message: what is wrong.
        remedy: how to mend it.
        fatal: whether evidence cannot be computed, or would be wrong, while it stands.
        cause: what a program raised, if that is the finding.
        line: where the site stands in the user's source, ``file:line``, of the guide and the model; ``""`` if unknown.
    """

    code: str
    site: str
    message: str
    remedy: str
    fatal: bool = True
    cause: BaseException | None = field(default=None, compare=False, repr=False)
    line: str = field(default="", compare=False)

    def __str__(self) -> str:
        place = f" ({self.line})" if self.line else ""
        where = f"{self.site}{place}: " if self.site else ""
        return f"[{self.code}] {where}{self.message}; {self.remedy}."


class ContractError(PairError):
    """A pair breaks the contract, in the way that its finding says."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def unmatched_sites(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """Findings where the model observes nothing, or a latent that is not enumerated is in one program only."""
    hidden, proposed = latents(model_trace), latents(guide_trace)
    if all(not site["is_observed"] for _, site in sample_sites(model_trace)):
        yield Finding(
            "no-observation", "", "the model observes nothing", "let it say pyro.sample('x', p(x|z), obs=x) of the data"
        )
    for name, site in hidden.items():
        if name not in proposed and not enumerated(site):
            discrete = getattr(site["fn"], "has_enumerate_support", False)
            way_out = (
                f"sample {name!r} in the guide, or sum it out with infer={{'enumerate': 'parallel'}}"
                if discrete
                else f"sample {name!r} in the guide"
            )
            yield Finding("only-in-model", name, "a latent of the model, which the guide does not sample", way_out)
    for name, site in proposed.items():
        if name in model_trace.nodes and model_trace.nodes[name]["is_observed"] and name not in hidden:
            yield Finding("observed", name, "the guide proposes what the model observes", "remove it from the guide")
        elif name not in model_trace.nodes and not site["infer"].get("is_auxiliary", False):
            yield Finding(
                "only-in-guide",
                name,
                "the guide samples it and the model knows nothing of it",
                "give both the same name, or mark it infer={'is_auxiliary': True}",
            )


def without_density(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """What leaves q(z|x) without a density of all latents: there is no evidence then, and training is possible."""
    hidden, proposed = latents(model_trace), latents(guide_trace)
    auxiliary = any(name not in model_trace.nodes for name in proposed)
    for name, drawn in proposed.items():
        if name not in hidden:
            continue
        prior = hidden[name]
        if enumerated(drawn) or enumerated(prior):
            continue
        if is_point_mass(drawn["fn"]):
            if not auxiliary:
                yield point_mass(name)
        elif not is_point_mass(prior["fn"]) and is_discrete(drawn["fn"]) != is_discrete(prior["fn"]):
            yield Finding(
                "discrete-or-not",
                name,
                "it is discrete in one program and continuous in the other (a relaxed or straight-through guide), so "
                "that the probability of the one over the density of the other is no weight",
                "give both a discrete distribution, or both a relaxed one; training by SVI is possible as it is",
            )
        elif masked_more(drawn, than=prior):
            yield Finding(
                "masked-in-guide",
                name,
                "it is masked in the guide and not in the model, so that the density of what was drawn is left out",
                "mask it in the model too, or in neither",
            )


def unnormalised(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """What makes p(x, z) no density: terms that are no distributions, and priors that are one everywhere."""
    integral = "what is estimated is the logarithm of its integral over z, not log p(x)"
    for name, site in sample_sites(model_trace):
        if is_factor(site):
            yield Finding(
                "unnormalised",
                name,
                f"pyro.factor in the model makes p(x, z) unnormalised: {integral}",
                "state the term as a distribution, or read the number as that integral",
                fatal=False,
            )
    proposed = latents(guide_trace)
    for name, site in latents(model_trace).items():
        if is_improper(site["fn"]):
            yield Finding(
                "unnormalised",
                name,
                f"its prior is one everywhere (ImproperUniform), so that p(x, z) is unnormalised: {integral}",
                "give it a distribution, or read the number as that integral, which no prior of its own scales",
                fatal=False,
            )
        if enumerated(site):  # whose poutine.mask counts for nothing, as in Pyro: the sum is over the prior
            unmasked = {**site, "mask": None}
            is_masked = masked(unmasked)
        else:
            is_masked = name in proposed and masked_more(site, than=proposed[name])
        if is_masked:
            yield Finding(
                "unnormalised",
                name,
                f"its prior is masked in the model and not in the guide, so that p(x, z) is unnormalised: {integral}",
                "mask it in the guide too, if it does not exist for these data; or read the number as that integral",
                fatal=False,
            )


def point_mass(name: str) -> Finding:
    """The finding that a guide has no density at a latent."""
    return Finding(
        "point-mass",
        name,
        "the guide puts it at a single point (Delta), so that q(z|x) has no density and log p(x, z) is not log p(x)",
        "give the guide a distribution with a density (AutoNormal instead of AutoDelta); training by SVI is possible "
        "as it is, and finds the maximum a posteriori",
    )


def random_densities() -> Finding:
    """The finding that densities change from run to run."""
    return Finding(
        "random",
        "",
        "the same latents get another density when the pair runs again",
        "draw every random number with pyro.sample, and let no run leave anything behind for the next",
    )
