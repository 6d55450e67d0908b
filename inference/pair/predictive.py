"""What a model predicts of its data given latents: E[x̃|z] and Var(x̃|z) by observed site, and whether z is all it takes.

Where a distribution does not know its moments, a draw stands for its mean and 0 for its variance. The mean and the
variance over many draws of z are those of the mixture all the same:

    E x̃ = E[E[x̃|z]],      Var x̃ = E[Var(x̃|z)] + Var(E[x̃|z]).

Enumerated sites are drawn from p(d|z, x) first. Context that the model observes is kept as it is given, and x alone is
predicted.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppvae.errors import PairError

from .arguments import Batch
from .distributions import bare, kind, left_out
from .entries import Entries
from .failures import described
from .layout import Tensors
from .pair import Pair
from .randomness import generator_kept
from .same_sites import demand_sites
from .sites import Frame, Values, demand_whole_event


class Predicted(NamedTuple):
    """What a model predicts given latents, by observed site, ``(num_draws, num_units, *plates, *event)`` each.

    Attributes:
        means: E[x̃|z].
        variances: Var(x̃|z).
        values: draws of x̃, and of the enumerated sites.
        unknown: names of the sites whose moments are not known, for which a draw stands.
    """

    means: Values
    variances: Values
    values: Values
    unknown: frozenset[str]


def predicted(pair: Pair, z: Values, num_draws: int) -> Predicted:
    """What a pair's model predicts at draws of its latents by site.

    Args:
        pair: the pair.
        z: draws of the latents, each ``num_draws`` or one for all; of enumerated and observed sites too, where they are
            not to be drawn.
        num_draws: how many draws.

    Raises:
        PairError: the model cannot be drawn from, or its data have no mean.
    """
    unknown: set[str] = set()
    z = {name: value.expand(num_draws, *value.shape[1:]) for name, value in z.items()}
    try:
        found = pair.run(partial(_body, pair, unknown), num_draws, z, pair.model_layout, random=True)
    except Exception as error:
        raise PairError(
            f"the model's data cannot be predicted, since they cannot be drawn ({described(error)}): let "
            "poutine.uncondition(model) run."
        ) from error
    parts: dict[str, Values] = {"mean": {}, "variance": {}, "value": {}}
    for key, value in found.items():
        part, _, name = key.partition(" ")
        parts[part][name] = value
    for name, mean in parts["mean"].items():
        if not bool(mean.isfinite().all()):
            raise PairError(
                f"{name!r} has no finite mean (as of a Cauchy, or of the number of a class): take draws of it instead, "
                "the group posterior_predictive of to_datatree."
            )
    return Predicted(parts["mean"], parts["variance"], parts["value"], frozenset(unknown))


def given_context(pair: Pair, entries: Entries, z: Values) -> Values:
    """What the observed sites show that show nothing of x, ``(1, num_units, ...)``; drawn where it is missing (NaN)."""
    names = [name for name, entry in entries.places.items() if bool((entry >= entries.sizes[0]).all())]
    if not names:
        return {}
    first = {name: value[:1] for name, value in z.items()}
    shown, drawn = pair.observations(first), predicted(pair, first, 1).values
    return {name: torch.where(shown[name].isnan(), drawn[name].to(shown[name]), shown[name]) for name in names}


def _body(pair: Pair, unknown: set[str], frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
    trace: Any = pair.programs.predicted(frame, batch, inputs)
    observed, out = pair.structure.observed, {}
    demand_sites(observed, trace)
    for name, site in (observed | pair.structure.classes).items():
        node = trace.nodes[name]
        demand_whole_event(name, node, site)
        out[f"value {name}"] = frame.by_unit(node["value"], site)
        if name in observed:
            mean, variance = _moments(node)
            if variance is None:
                unknown.add(name)
                mean, variance = node["value"], torch.zeros_like(node["value"])
            out[f"mean {name}"], out[f"variance {name}"] = (frame.by_unit(part, site) for part in (mean, variance))
    return out


def _moments(node: Any) -> tuple[Tensor, Tensor | None]:
    """The mean and the variance of a site in the shape of its value; the variance is None if either is not known."""
    value = node["value"]
    try:
        return node["fn"].mean.expand(value.shape), node["fn"].variance.expand(value.shape)
    except (NotImplementedError, AttributeError):
        return value, None


def demand_prior(pair: Pair) -> None:
    """Raise PairError if the model leaves out the density of all its latents, as an autoencoder's does."""
    few = pair.few
    with generator_kept():
        trace: Any = few.programs.seen(few.frame, few.batch)
    if pair.sites and all(bool(left_out(trace.nodes[name]).all()) for name in pair.sites):
        raise PairError(
            f"nothing can be drawn from the model, since the prior of {next(iter(pair.sites))!r} is masked and is no "
            "distribution: give it one that counts (a VAE in place of an autoencoder), or reconstruct data."
        )


