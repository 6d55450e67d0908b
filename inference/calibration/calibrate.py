"""Calibration: the guide's draws against exact draws of the posterior, on data drawn from the model.

A pair of draws u* ~ p(u), x' ~ p(x|u*) is at the same time u* ~ p(u|x'). If the guide is the posterior, u* is one more
draw of it, and its rank among draws u_k ~ q(u|x') is uniform. One amortised guide serves all simulations; nothing is
fitted again. Beside the ranks (:mod:`ppvae.inference.calibration.ranks`, :mod:`ppvae.inference.calibration.view`) the
log weights log w(u) = log p(x', u) − log q(u|x') give the divergence, with log p(x') cancelling,

    E[log w(u*) − log w(u_k)] = E[EUBO − ELBO] = E_{p(x')}[KL(p ‖ q) + KL(q ‖ p)].

**Two views.** Data from the prior can lie where no datum lies, and an amortised guide was never trained there. The
second view draws its simulations near the data x: with r a Gaussian mixture fitted to the guide's draws at x,

    u* ~ r(u),      x' ~ p(x|u*),      so that u* ~ r(u) p(x'|u)/p_r(x') ∝ v(u) p(u|x'),    v(u) = r(u)/p(u).

Its exact draws are not of the posterior but of the posterior under r, and the guide is compared with that after it is
weighted likewise, q_r(u|x') ∝ v(u) q(u|x'). If q(u|x') is the posterior then q_r is the posterior under r, and given
the set {u*, u_1 … u_K} each member is u* with probability ∝ its v: ranks in which draws count by v are uniform. (To
weight the *simulations* by p(u*)/r(u*) would be right too, but leads back to the first view and its question.)

Exact: in both views the ranks, and with them the risk of faulting a guide that is right, for every K, whatever r is;
it is 5 % in all, each of two views being held to half of it. Exact too: the first view's divergence. Not exact: the
second view's divergence, which is that of q_r from the posterior under r, with a bias of order 1/ESS, as a mean over v
is divided by a mean; and "near the data", which is as near as r and the model allow. It is a statement about the region
that the data occupy, and about no single datum. A fault has another size there than in the first view, since v weights
the guide and the posterior alike towards r. Power is lost as v varies over a posterior: the effective number of draws
(Σv)²/Σv² and the power that is left are stated. At the data themselves there are no exact draws; ELBO and gap of the
guide, from as many draws, say how far the simulations are from them.

References:
    Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts et al., 2018), arXiv:1804.06788.
    An Easy to Interpret Diagnostic for Approximate Inference: Symmetric Divergence Over Simulations (Domke, 2021),
    arXiv:2103.01030.
    From Variational to Deterministic Autoencoders (Ghosh, Sajjadi, Vergari, Black & Schölkopf, 2020),
    arXiv:1903.12436: simulations from a mixture fitted to the codes lie nearer to the data than those from the prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from ppvae.errors import NonFiniteError, PairError
from ppvae.progress import Progress

from ..options import one_of, valid_compute, whole_number
from ..pair import Batch, Pair, Program, as_batch, finite_batch, seeded, where_parameters_are, why_slow
from ..records import Summarised
from ..sampling import LogDensity, aggregate
from .ranks import TESTS, normalised, weighted_pit
from .simulation import Simulation, drawn, unit_names
from .view import JOINT, LEVEL, Anchor, View, mean_and_error

if TYPE_CHECKING:
    import xarray as xr

# Gaps count as different when the larger is this many times the smaller, by three standard errors.
FARTHER = 1.5
# Below this power a view that finds nothing says nothing.
BLIND = 0.5


@dataclass(frozen=True, repr=False)
class Calibration(Summarised):
    """How a guide did on simulated data, from the prior and near the data.

    Attributes:
        prior: the simulations from the prior; None if they were not asked for.
        data: the simulations near the data; None if they were not asked for.
        given_elbo: the guide's ELBO at the data themselves, ``(num_given,)``, in nats; None without ``data``.
        given_gap: their log (1/K) Σ w − ELBO, from as many draws as in the views, ``(num_given,)``.
    """

    printed: ClassVar = "verdict"

    prior: View | None
    data: View | None
    given_elbo: Tensor | None = None
    given_gap: Tensor | None = None

    @property
    def views(self) -> tuple[View, ...]:
        """Those there are, the prior's first."""
        return tuple(view for view in (self.prior, self.data) if view is not None)

    @property
    def verdict(self) -> str:
        """One of "calibrated", "bad on the data", "bad away from the data", "bad", "cannot tell".

        "bad": at fault on simulations from the prior, and near the data nothing was asked or could have been found.
        """
        on_prior = self.prior is not None and self.prior.faulty
        if self.data is None:
            blind = self.prior is not None and max(self.prior.stated_power) < BLIND
            return "bad" if on_prior else "cannot tell" if blind else "calibrated"
        if self.data.faulty:
            return "bad on the data"
        if max(self.data.stated_power) < BLIND:
            return "bad" if on_prior else "cannot tell"
        return "bad away from the data" if on_prior else "calibrated"

    def farther(self, view: View) -> float:
        """Mean gap on a view's simulations over that at the data: above 1, the guide does worse on the simulations.

        1 where three standard errors of the difference hide it.
        """
        assert self.given_gap is not None
        (ours, error), (given, given_error) = mean_and_error(view.gap), mean_and_error(self.given_gap)
        if not abs(ours - given) > 3 * (error**2 + given_error**2) ** 0.5:
            return 1.0
        return max(ours, 0.0) / max(given, 1e-12)

    def summary(self) -> dict[str, float | str]:
        """``verdict``; each view's summary, its names after ``prior_`` or ``data_``; ``given_elbo``, ``given_gap``."""
        out: dict[str, float | str] = {"verdict": self.verdict}
        for view in self.views:
            out |= {f"{view.anchor}_{name}": value for name, value in view.summary().items()}
        for name in ("elbo", "gap"):
            values = getattr(self, f"given_{name}")
            if values is not None and len(values) > 1:
                out[f"given_{name}"], out[f"given_{name}_standard_error"] = mean_and_error(values)
        return out

    def remarks(self) -> list[str]:
        """The verdict in a sentence, then what each view says."""
        power = min((p for view in self.views for p in view.stated_power), default=0.0)
        sentences = {
            "calibrated": f"no fault was found in the guide (a scale of 0.8 or a bias of 0.25 sd in one unit would be, "
            f"with probability {power:.2f} or more).",
            "bad on the data": "the guide is not the posterior on simulations near the data: it is bad on the data.",
            "bad away from the data": "the guide is at fault on simulations from the prior and not on those near the "
            "data: the fault lies where the data are not.",
            "bad": "the guide is not the posterior on simulations from the prior; whether it is on the data, these "
            "simulations cannot tell.",
            "cannot tell": "no fault was found, and hardly any could have been: give more simulations or more draws.",
        }
        out = [sentences[self.verdict]]
        if self.given_gap is not None and len(self.given_gap) > 1:
            out += [self._distance(view) for view in self.views]
        return out + [remark for view in self.views for remark in view.remarks()]

    def _distance(self, view: View) -> str:
        """How the guide's gap on simulations compares with that at the data."""
        assert self.given_gap is not None
        ratio = self.farther(view)
        source = {"prior": "simulations from the prior", "data": "simulations near the data"}[view.anchor]
        (ours, error), (given, given_error) = mean_and_error(view.gap), mean_and_error(self.given_gap)
        figures = (
            f"by {view.num_draws} draws, the gap is {ours:.2g} ± {error:.1g} nats on them, {given:.2g} ± "
            f"{given_error:.1g} at the data"
        )
        if ratio > FARTHER:
            return f"{source} are far from the data for the guide ({figures}): it does better at the data."
        if ratio < 1 / FARTHER:
            return f"{source} are easier for the guide than the data ({figures}): it does worse at the data."
        return f"{source} are within a factor {FARTHER} as hard for the guide as the data ({figures})."

    def to_dataset(self) -> xr.Dataset:
        """As an xarray Dataset with dims ``view``, ``simulation``, ``unit``, ``joint`` and ``test``."""
        import xarray as xr

        views = self.views
        per_simulation = ("symmetric_kl", "elbo", "gap", "ess")
        variables: dict[str, tuple[tuple[str, ...], Any]] = {
            "pit": (("view", "simulation", "unit"), np.stack([v.pit.numpy() for v in views])),
            "joint_pit": (("view", "simulation", "joint"), np.stack([v.joint_pit.numpy() for v in views])),
            "adjusted_p": (("view", "unit", "test"), np.stack([v.adjusted[0].numpy() for v in views])),
            "joint_adjusted_p": (("view", "joint"), np.stack([v.adjusted[1].numpy() for v in views])),
            "verdict": (("view", "unit"), [list(v.verdict) for v in views]),
        }
        variables |= {
            n: (("view", "unit"), np.stack([getattr(v, n).numpy() for v in views])) for n in ("bias", "width")
        }
        for name in per_simulation:
            variables[name] = (("view", "simulation"), np.stack([getattr(v, name).numpy() for v in views]))
        coords: dict[str, Any] = {
            "view": [v.anchor for v in views],
            "simulation": range(views[0].num_simulations),
            "unit": list(views[0].unit),
            "joint": list(JOINT),
            "test": list(TESTS),
        }
        if self.given_gap is not None and self.given_elbo is not None:
            variables |= {"given_elbo": (("given",), self.given_elbo.numpy())}
            variables |= {"given_gap": (("given",), self.given_gap.numpy())}
        attrs = {"verdict": self.verdict, "num_draws": views[0].num_draws, "level": views[0].level}
        dataset = xr.Dataset(variables, coords=coords, attrs=attrs)
        for name in ("symmetric_kl", "elbo", "gap", "given_elbo", "given_gap"):
            if name in dataset:
                dataset[name].attrs["units"] = "nats"
        return dataset

    def to_pit(self) -> xr.DataTree:
        """PIT values for ``arviz_plots.plot_ecdf_pit(tree, group="prior_sbc", ci_prob=tree.attrs["ci_prob"])``.

        A group for each view, ``prior_sbc`` and ``data_sbc``, with variables ``pit`` (dim ``unit``) and ``joint`` (dim
        ``quantity``) over ``chain`` and ``draw``, a draw being a simulation. ``ci_prob`` is 1 − 0.05/(number of
        panels): with it a guide that is right leaves any of a group's bands with probability 0.05 at most. From ArviZ
        1.0 on the argument is ``envelope_prob``, the level of a test that is written beside each panel.
        """
        import xarray as xr

        groups: dict[str, Any] = {}
        for view in self.views:
            groups[f"{view.anchor}_sbc"] = xr.Dataset(
                {
                    "pit": (("chain", "draw", "unit"), view.pit.numpy()[None]),
                    "joint": (("chain", "draw", "quantity"), view.joint_pit.numpy()[None]),
                },
                coords={
                    "chain": [0],
                    "draw": range(view.num_simulations),
                    "unit": list(view.unit),
                    "quantity": list(JOINT),
                },
            )
        panels = len(self.views[0].unit) + len(JOINT)
        tree = xr.DataTree.from_dict(groups)
        tree.attrs["ci_prob"] = 1 - LEVEL / panels
        return tree


