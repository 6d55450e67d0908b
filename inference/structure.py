"""The structure of a pair, read off one pair of traces: which sites stand where, and what is out of place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyro.poutine import Trace

from ppvae.errors import PairError, first_line

from .objective import enumerated
from .traces import FAILURES, Batch, Plates, Program, latents, plain_traces, plates_of, sample_sites


@dataclass(frozen=True)
class Finding:
    """One way in which a pair breaks the contract.

    Attributes:
        code: a short name of the rule.
        site: the sample site or parameter, or ``""`` where the whole pair is meant.
        message: what is wrong.
        remedy: how to mend it.
        fatal: whether evidence cannot be computed, or would be wrong, while it stands.
    """

    code: str
    site: str
    message: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        where = f"{self.site}: " if self.site else ""
        return f"[{self.code}] {where}{self.message}; {self.remedy}."


def sound_plates(model: Program, guide: Program, batch: Batch) -> Plates:
    """The plates of a pair whose structure allows weights.

    Raises:
        PairError: it does not: it cannot be run on the data, there is no data plate, or a site is out of place.
    """
    try:
        traces = plain_traces(model, guide, batch)
        plates = plates_of(model, guide, batch, traces)
    except FAILURES as error:
        if isinstance(error, PairError):
            raise
        raise PairError(f"the pair cannot be run on the data: {first_line(error)}") from error
    for finding in (*unmatched_sites(*traces), *outside_plate(plates, *traces)):
        raise PairError(str(finding))
    return plates


def unmatched_sites(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """Every latent stands in both programs, but for those that are enumerated."""
    hidden, proposed = latents(model_trace), latents(guide_trace)
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


def outside_plate(plates: Plates, model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """Every site stands inside the data plate."""
    names: dict[str, None] = {}
    for trace in (model_trace, guide_trace):
        for name, site in sample_sites(trace):
            if plates.data not in {frame.name for frame in site["cond_indep_stack"]}:
                names[name] = None
    for name in names:
        yield Finding(
            "outside-plate",
            name,
            f"it lies outside the data plate {plates.data!r}, so its density belongs to no single datum",
            "move it inside the plate, or make it a parameter (pyro.param)",
        )