# --- whether the latents are all that a prediction takes --------------------------------------------------------------


def demand_prediction(pair: Pair, cannot: str, *, apart: bool = False) -> None:
    """Raise PairError unless what the model draws depends on the latents alone, and not on the x that it is given.

    Args:
        pair: the pair; few of its data are looked at.
        cannot: what cannot be done otherwise, as a sentence begins with it.
        apart: whether no observed site may depend on another either, given the latents.
    """
    few = pair.few
    with generator_kept():
        z = few.guide_values(1)
        entries = Entries.of(few, z, cannot)
        z |= given_context(few, entries, z)
        drawn = predicted(few, z, 1)
        other = entries.put_back({name: value[0] for name, value in drawn.values.items()})[0]
        given = z | {name: drawn.values[name] for name in pair.structure.classes}
        seed = int(torch.randint(2**31, ()))
        here, there = (_from_seed(seed, one, given) for one in (few, few.with_leaves({0: other})))
        names = [name for name in pair.structure.observed if name not in z]
        for name in names:
            if not torch.equal(here.values[name], there.values[name]):
                raise PairError(
                    f"{cannot}, since {name!r} depends on the values of x: let the model read nothing from x but its "
                    "shape, and give what it conditions on as context, (x, *context)."
                )
        if apart and len(names) > 1:
            put = _from_seed(seed, few, given | drawn.values)
            for name in names:
                if name in put.unknown or not torch.equal(here.means[name], put.means[name]):
                    raise PairError(
                        f"{cannot}, since {name!r} depends on what else is observed, and not on the latents alone: "
                        "draw what is missing as a latent, or let the observed sites be independent given the latents."
                    )


def _from_seed(seed: int, pair: Pair, z: Values) -> Predicted:
    with generator_kept(seed):
        return predicted(pair, z, 1)


def demand_masked(pair: Pair, entries: Entries, missing: Tensor, cannot: str) -> None:
    """Raise PairError unless the model leaves out what is missing, and nothing that is seen says more of it than z.

    Args:
        pair: the pair on these data.
        entries: of the pair.
        missing: which numbers of x are missing, in the shape of x.
        cannot: what cannot be done otherwise, as a sentence begins with it.
    """
    joint: dict[str, tuple[str, int]] = {}
    with generator_kept():
        out = pair.run(partial(_left_out, pair, joint), 1, {}, "loop", random=True)
    for name, site in pair.structure.observed.items():
        gone = entries.at_site(name, missing, site.shape)
        if bool((gone & ~out[name][0].bool()).any()):
            raise PairError(
                f"{cannot}, since values of x are missing that the model does not mask at {name!r}: let it leave them "
                "out of the likelihood (poutine.mask, or .mask of the distribution)."
            )
        of, dims = joint[name]
        whole = gone.flatten(gone.dim() - dims) if dims else gone.unsqueeze(-1)
        if bool((whole.any(-1) & ~whole.all(-1)).any()):
            raise PairError(
                f"{cannot}, since {name!r} is {of}, whose numbers depend on each other given the latents, and some of "
                "them are seen: give a likelihood that is independent given the latents, or remove such data."
            )


def _left_out(pair: Pair, joint: dict[str, tuple[str, int]], frame: Frame, batch: Batch, inputs: Tensors) -> Tensors:
    """Which numbers of each observed site its density leaves out, as 0 and 1."""
    trace: Any = pair.programs.seen(frame, batch)
    found = {}
    for name, site in pair.structure.observed.items():
        node = trace.nodes[name]
        joint[name] = kind(node["fn"]), bare(node["fn"]).event_dim
        shape = torch.broadcast_shapes(node["value"].shape, node["fn"].shape())
        out = left_out(node)
        out = out.reshape((*out.shape, *(1,) * (len(node["fn"].shape()) - out.dim())))
        found[name] = frame.by_unit(out.expand(shape).double(), site)
    return found
