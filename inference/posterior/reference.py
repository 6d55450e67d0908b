"""Reference draws of the posterior, per datum, and whether their chains have converged.

Many Hamiltonian Monte Carlo chains per datum, those of all data side by side, move in the unconstrained coordinates u
of :mod:`ppvae.inference.pair`, or in those of a guide whose scales follow other latents, and are told in u. They start
over-dispersed, half of them from the prior and half from the guide with its deviations from its mean doubled, so that
chains which agree in the end have forgotten where they came from.

Warm-up tunes and is thrown away. At first each chain has a step size of its own, so that one which starts far out can
come in while others are there; then each datum has one. The mass matrix is dense: u = Lv with LLᵀ = Σ̂, the covariance
of what all chains of the datum have visited lately, shrunk to its diagonal, so that a linear-Gaussian posterior of any
correlation is round to the chains. (A datum has few latents, and its many chains give the thousands of states that
estimate d(d + 1)/2 numbers; the product Lv costs nothing beside a network. Above 200 coordinates Σ̂ is diagonal.) Then
all is frozen.

Draws of a datum are a *reference* where, over its coordinates and log p(x, u),

    R-hat < 1.01,    bulk and tail ESS > 400,    no divergence (|ΔH| > 1000 nats),    E-BFMI > 0.3.

A datum that fails, but not by far, is run once more from where its chains are: with Σ̂ from all its draws, smaller
steps, and every third state kept. Its earlier draws are discarded as warm-up, so that what is kept does not grow:
``num_chains · num_draws`` states of each datum. What fails again is marked, and is no reference.

A datum whose chains disagree (R-hat ≥ 1.1) has modes, and some of the chains may sit in one of no mass. It is started
anew: chains annealed from the prior and from the guide are pooled, and resampled by their weights
(:mod:`ppvae.inference.sampling.resampling`); these places are warmed up and run like a second attempt, with the same
limits. A mode gets chains in proportion to its mass, so that one of no mass is left, and modes that matter still
disagree where no chain crosses between them. So that none of these is lost by chance, draws that leave 0.5 % of the
weight behind are dropped, and the datum remains refused with its first ones.

The limits are those of the sources. They cannot see a mode that no chain has found: one that the guide misses and that
draws in a share s of the prior is overlooked with probability (1 − s)^(num_chains/2). Of a datum that was started anew
a mode can be lost that the first chains had found. If annealed weights give it the share m, it gets a chain for sure if
m ≥ 1/num_chains, and with probability m · num_chains below; a chain may leave it during the warm-up; and the weight
left behind is not seen if m < 0.005, or if, in many dimensions, the mode is no farther from the draws than these are
from one another. And m is an estimate: it is often half of the mass where no chain from the guide gets to the mode, and
less where a few weights dominate. Measured, with two modes of which the guide knows one, the new start lost the other
in 0 of 40, 0 of 38, 0 of 37 and 29 of 31 data where its mass was 21 %, 6.5 %, 2.8 % and 0.5 %. (Without any new
start it was lost in 0, 2, 2 and 8 of 40: no chain was in it any more when the draws that were accepted began.)

References:
    Rank-normalization, folding, and localization: An improved R-hat for assessing convergence of MCMC (Vehtari, Gelman,
    Simpson, Carpenter & Bürkner, 2021), arXiv:1903.08008: R-hat and ESS, and their limits.
    A Conceptual Introduction to Hamiltonian Monte Carlo (Betancourt, 2017), arXiv:1701.02434: divergences and E-BFMI,
    whose limits are Stan's.
    The No-U-Turn Sampler (Hoffman & Gelman, 2014), arXiv:1111.4246: a step size from the acceptance.
    Annealed Importance Sampling (Neal, 2001), arXiv:physics/9803008, and Sequential Monte Carlo Samplers (Del Moral,
    Doucet & Jasra, 2006), Journal of the Royal Statistical Society B 68: places by their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from ppvae.errors import PairError
from ppvae.progress import Progress

from ..options import valid_compute, whole_number
from ..pair import (
    Batch,
    Pair,
    Program,
    as_batch,
    finite_batch,
    in_guide_coordinates,
    seeded,
    where_parameters_are,
    why_slow,
)
from ..records import Summarised, of_data
from ..sampling import Kernel, annealed_places, covariance_factor, settle, starts, walk, warm_up
from .chain_agreement import in_u, judged

if TYPE_CHECKING:
    import xarray as xr

RHAT_LIMIT, ESS_LIMIT, EBFMI_LIMIT = 1.01, 400, 0.3
# With a larger R-hat chains are started anew; with a larger share of transitions that diverge nothing would help.
HOPELESS_RHAT, HOPELESS_SHARE = 1.1, 0.05
# Chains that were started anew may leave so much of the weight behind.
LEFT_BEHIND = 0.005


class Attempt(NamedTuple):
    """How an attempt runs: the acceptance that it aims at, and the transitions for each state that it keeps."""

    acceptance: float
    every: int


FIRST, SECOND = Attempt(0.8, 1), Attempt(0.98, 3)


@dataclass(frozen=True, repr=False)
class Posterior(Summarised):
    """Draws of every datum's posterior, and the diagnostics of their chains.

    Attributes:
        draws: by site ``(num_chains, num_draws, num_data, *plates inside the datum, *event)``, in the site's support.
        unconstrained: the same as u, ``(num_chains, num_draws, num_data, dim)``.
        log_joint: log p(x, u) there, with the Jacobian, ``(num_chains, num_draws, num_data)``, float64, in nats.
        coordinates: names of the ``dim`` coordinates of u.
        rhat: the largest rank-normalised split R-hat, over coordinates and ``log_joint``, ``(num_data,)``.
        ess_bulk: the smallest bulk ESS over the same, ``(num_data,)``.
        ess_tail: the smallest tail ESS, ``(num_data,)``.
        divergences: how many transitions diverged, ``(num_data,)``.
        ebfmi: the smallest E-BFMI over the chains, ``(num_data,)``.
        acceptance: mean acceptance, ``(num_data,)``.
        thinning: transitions per draw that is kept, ``(num_data,)``.
    """

    printed: ClassVar = "num_data num_chains num_draws converged rhat_max ess_bulk_min divergences"

    draws: dict[str, Tensor]
    unconstrained: Tensor
    log_joint: Tensor
    coordinates: tuple[str, ...]
    rhat: Tensor
    ess_bulk: Tensor
    ess_tail: Tensor
    divergences: Tensor
    ebfmi: Tensor
    acceptance: Tensor
    thinning: Tensor

    @property
    def converged(self) -> Tensor:
        """Whether a datum's draws are a reference, ``(num_data,)`` bool: the limits of the module, all of them."""
        return _converged({name: getattr(self, name) for name in PER_DATUM})

    def rows(self, index: slice | Sequence[int] | Tensor) -> Posterior:
        """The draws of some data, such as ``posterior.rows(posterior.converged)``."""
        return replace(
            self,
            draws={name: value[:, :, index] for name, value in self.draws.items()},
            unconstrained=self.unconstrained[:, :, index],
            log_joint=self.log_joint[:, :, index],
            **{name: getattr(self, name)[index] for name in PER_DATUM},
        )

    def summary(self) -> dict[str, float]:
        """How many data converged, and the worst of each diagnostic over all data."""
        chains, draws, data = self.log_joint.shape
        return {
            "num_data": data,
            "num_chains": chains,
            "num_draws": draws,
            "converged": int(self.converged.sum()),
            "rhat_max": float(self.rhat.max()),
            "ess_bulk_min": float(self.ess_bulk.min()),
            "ess_tail_min": float(self.ess_tail.min()),
            "divergences": int(self.divergences.sum()),
            "ebfmi_min": float(self.ebfmi.min()),
        }

    def remarks(self) -> list[str]:
        """Remarks on the draws, a sentence each; empty when there are none."""
        n = len(self.rhat)
        reasons = {
            f"R-hat is not below {RHAT_LIMIT} (their chains disagree, as with modes far apart)": ~(
                self.rhat < RHAT_LIMIT
            ),
            f"ESS is not above {ESS_LIMIT} (they move too slowly)": ~(
                torch.minimum(self.ess_bulk, self.ess_tail) > ESS_LIMIT
            ),
            "trajectories diverged (the density bends too sharply somewhere, as in a funnel)": self.divergences > 0,
            f"E-BFMI is not above {EBFMI_LIMIT} (their energies differ too much, as in a heavy tail)": ~(
                self.ebfmi > EBFMI_LIMIT
            ),
        }
        bad = int((~self.converged).sum())
        if not bad:
            return []
        first = f"the draws of {of_data(bad, n)} are no reference, and nothing is compared with them"
        counted = [f"{reason}: {int(which.sum())} of {n}" for reason, which in reasons.items() if which.any()]
        return [f"{first}; {'; '.join(counted)}. More draws or a longer warm-up may help."]

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """What is known of each datum's chains, ``(num_data,)`` each, by name; ``converged`` is among it."""
        return {name: getattr(self, name) for name in (*PER_DATUM, "converged")}

    def to_dataset(self) -> xr.Dataset:
        """The diagnostics as an xarray Dataset with dim ``datum``; the whole goes to ``to_datatree(draws=...)``."""
        import xarray as xr

        return xr.Dataset(
            {name: (("datum",), value.numpy()) for name, value in self.diagnostics.items()},
            coords={"datum": range(len(self.rhat))},
            attrs={"num_chains": self.log_joint.shape[0], "num_draws": self.log_joint.shape[1]},
        )