def calibrate(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    anchor: Literal["prior", "data", "both"] = "both",
    num_simulations: int = 1000,
    num_draws: int = 100,
    seed: int | None = None,
    memory_mb: float = 64.0,
    progress: bool = False,
) -> Calibration:
    """Compare a guide with exact draws of the posterior, on data simulated from the prior and near the data.

    Args:
        model: ``model(x, *context)``, the generative program; its data must be drawable (see
            :func:`ppvae.inference.calibration.simulation.simulate`).
        guide: ``guide(x, *context)``; its latents all live on a continuum.
        x: data, first dimension ``num_data``; or a tuple ``(x, *context)``. Contexts are used in turn; simulations from
            the prior take no more from it than its shape and context.
        anchor: where simulations come from: ``"prior"``, ``"data"``, the guide's draws at x, or ``"both"``.
        num_simulations: M of each view, at least 20.
        num_draws: draws of the guide for each, K, at least 2.
        seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
        memory_mb: budget in MiB for one pass of the pair; M·(K + 1) weights of each view come on top.
        progress: show a progress bar with the time that remains.

    Returns:
        Calibration: with a :class:`~ppvae.inference.calibration.view.View` for each source.

    Raises:
        OptionError: an option has a value that cannot be used.
        DataError: ``x`` is not a tensor of at least one datum, or it holds NaN or infinite values.
        PairError: the pair breaks the contract, has a latent without a density on a continuum (see
            :meth:`ppvae.inference.pair.Pair.on`), or no data can be drawn from the model; or simulations near the
            data are asked of a model that sums discrete sites out.

    Example:
        A guide half as wide as it should be:

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair = LinearGaussian(num_features=5, latent_dim=2).set_exact_guide()
        >>> x = torch.randn(100, 5)
        >>> calibrate(pair.model, pair.guide, x, num_simulations=300, seed=0).verdict
        'calibrated'
        >>> with torch.no_grad():
        ...     _ = pair.guide_log_scale.sub_(0.7)
        >>> calibration = calibrate(pair.model, pair.guide, x, num_simulations=300, seed=0)
        >>> calibration.verdict, calibration.prior.verdict
        ('bad on the data', ('too narrow', 'too narrow'))
    """
    anchor = one_of("anchor", anchor, (*get_args(Anchor), "both"))
    num_simulations = whole_number("num_simulations", num_simulations, least=20)
    num_draws = whole_number("num_draws", num_draws, least=2)
    seed, memory_mb, progress = valid_compute(seed, memory_mb, progress)
    batch = where_parameters_are(model, guide, finite_batch(as_batch(x)))
    anchors: tuple[Anchor, ...] = get_args(Anchor) if anchor == "both" else (anchor,)
    job = SimulatedData(num_simulations, num_draws, memory_mb, LEVEL / len(anchors))
    views: dict[str, View] = {}
    given: dict[str, Tensor] = {}
    with seeded(seed), Pair.on(model, guide, batch, start="prior") as pair:
        if pair.dim == 0:
            raise PairError(
                "the model has no latent on a continuum, so that it has no ranks to test: `latent_units` and "
                "`attribute_gap` take any pair."
            )
        total = num_simulations * num_draws * len(anchors)
        with Progress("calibration", total, "draws", progress, why_slow(pair)) as bar, torch.no_grad():
            for name in anchors:
                views[name] = job.from_prior(pair, bar) if name == "prior" else job.near_data(pair, bar)
        if "data" in views:
            given = job.at_data(pair)
    return Calibration(views.get("prior"), views.get("data"), **given)


