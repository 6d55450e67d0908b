"""The structure of a pair, read off one run of both programs: its unit, its plates, and the role of every site.

Roles. A *latent* is drawn by the model and proposed by the guide; a *summed* site is discrete and enumerated by either
program; an *auxiliary* site is drawn by the guide alone. What q(z|x) is made of:

- the densities of the latents that the guide draws, given whatever it drew before;
- where a latent is a point mass (Delta) at a function of auxiliary draws, as in Pyro's automatic guides, the density of
  those draws and the Delta's ``log_density``, which holds the Jacobian;
- nothing else: observed sites of the guide, ``pyro.factor`` and other auxiliary draws are left out. With a drawn first
  and z ~ q(z|a, x), the weight p(x, z)/q(z|a, x) has mean p(x) whatever a is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pyro.poutine import Trace
from torch import Tensor

from ppvae.errors import PairError

from .distributions import is_discrete, is_point_mass, masked, masked_more
from .sites import Plates, Site
from .traces import enumerated, is_factor, latents, observations, sample_sites

Unit = Literal["datum", "data set"]


@dataclass(frozen=True)
class Finding:
    """One way in which a pair breaks the contract.

    Attributes:
        code: a short name of the rule.
        site: the sample site or parameter, or ``""`` where the whole pair is meant.
        message: what is wrong.
        remedy: how to mend it.
        fatal: whether evidence cannot be computed, or would be wrong, while it stands.
        cause: what a program raised, if that is the finding.
    """

    code: str
    site: str
    message: str
    remedy: str
    fatal: bool = True
    cause: BaseException | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        where = f"{self.site}: " if self.site else ""
        return f"[{self.code}] {where}{self.message}; {self.remedy}."


class ContractError(PairError):
    """A pair breaks the contract, in the way that its finding says."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass(frozen=True)
class Structure:
    """The sites of a pair and where they stand.

    Attributes:
        plates: of the pair.
        latents: what the model draws and does not sum out, in the model's order.
        auxiliary: what the guide alone draws.
        observed: what the model observes.
        validated: names of the observed sites whose program does not say validate_args=False.
        summed: names of the sites that are enumerated.
        classes: those of them that the model has, and where they stand.
        guide_summed: those of them that the guide enumerates.
        unnormalised: what makes p(x, z) no density.
        without_density: what leaves q(z|x) without a density of all latents.
        points: latents that the guide puts at a function of auxiliary draws (Delta).
        sources: the auxiliary sites that they are functions of.
        missing: names of the observed sites whose values hold NaN that a mask leaves out.
        order: where the numbers of the sources stand in u, if they are those of u; else None.
    """

    plates: Plates
    latents: dict[str, Site]
    auxiliary: dict[str, Site]
    observed: dict[str, Site]
    summed: frozenset[str]
    validated: frozenset[str] = frozenset()
    classes: dict[str, Site] = field(default_factory=dict)
    guide_summed: frozenset[str] = frozenset()
    unnormalised: tuple[Finding, ...] = ()
    without_density: tuple[Finding, ...] = ()
    points: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    order: Tensor | None = None

    @property
    def unit(self) -> Unit:
        """What has an evidence of its own."""
        return "data set" if self.plates.data is None else "datum"

    @property
    def drawn(self) -> dict[str, Site]:
        """What the guide draws."""
        return self.latents | self.auxiliary

    @property
    def known(self) -> frozenset[str]:
        """Names of all sites of both programs."""
        return self.summed.union(self.latents, self.auxiliary, self.observed)

    @property
    def dim(self) -> int:
        """How many real numbers a unit's latents are."""
        return max((site.stop for site in self.latents.values()), default=0)


def find_plates(model_trace: Trace, guide_trace: Trace, num_rows: int) -> list[Plates]:
    """What the plates of a pair may be, read off its traces, the likeliest first.

    The data plate is a plate that holds every latent and every observation and has a place for each row of x. The last
    choice is that there is none.
    """
    held = [
        [site for _, site in sample_sites(trace) if of_model or not site["is_observed"]]
        for trace, of_model in ((model_trace, True), (guide_trace, False))
    ]
    frames = {
        frame
        for trace in (model_trace, guide_trace)
        for _, site in sample_sites(trace)
        for frame in site["cond_indep_stack"]
        if frame.vectorized
    }
    # A batch dim that no plate stands for counts as one: Pyro sums over it all the same.
    sites = [site for trace in (model_trace, guide_trace) for _, site in sample_sites(trace)]
    nesting = max([*(-frame.dim for frame in frames), *(len(site["fn"].batch_shape) for site in sites)], default=0)
    found = []
    for frame in sorted(frames, key=lambda f: (f.size == -1, -f.dim, f.name)):
        if frame.size in (num_rows, -1) and any(held) and all(_in_one_plate(sites, frame) for sites in held):
            found.append(Plates(frame.name, frame.dim, frame.size, nesting))
    return [*found, Plates(None, 0, 0, nesting)]


def _in_one_plate(sites: list[dict[str, Any]], like: Any) -> bool:
    """Whether all sites of a program stand in one plate of this dim and size, whatever the program calls it."""
    names = [{f.name for f in site["cond_indep_stack"] if (f.dim, f.size) == (like.dim, like.size)} for site in sites]
    return not names or bool(set.intersection(*names))


def unmatched_sites(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """The model observes something, and every latent stands in both programs, but for those that are enumerated."""
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
            yield Finding("only-in-model", name, "it is hidden in the model and the guide does not propose it", way_out)
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
    for name in hidden.keys() & proposed.keys():
        drawn, prior = proposed[name], hidden[name]
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


def observed_names(model_trace: Trace) -> list[str]:
    """What the model observes, ``pyro.factor`` left out."""
    return list(observations(model_trace))