PER_DATUM = tuple(
    f.name for f in fields(Posterior) if f.name not in {"draws", "unconstrained", "log_joint", "coordinates"}
)


def sample_posterior(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    num_draws: int = 500,
    num_chains: int = 16,
    warm_up: int = 300,
    num_steps: int | None = None,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> Posterior:
    """Draw from the posterior of every datum by Hamiltonian Monte Carlo, and judge the draws.

    Args:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``; half of the chains start from it, and some of the places from which
            chains start anew come from it; nothing else depends on it.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``.
        num_draws: states kept of each chain.
        num_chains: independent chains per datum, at least 4.
        warm_up: transitions of each chain that tune and are thrown away.
        num_steps: leapfrog steps of a transition; None takes as many as make a quarter of a Gaussian's period.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; what is kept comes on top, twice
            ``num_chains · num_draws · num_data · dim`` numbers.
        progress: show a progress bar with the time that remains.

    Returns:
        Posterior: the draws by site, with ``converged``, ``(num_data,)``: only there are they a reference.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, or a latent has no density on a continuum (see
            :meth:`ppvae.inference.pair.Pair.on`).

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=3, latent_dim=2)
        >>> x = torch.randn(4, 3)
        >>> posterior = sample_posterior(pair.model, pair.guide, x, num_draws=250, warm_up=100, seed=0)
        >>> posterior.converged
        tensor([True, True, True, True])
        >>> posterior.draws["z"].shape
        torch.Size([16, 250, 4, 2])
        >>> error = posterior.draws["z"].mean((0, 1)) - pair.posterior(x).mean
        >>> bool((error.abs() < 0.1).all())
        True
    """
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    num_draws, num_chains = whole_number("num_draws", num_draws, 20), whole_number("num_chains", num_chains, 4)
    transitions = whole_number("warm_up", warm_up, 20)
    num_steps = None if num_steps is None else whole_number("num_steps", num_steps)
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    run, parts = ChainLengths(num_draws, num_chains, transitions, num_steps, memory_mb), []
    with seeded(seed), Pair.on(model, guide, batch, start="guide") as pair:
        shapes = {name: site.shape for name, site in pair.sites.items()}
        if pair.dim == 0:
            raise PairError("the model has no latent on a continuum, and nothing is to be drawn: give one that has.")
        moved = in_guide_coordinates(pair)
        total = pair.num_units * num_chains * (transitions + num_draws)
        with Progress("posterior", total, "transitions", progress, why_slow(pair)) as bar:
            for data in pair.pieces(num_chains, memory_mb):
                parts.append(_attempts(moved.rows(data), run, bar))
        record = {n: torch.cat([part[n] for part in parts], 0 if n in PER_DATUM else 2) for n in parts[0]}
        if moved.by_guide:
            record |= in_u(moved, record, memory_mb)
        draws = _constrained(pair, record["unconstrained"], shapes, memory_mb)
    return Posterior(draws=draws, coordinates=coordinate_names(pair, shapes), **record)


class ChainLengths(NamedTuple):
    """How long the chains run; see :func:`sample_posterior`."""

    num_draws: int
    num_chains: int
    warm_up: int
    num_steps: int | None
    memory_mb: float


def _attempts(pair: Pair, run: ChainLengths, bar: Progress) -> dict[str, Tensor]:
    """The draws of some data, of those that fail a second time, and how they fared."""
    after_each = partial(bar.advance, pair.num_units * run.num_chains)
    u, kernel = starts(pair, run.num_chains, run.num_steps)
    u, kernel = warm_up(pair, u, kernel, run.warm_up, FIRST.acceptance, after_each)
    found = walk(pair, u, kernel, run.num_draws, FIRST.every, after_each)
    record = judged(found, FIRST.every)
    near = _curable(record) & (record["rhat"] < HOPELESS_RHAT)
    if near.any():
        index, states = near.nonzero()[:, 0], found.u[:, :, near]
        kernel = kernel.rows(index.to(u.device))._replace(factor=covariance_factor(states.flatten(0, 1)).to(u))
        _put(record, _second(pair.rows(index), states[:, -1].to(u), kernel, run, bar), index)
    apart = _curable(record) & ~(record["rhat"] < HOPELESS_RHAT)
    if apart.any():
        _anew(pair, run, bar, record, apart.nonzero()[:, 0])
    return record


def _curable(record: dict[str, Tensor]) -> Tensor:
    """Which data are no reference but may become one: where too many transitions diverge, more do not help."""
    transitions = record["log_joint"][..., 0].numel() * record["thinning"]
    return ~_converged(record) & (record["divergences"] < HOPELESS_SHARE * transitions)


def _anew(pair: Pair, run: ChainLengths, bar: Progress, record: dict[str, Tensor], index: Tensor) -> None:
    """Start the chains of some data anew, where weights place them; what leaves weight behind is not recorded."""
    places = annealed_places(pair.rows(index), run.num_chains, run.memory_mb)
    index, places = index[places.found], places.rows(places.found)
    if not len(index):
        return
    part = pair.rows(index)
    _, kernel = starts(part, run.num_chains, run.num_steps)
    u = places.starts(run.num_chains).to(kernel.factor.device)
    u, kernel = warm_up(part, u, kernel, run.warm_up, FIRST.acceptance, _again(part, run, bar, run.warm_up))
    second = _second(part, u, kernel, run, bar)
    kept = places.left_behind(second["unconstrained"]) < LEFT_BEHIND
    _put(record, _rows(second, kept), index[kept])


def _second(part: Pair, u: Tensor, kernel: Kernel, run: ChainLengths, bar: Progress) -> dict[str, Tensor]:
    """The second attempt of some data, from chains that are warm: smaller steps, and fewer of the states."""
    after_each = _again(part, run, bar, run.warm_up + SECOND.every * run.num_draws)
    kernel = kernel._replace(num_steps=run.num_steps)
    u, kernel = settle(part, u, kernel, run.warm_up, SECOND.acceptance, after_each)
    return judged(walk(part, u, kernel, run.num_draws, SECOND.every, after_each), SECOND.every)


def _again(part: Pair, run: ChainLengths, bar: Progress, transitions: int) -> Callable[[], None]:
    """Add these transitions of some data, which failed, to what is to be done; what is called after each of them."""
    each = part.num_units * run.num_chains
    bar.extend(each * transitions)
    return partial(bar.advance, each, "again, for those that failed")


def _converged(judged: dict[str, Tensor]) -> Tensor:
    mixed = (judged["rhat"] < RHAT_LIMIT) & (torch.minimum(judged["ess_bulk"], judged["ess_tail"]) > ESS_LIMIT)
    return mixed & (judged["divergences"] == 0) & (judged["ebfmi"] > EBFMI_LIMIT)


def _rows(record: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """What is known of some data."""
    return {name: value[index] if name in PER_DATUM else value[:, :, index] for name, value in record.items()}


def _put(record: dict[str, Tensor], part: dict[str, Tensor], index: Tensor) -> None:
    """Put what is known of some data into the whole."""
    for name, value in part.items():
        if name in PER_DATUM:
            record[name][index] = value
        else:
            record[name][:, :, index] = value


def _constrained(
    pair: Pair, unconstrained: Tensor, shapes: dict[str, tuple[int, ...]], memory_mb: float
) -> dict[str, Tensor]:
    """The draws by site, each in its support."""
    chains, draws, num_data, _ = unconstrained.shape
    u = unconstrained.flatten(0, 1)
    out: dict[str, Tensor] = {}
    for data, states in pair.chunks(len(u), memory_mb, gradient=True):
        where = pair.device
        for name, value in pair.rows(data).constrained(u[states, data].to(where)).items():
            if name not in out:
                out[name] = torch.empty((len(u), num_data, *shapes[name]), dtype=value.dtype)
            out[name][states, data] = value.reshape(*value.shape[:2], *shapes[name]).cpu()
    return {name: value.unflatten(0, (chains, draws)) for name, value in out.items()}


def coordinate_names(pair: Pair, shapes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """A name for each coordinate of u: the site's, with an index where its values are not scalars."""
    names: list[str] = []
    for site, slot in pair.sites.items():
        names += [f"{site}[{j}]" for j in range(slot.stop - slot.start)] if shapes[site] else [site]
    return tuple(names)
