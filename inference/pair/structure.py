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

from dataclasses import dataclass, field
from typing import Any, Literal

from pyro.poutine import Trace
from torch import Tensor

from .contract import Finding
from .sites import Plates, Site
from .traces import observations, sample_sites

Unit = Literal["datum", "data set"]


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
        expanded: those of them whose values get the shape of the plates, as a program asks (``"expand": True``).
        classes: those of them that the model has, and where they stand.
        guide_summed: those of them that the guide enumerates.
        unnormalised: what makes p(x, z) no density.
        weighted: names of the model's sites that ``poutine.scale`` weights.
        otherwise: how the data are observed otherwise than once and as they are.
        without_density: what leaves q(z|x) without a density of all latents.
        improper: latents whose prior is one everywhere, so that it cannot be drawn from.
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
    expanded: frozenset[str] = frozenset()
    classes: dict[str, Site] = field(default_factory=dict)
    guide_summed: frozenset[str] = frozenset()
    unnormalised: tuple[Finding, ...] = ()
    weighted: tuple[str, ...] = ()
    otherwise: tuple[Finding, ...] = ()
    without_density: tuple[Finding, ...] = ()
    improper: frozenset[str] = frozenset()
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


def observed_names(model_trace: Trace) -> list[str]:
    """What the model observes, ``pyro.factor`` left out."""
    return list(observations(model_trace))