@dataclass(frozen=True)
class SimulatedData:
    """How data are simulated for a calibration; see :func:`calibrate`."""

    num_simulations: int
    num_draws: int
    memory_mb: float
    level: float = LEVEL

    def from_prior(self, pair: Pair, bar: Progress) -> View:
        """Simulations from p(u) p(x|u)."""
        return self._view("prior", self.pairs(pair, None), None, bar)

    def near_data(self, pair: Pair, bar: Progress) -> View:
        """Simulations from r(u) p(x|u)."""
        if pair.summed:
            raise PairError(
                f"simulations near the data cannot be drawn from a model that sums {sorted(pair.summed)[0]!r} out: "
                "give anchor='prior'."
            )
        u, log_r = aggregate(pair, self.num_simulations, self.memory_mb)
        return self._view("data", self.pairs(pair, u), log_r, bar)

    def at_data(self, pair: Pair) -> dict[str, Tensor]:
        """ELBO and gap at the data themselves, at most ``num_simulations`` of them."""
        index = torch.randperm(pair.num_units)[: self.num_simulations].sort().values
        some = pair.rows(index) if len(index) < pair.num_units else pair
        log_w = some.gathered_log_weights(self.num_draws, self.memory_mb)
        return {"given_elbo": log_w.mean(0), "given_gap": _gap(log_w)}

    def pairs(self, pair: Pair, u: Tensor | None) -> list[tuple[Pair, Tensor]]:
        """Pairs on simulated data, and the exact draw of every unit, ``(num_units, dim)``; from u, if it is given."""
        if pair.divisible:
            like = pair.rows(torch.arange(self.num_simulations) % pair.num_units)
            units = [units for units, _ in like.chunks(1, self.memory_mb, gradient=True)]
            return [_joined(like, [_simulation(like.rows(some), u, some) for some in units], u)]
        starts = range(0, self.num_simulations, pair.num_units)
        slices = [slice(start, min(start + pair.num_units, self.num_simulations)) for start in starts]
        parts = [(pair.rows(slice(0, some.stop - some.start)), some) for some in slices]
        return [_joined(part, [_simulation(part, u, some)], None if u is None else u[some]) for part, some in parts]

    def _view(
        self, anchor: Anchor, simulated: list[tuple[Pair, Tensor]], log_r: LogDensity | None, bar: Progress
    ) -> View:
        """The guide's draws at every simulation, and where among them the exact one stands."""
        parts: list[dict[str, Tensor]] = []
        held: list[tuple[Tensor, ...]] = []
        for pair, exact in simulated:
            for data, draws in pair.chunks(self.num_draws, self.memory_mb, gradient=True):
                part = pair.rows(data)
                if draws.start == 0:
                    held = [_evaluated(part, exact[None, data], log_r)]
                held.append(_evaluated(part, part.draw("guide", draws.stop - draws.start), log_r))
                bar.advance((draws.stop - draws.start) * part.num_units)
                if draws.stop == self.num_draws:
                    parts.append(_compared(*(torch.cat(pieces) for pieces in zip(*held, strict=True))))
        every = {name: torch.cat([p[name] for p in parts], -1 if name == "weights" else 0) for name in parts[0]}
        return View(anchor, unit_names(simulated[0][0]), **every, level=self.level)


