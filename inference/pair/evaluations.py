"""How log densities with gradients, and log weights, are evaluated: by the programs, or by compiled code.

Compiled code is the same function of u and the data, or of the noise and the data, up to rounding, without Python
(:mod:`.density_code`, :mod:`.weight_code`). It is only as good as the run that it was recorded from, so it is trusted
as follows.

- What a program decides by the value of a tensor, numbers that it takes out of torch, masks used as indices, and draws
  where a density is asked for are refused when it is recorded.
- On every set of data it is tried at its first use, against the programs, on the data and places u of that use, and on
  these data again after every ``TRIAL_EVERY`` uses. Where it differs by more than rounding does, the programs are run
  from then on; a difference that shows late, when numbers may have been made of wrong ones, is an error.
- Python values that the programs reach are compared before every use (:class:`ppvae.inference.graphs.PythonState`).
- Checks of distributions are part of the graph. Where one comes out otherwise the programs are run.

``Pair.evaluations.name`` says which it is, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ppvae.errors import OptionError

from ..graphs import NoGraph, PythonState
from .block_code import Prepared, by_row
from .code_trial import demand_same
from .density_code import DensityCode, Evaluated
from .log_terms import Term, log_terms
from .memory import chunks
from .sites import U
from .weight_code import WeightCode

if TYPE_CHECKING:
    from .pair import Pair  # which holds one of these

Compile = bool | Literal["auto"]
# Terms that are wanted together.
Names = tuple[Term, ...]

COMPILED, EAGER = "compiled", "eager"
# Uses between two trials on the same data, and chains that are tried: all trials together cost 1 % of the programs.
TRIAL_EVERY, CHAINS_TRIED = 200, 2
# Compiling anew took 17 s on one busy core (1 to 4 s from the disk's cache). An evaluation of 800 rows fell from 4.2
# to 1.2 ms (LinearGaussian 5-2, 1.2 kB a row), from 9.1 to 5.6 ms (VAE 64-200-200-20, 21 kB), and from 19.6 to 12.2 ms
# from the guide and from 16.0 to 11.5 ms of the joint alone (VAE 784-200-200-20, 66 kB).
SECONDS_TO_COMPILE, SAVED_A_USE, SAVED_A_BYTE = 20.0, 2e-3, 8e-11
# What a log weight takes while those of a piece are gathered.
BYTES_A_WEIGHT = 32
# Sets of data that are kept ready.
MOST_PREPARED = 4


class Evaluations:
    """Log densities with gradients of a pair, by the programs until :meth:`compile` says otherwise.

    Attributes:
        name: ``"compiled"``, or ``"eager: "`` and why.
        uses, rows: how often terms with gradients were evaluated, and for how many pairs of a chain and a unit.
    """

    def __init__(self) -> None:
        self.name = EAGER
        self.uses = self.rows = 0
        self._asked: Compile = False
        self._state: PythonState | None = None
        self._weights: WeightCode | None = None
        self._codes: dict[Names, DensityCode] = {}
        self._prepared: dict[tuple[Names, int, int], tuple[Prepared, int]] = {}

    def compile(self, compile: Compile, pair: Pair, uses: float, rows: float) -> None:
        """Compile from here on, or say why not.

        Args:
            compile: True, False, or ``"auto"``: where it pays.
            pair: the pair on data.
            uses: how many evaluations are still to come.
            rows: how many pairs of a chain and a unit they have in all.
        """
        if self._asked:  # and it was done, or could not be
            return
        if compile is False:
            return self._be_eager("compile=False")
        saved = seconds_saved(pair, uses, rows)
        if compile == "auto" and saved < SECONDS_TO_COMPILE:
            what = f"{uses:.0f} evaluations" if uses else f"{rows:.0f} log weights"
            return self._be_eager(f"{what} are too few to pay for compiling, which would save {saved:.0f} s")
        self._asked, self.name = compile, COMPILED
        self._state = PythonState(pair.model, pair.guide)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why the programs are run although compiling would pay, a sentence; empty otherwise."""
        if not self._asked or self.name == COMPILED:
            return ()
        return (f"log densities could not be compiled, which costs time alone: {self.name.removeprefix('eager: ')}.",)

    def compile_for_rest(self, compile: Compile, pair: Pair, share_done: float) -> None:
        """:meth:`compile` where a share of the units is done, and the rest is taken to cost as much each.

        Args:
            compile, pair: as there.
            share_done: of the units.
        """
        rest = 1 / share_done - 1
        self.compile(compile, pair, rest * self.uses, rest * self.rows)

    def at(self, pair: Pair, names: Names, u: Tensor) -> tuple[Tensor, ...]:
        """The terms of these names at u, ``(num_chains, num_units)`` each, differentiable in u."""
        if not u.requires_grad:
            return log_terms(pair, names, u)
        found = self.with_gradients(pair, names, u)
        if found is None:
            self._count(u)
            return log_terms(pair, names, u)
        return tuple(_Given.apply(u, *one) for one in zip(*found, strict=True))

    def chunks(self, pair: Pair, num_draws: int, memory_mb: float) -> Iterator[tuple[slice, slice]]:
        """Slices ``(units, draws)`` for :meth:`log_weights`; compiled code is bounded by its blocks."""
        if self.name == COMPILED and by_row(pair):
            return chunks(num_draws, pair.num_units, BYTES_A_WEIGHT, memory_mb)
        return pair.chunks(num_draws, memory_mb)

    def log_weights(self, pair: Pair, num_draws: int, memory_mb: float) -> Tensor:
        """Log weights of draws of the guide, ``(num_draws, num_units)``, without gradients in the parameters."""
        found = self._guarded(lambda: self._compiled_weights(pair, num_draws)) if self.name == COMPILED else None
        return pair.gathered_log_weights(num_draws, memory_mb) if found is None else found

    def _compiled_weights(self, pair: Pair, num_draws: int) -> Tensor | None:
        if self._weights is None:
            self._weights = WeightCode(pair, num_draws)
            self._demand_same_python()
        code, key = self._weights, ((), id(pair.arguments), num_draws)
        prepared, uses = self._prepared.pop(key, (None, 0))
        prepared = prepared or code.prepare(pair, num_draws)
        if prepared is None:
            return None
        if uses % TRIAL_EVERY == 0:
            trial = code.trial(pair, prepared)
            if trial is None:
                return None
            kinds = {trial[1].dtype, *(site.dtype for site in pair.sites.values())}
            exact = kinds == {torch.float64}  # else some of it was rounded as float32 is
            demand_same("log weight", *trial, torch.float64 if exact else torch.float32, late=uses > 0)
        found = code(pair, prepared)
        if found is not None:
            self._keep(key, prepared, uses)
        return found

    def with_gradients(self, pair: Pair, names: Names, u: Tensor) -> Evaluated | None:
        """The terms of these names at u and their gradients by compiled code, or None if that is not to be had."""
        if self.name != COMPILED:
            return None
        if pair.selection is None:
            found = self._guarded(lambda: self._compiled(pair, names, u))
        else:  # the programs run on all units whatever is meant
            index = pair.selection.to(u.device)
            filled = pair.filled(U, u, index)
            found = self._guarded(lambda: self._compiled(pair.whole, names, filled))
            found = None if found is None else Evaluated(*(part.index_select(2, index) for part in found))
        if found is not None:
            self._count(u)
        return found

    def _count(self, u: Tensor) -> None:
        self.uses += 1
        self.rows += u.shape[0] * u.shape[1]

    def _compiled(self, pair: Pair, names: Names, u: Tensor) -> Evaluated | None:
        code = self._code(pair, names, u)
        key = (names, id(pair.arguments), len(u))
        prepared, uses = self._prepared.pop(key, (None, 0))
        prepared = prepared or code.prepare(pair, len(u))
        if prepared is None:
            return None
        found = code(u, prepared)
        if uses % TRIAL_EVERY == 0 and found is not None:
            self._try(pair, names, u, found, late=uses > 0)
        self._keep(key, prepared, uses)
        return found

    def _guarded(self, compiled: Callable[[], Any]) -> Any:
        """What compiled code finds, or None, and programs from now on where it cannot be had."""
        try:
            self._demand_same_python()
            return compiled()
        except NoGraph as why:
            if self._asked is True:
                raise OptionError(f"compile=True cannot be had: {why}. Leave it out, and programs are run.") from why
            self._be_eager(str(why))
            return None

    def _keep(self, key: tuple[Names, int, int], prepared: Prepared, uses: int) -> None:
        """Keep some data ready, and count this use."""
        self._prepared[key] = prepared, uses + 1
        while len(self._prepared) > MOST_PREPARED:
            del self._prepared[next(iter(self._prepared))]

    def _code(self, pair: Pair, names: Names, u: Tensor) -> DensityCode:
        if names not in self._codes:
            self._codes[names] = DensityCode(pair, names, u)
            self._demand_same_python()
        return self._codes[names]

    def _demand_same_python(self) -> None:
        changed = self._state.changed() if self._state is not None else None
        if changed is not None:
            raise NoGraph(f"a Python value that the programs read has changed ({changed})")

    def _try(self, pair: Pair, names: Names, u: Tensor, found: Evaluated, *, late: bool) -> None:
        """Raise NoGraph where the code differs from the programs at some chains.

        Raises:
            OptionError: it does so late, by more than rounding.
        """
        with torch.enable_grad():
            u = u[:CHAINS_TRIED].detach().requires_grad_()
            terms = [term + 0 * u.sum(-1) for term in log_terms(pair, names, u)]
            gradients = [torch.autograd.grad(term.sum(), u, retain_graph=True)[0] for term in terms]
        for j, (name, term, gradient) in enumerate(zip(names, terms, gradients, strict=True)):
            for by_code, by_programs in zip((part[j, :CHAINS_TRIED] for part in found), (term, gradient), strict=True):
                demand_same(f"log density ({name})", by_code, by_programs.detach(), u.dtype, late=late)

    def _be_eager(self, why: str) -> None:
        self.name = f"{EAGER}: {why}"
        self._weights, self._codes, self._prepared = None, {}, {}


class _Given(torch.autograd.Function):
    """A value whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """The value."""
        ctx.save_for_backward(gradient)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *outside: Any) -> Any:
        """The gradient in u."""
        (gradient,) = ctx.saved_tensors
        return outside[0][..., None].to(gradient) * gradient, None, None


def seconds_saved(pair: Pair, uses: float, rows: float) -> float:
    """What compiling saves, on one core, in so many uses with so many pairs of a chain and a unit in all."""
    return SAVED_A_USE * uses + SAVED_A_BYTE * pair.bytes_each * rows
