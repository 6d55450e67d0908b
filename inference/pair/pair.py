"""A pair on data: the one view of two programs that everything else holds.

:meth:`Pair.on` runs the programs a few times, finds out their sites, their unit, how draws meet data and how the
arguments are cut, and gives a :class:`Pair` that answers by unit and in bounded memory: draws, log weights, log
densities of constrained and unconstrained latents, and predictions. No other room runs a program.

Shapes: ``(num_draws, num_units)`` for log densities, float64, in nats; ``(num_draws, num_units, dim)`` for
unconstrained latents u; ``(num_draws, num_units, *plates inside the unit, *event)`` for the values of a site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from ppvae.errors import PairError

from ..option_records import Start
from .arguments import Arguments, Batch
from .evaluations import Evaluations
from .failures import drawable
from .layout import Body, Layout, Tensors, run
from .log_densities import LogDensities
from .log_terms import from_u, joint_terms, log_terms, to_u
from .memory import chunks
from .programs import Programs
from .sites import Frame, Site, U, Values
from .structure import Structure, Unit
from .traces import Program

# Units that the programs are tried on.
FEW = 4

# Log densities that are functions of u: (num_chains, num_units, dim) ↦ (num_chains, num_units) of each term.
Terms = Callable[[Tensor], Tensor | tuple[Tensor, ...]]


class Densities(NamedTuple):
    """What the programs say of draws, each ``(num_draws, num_units)``, float64, in nats.

    Attributes:
        log_p: log p(x, z).
        log_q: log q(z|x); None where the guide has auxiliary sites that the draws do not hold.
        log_likelihood: log p(x|z).
    """

    log_p: Tensor
    log_q: Tensor | None
    log_likelihood: Tensor


@dataclass(frozen=True)
class Pair:
    """A model and a guide on data; made by :meth:`Pair.on`.

    Attributes:
        programs: the two programs and the structure of their sites.
        arguments: ``(x, *context)``.
        coupled: whether a datum's density changes with the other data.
        divisible: whether the programs can be run on some of the data alone.
        model_layout: how draws meet data in the model.
        guide_layout: the same for the guide.
        bytes_each: bytes that one evaluation with its gradient costs per draw and unit.
        selection: the units that are meant, where the programs run on all data at once; None for all.
        filler: values for the other units, ``(1, num_units, ...)`` by site and for ``u``.
        plates_made_whole: whether plates that subsample show all of their data.
        by_guide: whether u stands for the guide's own coordinates ε; see :mod:`.guide_coordinates`.
        remarks: what a reader of any number of this pair must be told, a sentence each.
        evaluations: how log densities with gradients are evaluated, by the programs or by compiled code.
    """

    programs: Programs
    arguments: Arguments
    divisible: bool = True
    coupled: bool = False
    model_layout: Layout = "loop"
    guide_layout: Layout = "loop"
    bytes_each: int = 128
    selection: Tensor | None = None
    filler: Values | None = None
    plates_made_whole: bool = False
    by_guide: bool = False
    remarks: tuple[str, ...] = ()
    evaluations: Evaluations = field(default_factory=Evaluations, compare=False, repr=False)

    @staticmethod
    @contextmanager
    def on(
        model: Program, guide: Program, batch: Batch, *, start: Start | None = None, density: bool = True
    ) -> Iterator[Pair]:
        """The pair on data, inside a context in which its parameters are in place and its networks in evaluation mode.

        Args:
            model: ``model(x, *context)``, the generative program.
            guide: ``guide(x, *context)``.
            batch: ``(x, *context)``.
            start: what chains will start from; None if no function of unconstrained latents is wanted.
            density: whether log q(z|x) is wanted; without it, a guide that is a point mass will do.

        Raises:
            PairError: the pair breaks the contract, or, with ``start``, a latent has no density on a continuum: it is
                discrete and not enumerated, a point mass, on a circle or sphere, auxiliary to a guide that is started
                from, or masked out of the prior that is started from. The sentence says what is wrong, and the way out.
        """
        from .replay import understood  # which makes pairs, and so imports this file

        with understood(model, guide, batch, start, density=density) as pair:
            yield pair

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Program:
        """The generative program."""
        return self.programs.model

    @property
    def guide(self) -> Program:
        """The guide."""
        return self.programs.guide

    @property
    def structure(self) -> Structure:
        """The sites of the pair and where they stand."""
        return self.programs.structure

    @property
    def batch(self) -> Batch:
        """``(x, *context)``."""
        return self.arguments.batch

    @property
    def unit(self) -> Unit:
        """What has an evidence of its own: ``"datum"`` or ``"data set"``."""
        return self.structure.unit

    @property
    def sites(self) -> dict[str, Site]:
        """The latents and where they stand."""
        return self.structure.latents

    @property
    def summed(self) -> frozenset[str]:
        """Names of the sites that are summed out."""
        return self.structure.summed

    @property
    def dim(self) -> int:
        """How many real numbers a unit's latents are."""
        return self.structure.dim

    @property
    def num_units(self) -> int:
        """How many units there are."""
        if self.unit == "data set":
            return 1
        return self.arguments.num_rows if self.selection is None else len(self.selection)

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return self.arguments.device

    @property
    def frame(self) -> Frame:
        """The frame of a run for one draw of all data."""
        num_units = 1 if self.unit == "data set" else self.arguments.num_rows
        return Frame(self.structure.plates, num_units, None, self.device)

    @property
    def few(self) -> Pair:
        """The pair on few of its data, where it can be run on some."""
        return self.rows(slice(0, FEW)) if self.divisible else self

    @property
    def together(self) -> bool:
        """Whether guide and model can be run one after the other in one layout that draws."""
        return self.model_layout == self.guide_layout != "vectorised"

    @property
    def whole(self) -> Pair:
        """The same view of all the units that the programs run on."""
        return replace(self, selection=None)

    def rows(self, index: Any) -> Pair:
        """The same view of some of the units."""
        if self.unit == "data set":
            return self
        if self.divisible:
            return replace(self, arguments=self.arguments.rows(index))
        chosen = torch.arange(self.arguments.num_rows) if self.selection is None else self.selection
        return replace(self, selection=chosen[index])

    def with_leaves(self, leaves: Mapping[int, Tensor]) -> Pair:
        """The same view with other values of some leaves of the arguments, of the same shapes; leaf 0 is x."""
        own = tuple(leaves.get(i, leaf) for i, leaf in enumerate(self.arguments.leaves))
        return replace(self, arguments=replace(self.arguments, leaves=own))

    def chunks(self, num_draws: int, memory_mb: float, *, gradient: bool = False) -> Iterator[tuple[slice, slice]]:
        """Slices ``(units, draws)`` that cover all work in bounded memory, units outermost.

        Args:
            num_draws: draws of every unit.
            memory_mb: budget in MiB.
            gradient: whether a draw costs its gradient too.
        """
        each = self.bytes_each if gradient else self.bytes_each // 2
        if self._cut:
            yield from chunks(num_draws, self.num_units, each, memory_mb)
            return
        # The programs run on all data whatever the slice is: one slice of units, and as many draws as fit.
        for _, draws in chunks(num_draws, 1, each * self.arguments.num_rows, memory_mb):
            yield slice(0, self.num_units), draws

    @property
    def _cut(self) -> bool:
        """Whether fewer units cost less."""
        return self.divisible or self.unit == "data set"

    def pieces(self, num_draws: int, memory_mb: float) -> Iterator[slice]:
        """Slices of the units whose draws, with their gradients, fit the budget together."""
        for units, draws in self.chunks(num_draws, memory_mb, gradient=True):
            if draws.start == 0:
                yield units

    def portions(self, num_draws: int, memory_mb: float) -> Iterator[slice]:
        """Slices of the draws of all units that, with their gradients, fit the budget together."""
        width = self.num_units if self._cut else self.arguments.num_rows
        for _, draws in chunks(num_draws, 1, self.bytes_each * width, memory_mb):
            yield draws

    # --- draws and weights of the guide -------------------------------------------------------------------------------

    def log_weights(self, num_draws: int) -> Tensor:
        """log w = log p(x, z) − log q(z|x) of draws of the guide; enumerated sites summed out."""
        return self.weigh(self.programs.weights, self.programs.proposals, num_draws, {})

    def weigh(self, weights: Body, proposals: Body, num_draws: int, inputs: Tensors) -> Tensor:
        """log w of draws, by one run of both programs, or by one of the guide and one of the model, each in its layout.

        ``weights`` leads from the inputs to ``log_w``; ``proposals`` to the guide's draws by site and their ``log_q``.
        """
        if self.together:
            return self.run(weights, num_draws, inputs, self.model_layout, random=True)["log_w"]
        drawn = self.run(proposals, num_draws, inputs, self.guide_layout, random=True)
        log_q = drawn.pop("log_q")
        return self.run(self.programs.densities, num_draws, drawn, self.model_layout)["log_p"] - log_q

    def gathered_log_weights(self, num_draws: int, memory_mb: float) -> Tensor:
        """:meth:`log_weights` in bounded memory, on the CPU."""
        out = torch.empty(num_draws, self.num_units, dtype=torch.float64)
        with torch.no_grad():
            for units, draws in self.chunks(num_draws, memory_mb):
                out[draws, units] = self.rows(units).log_weights(draws.stop - draws.start).cpu()
        return out

    def guide_values(self, num_draws: int) -> Values:
        """Draws of q(z|x) by site, auxiliary sites among them."""
        return self.run(self.programs.guide_draws, num_draws, {}, self.guide_layout, random=True)

    def prior_values(self, num_draws: int, *, given: Values | None = None, predictive: bool = False) -> Values:
        """Draws of p(z) by site, and, if asked, of x̃ ~ p(x|z); the sites that are given keep their values.

        Raises:
            PairError: the model cannot be drawn from.
        """
        body = partial(self.programs.prior_draws, predictive=predictive)
        with drawable():
            return self.run(body, num_draws, given or {}, self.model_layout, random=True)

    def predictions(self, z: Values, num_draws: int) -> Values:
        """x̃ ~ p(x|z) by site, one for each draw; enumerated sites are drawn from p(d|z, x) first."""
        with drawable():
            return self.run(self.programs.predictions, num_draws, z, self.model_layout, random=True)

    def expectations(self, z: Values) -> Values:
        """E[x̃|z] by site, one for each draw, and a draw of x̃ where the distribution has no finite mean."""
        with drawable():
            return self.run(self.programs.expectations, _num_draws(z), z, self.model_layout, random=True)

    def observations(self, z: Values) -> Values:
        """What the model observes by site, ``(1, num_units, ...)``, from a run on one draw."""
        return self.run(self.programs.observations, 1, z, self.model_layout)

    def densities(self, z: Values, num_draws: int | None = None) -> Densities:
        """The densities at draws by site; how many they are may be left out where some site is drawn."""
        count = _num_draws(z) if num_draws is None else num_draws
        found = self.run(self.programs.densities, count, z, self.model_layout)
        log_q = self.log_guide(z, count) if set(z) >= set(self.structure.drawn) else None
        return Densities(found["log_p"], log_q, found["log_likelihood"])

    def log_guide(self, z: Values, num_draws: int) -> Tensor:
        """log q(z|x) at all that the guide draws, by site."""
        return self.run(self.programs.log_guide, num_draws, z, self.guide_layout)["log_q"]

    # --- functions of unconstrained latents ---------------------------------------------------------------------------

    @property
    def joint(self) -> LogDensities:
        """U ↦ log p(x, u), ``(1, num_chains, num_units)``."""
        return LogDensities(self, ("joint",))

    def path(self, start: Start) -> LogDensities:
        """The two ends of an annealing path: u ↦ log q(u|x) or log p(u), and log p(x, u); ``(chains, units)`` each."""
        return LogDensities(self, (start, "joint"))

    def ends(self, u: Tensor) -> Tensor:
        """log q(u|x), log p(u) and log p(x, u), ``(3, num_chains, num_units)``."""
        return torch.stack(log_terms(self, ("guide", "prior", "joint"), u))

    def draw(self, start: Start, num_chains: int) -> Tensor:
        """Independent draws of the guide or of the prior, ``(num_chains, num_units, dim)``.

        Raises:
            PairError: the guide draws outside the support that the model gives a site.
        """
        with torch.no_grad():
            if self.by_guide and start == "guide":
                kind = next(iter(self.sites.values())).dtype
                return torch.randn(num_chains, self.num_units, self.dim, dtype=kind, device=self.device)
            return self.unconstrained({} if start == "prior" else self.guide_values(num_chains), num_chains)

    def unconstrained(self, values: Values, num_chains: int) -> Tensor:
        """u of latents by site; a site that is not given is drawn from the model."""
        random = not set(values) >= set(self.sites)
        with torch.no_grad():
            found = self.run(self.programs.unconstrained, num_chains, values, self.model_layout, random=random)
        u = found.pop(U)
        for name, outside in found.items():
            if name in values and bool((outside > 0).any()):
                raise PairError(
                    f"the guide draws {name!r} outside the support that the model gives it: let the guide's "
                    "distribution have the support of the model's, or start from the prior (start='prior' "
                    "in Annealing or Sampling)."
                )
        return from_u(self, u) if self.by_guide else u

    def constrained(self, u: Tensor) -> Values:
        """The latents T(u) by site."""
        with torch.no_grad():
            found = joint_terms(self, to_u(self, u)[0] if self.by_guide else u)
        return {name: found[name] for name in self.sites}

    # --- running bodies -----------------------------------------------------------------------------------------------

    def run(self, body: Body, num_draws: int, inputs: Tensors, layout: Layout, *, random: bool = False) -> Tensors:
        """Run a body of :class:`~.programs.Programs`, or one like it, for draws of the units that are meant."""
        plates, where = self.structure.plates, self.arguments.device
        inputs = {name: value.to(where) for name, value in inputs.items()}
        with pyro.validation_enabled(False):  # what validation looks for is looked for by the bodies
            if self.selection is None:
                return run(layout, body, plates, self.arguments, num_draws, inputs, random=random)
            index = self.selection.to(where)
            filled = {name: self.filled(name, value, index) for name, value in inputs.items()}
            found = run(layout, body, plates, self.arguments, num_draws, filled, random=random)
        return {name: value.index_select(1, index) for name, value in found.items()}

    def filled(self, name: str, value: Tensor, index: Tensor) -> Tensor:
        """Values of the units that are meant, and others for the rest."""
        all_units = (len(value), self.arguments.num_rows, *value.shape[2:])
        other = (self.filler or {}).get(name)
        full = value.new_zeros(all_units) if other is None else other.to(value).expand(all_units)
        return full.index_copy(1, index, value)


def _num_draws(values: Values) -> int:
    return max((len(value) for value in values.values()), default=1)