def _simulation(pair: Pair, u: Tensor | None, units: slice) -> Simulation:
    """One simulation for each unit of a pair, from latents u if they are given."""
    return drawn(pair, None if u is None else pair.constrained(u[None, units].to(pair.device)))


def _joined(like: Pair, parts: list[Simulation], u: Tensor | None) -> tuple[Pair, Tensor]:
    """The pair on simulated data, and the exact draws."""
    made = zip(like.arguments.by_row, *(tree_flatten(part.batch)[0] for part in parts), strict=True)
    pair = like.with_leaves({i: torch.cat(leaves) for i, (by_row, *leaves) in enumerate(made) if by_row})
    if u is not None:
        return pair, u
    latents = {name: torch.cat([part.latents[name] for part in parts], 1) for name in parts[0].latents}
    return pair, pair.unconstrained(latents, 1)[0]


def _evaluated(pair: Pair, u: Tensor, log_r: LogDensity | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u, log p(x, u), log w(u) and log v(u), the last three ``(num_draws, num_data)``, on the CPU."""
    log_q, log_prior, log_joint = pair.ends(u).cpu()
    log_v = torch.zeros_like(log_prior) if log_r is None else log_r(u.cpu()) - log_prior
    return u.cpu(), log_joint, log_joint - log_q, log_v


def _compared(u: Tensor, log_joint: Tensor, log_w: Tensor, log_v: Tensor) -> dict[str, Tensor]:
    """What is known of some simulations; the exact draw is the first of each tensor's ``1 + num_draws``."""
    if log_v.isnan().any() or (log_v.amax(0) == -torch.inf).any() or (log_v == torch.inf).any():
        raise NonFiniteError(
            "the prior's density at the guide's draws is zero or not a number, so that they cannot be weighted: see "
            "what check(model, guide, x) finds, or give anchor='prior'."
        )
    weights = normalised(log_v)
    joint = torch.stack([_distance(u.double()), log_joint], -1)
    mean_log_w = (log_v[1:].softmax(0) * log_w[1:]).sum(0)
    ranked = {"pit": u, "joint_pit": joint}
    out = {name: weighted_pit(values[0], values[1:], weights) for name, values in ranked.items()}
    elbo = log_w[1:].mean(0)
    return out | {
        "symmetric_kl": log_w[0] - mean_log_w,
        "elbo": elbo,
        "gap": _gap(log_w[1:]),
        "weights": weights,
    }


def _gap(log_w: Tensor) -> Tensor:
    """log (1/K) Σ w − (1/K) Σ log w."""
    return log_w.logsumexp(0) - np.log(len(log_w)) - log_w.mean(0)


def _distance(u: Tensor) -> Tensor:
    """|u − ρ|² in units of the spread of each simulation's u, ρ ~ N(0, I): symmetric in all u."""
    v = (u - u.mean(0)) / u.std(0).clamp(min=1e-300)
    return (v - torch.randn_like(v[:1])).square().sum(-1)
