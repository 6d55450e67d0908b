"""How a pair's log densities are evaluated where their gradient is wanted: by the programs, or by compiled code.

Compiled code is the same function of u and the data, up to rounding, without Python (:mod:`.density_code`). It is only
as good as the run that it was recorded from, so it is trusted as follows.

- What a program decides by the value of a tensor, numbers that it takes out of torch, masks used as indices, and draws
  are refused when it is recorded.
- On every set of data it is tried at its first use, against the programs, on the data and places u of that use, and on
  these data again after every ``TRIAL_EVERY`` uses. Where it differs by more than rounding does, the programs are run
  from then on; a difference that shows late, when numbers may have been made of wrong ones, is an error.
- Python values that the programs reach are compared before every use (:class:`ppvae.inference.graphs.PythonState`).
- Checks of distributions are part of the graph. Where one comes out otherwise the programs are run.

``Pair.evaluations.name`` says which it is, and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ppvae.errors import OptionError

from ..graphs import NoGraph, PythonState
from .density_code import DensityCode, Evaluated, Prepared
from .log_terms import Term, log_terms
from .sites import U

if TYPE_CHECKING:
    from .pair import Pair  # which holds one of these

Compile = bool | Literal["auto"]

COMPILED, EAGER = "compiled", "eager"
# Uses between two trials on the same data, and chains that are tried: all trials together cost 1 % of the programs.
TRIAL_EVERY, CHAINS_TRIED = 200, 2
# How far compiled and eager may be apart, relative to the largest value or gradient of a trial: rounding.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
# Larger than rounding by so much, a difference is one of meaning.
WRONG = 100
# Compiling anew took 17 s on one busy core (6 to 12 s from the disk's cache). An evaluation of 800 rows fell from 4.2
# to 1.2 ms (LinearGaussian 5-2, 1.2 kB a row), from 9.1 to 5.6 ms (VAE 64-200-200-20, 21 kB), and from 19.6 to 12.2 ms
# from the guide and from 16.0 to 11.5 ms of the joint alone (VAE 784-200-200-20, 66 kB).
SECONDS_TO_COMPILE, SAVED_A_USE, SAVED_A_BYTE = 20.0, 2e-3, 8e-11
# Sets of data that are kept ready.
MOST_PREPARED = 4


class Evaluations:
    """Log densities with gradients of a pair, by the programs until :meth:`compile` says otherwise.

    Attributes:
        name: ``"compiled"``, or ``"eager: "`` and why.
        uses: how often terms with their gradients were evaluated.
        rows: for how many pairs of a chain and a unit.
    """

    def __init__(self) -> None:
        self.name = EAGER
        self.uses = self.rows = 0
        self._asked: Compile = False
        self._state: PythonState | None = None
        self._codes: dict[Term, DensityCode] = {}
        self._prepared: dict[tuple[Term, int, int], tuple[Prepared, int]] = {}

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
            return self._be_eager(
                f"{uses:.0f} evaluations are too few to pay for compiling, which would save {saved:.0f} s"
            )
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
            compile: as there.
            pair: the pair on data.
            share_done: of the units.
        """
        rest = 1 / share_done - 1
        self.compile(compile, pair, rest * self.uses, rest * self.rows)

    def at(self, pair: Pair, names: tuple[Term, ...], u: Tensor) -> tuple[Tensor, ...]:
        """The terms of these names at u, ``(num_chains, num_units)`` each, differentiable in u."""
        if not u.requires_grad:
            return log_terms(pair, names, u)
        self.uses += 1
        self.rows += u.shape[0] * u.shape[1]
        if self.name != COMPILED:
            return log_terms(pair, names, u)
        if pair.selection is not None:  # the programs run on all units whatever is meant
            index = pair.selection.to(u.device)
            whole, full = pair.whole, pair.filled(U, u, index)
            return tuple(term.index_select(1, index) for term in self.at(whole, names, full))
        found = [self._compiled(pair, name, u) for name in names]
        if any(one is None for one in found):
            return log_terms(pair, names, u)
        return tuple(_Given.apply(u, *one) for one in found if one is not None)

    def _compiled(self, pair: Pair, name: Term, u: Tensor) -> Evaluated | None:
        """The term by compiled code, or None if that is not to be had."""
        if self.name != COMPILED:
            return None
        try:
            self._demand_same_python()
            code = self._code(pair, name, u)
            key = (name, id(pair.arguments), len(u))
            prepared, uses = self._prepared.pop(key, (None, 0))
            prepared = prepared or code.prepare(pair, len(u))
            if prepared is None:
                return None
            found = code(u, prepared)
            if uses % TRIAL_EVERY == 0 and found is not None:
                self._try(pair, name, u, found, late=uses > 0)
        except NoGraph as why:
            if self._asked is True:
                raise OptionError(f"compile=True cannot be had: {why}. Leave it out, and programs are run.") from why
            self._be_eager(str(why))
            return None
        self._prepared[key] = prepared, uses + 1
        while len(self._prepared) > MOST_PREPARED:
            del self._prepared[next(iter(self._prepared))]
        return found

    def _code(self, pair: Pair, name: Term, u: Tensor) -> DensityCode:
        if name not in self._codes:
            self._codes[name] = DensityCode(pair, name, u)
            self._demand_same_python()
        return self._codes[name]

    def _demand_same_python(self) -> None:
        changed = self._state.changed() if self._state is not None else None
        if changed is not None:
            raise NoGraph(f"a Python value that the programs read has changed ({changed})")

    def _try(self, pair: Pair, name: Term, u: Tensor, found: Evaluated, *, late: bool) -> None:
        """Raise NoGraph where the code differs from the programs at some chains.

        Raises:
            OptionError: it does so late, by more than rounding.
        """
        with torch.enable_grad():
            u = u[:CHAINS_TRIED].detach().requires_grad_()
            (term,) = log_terms(pair, (name,), u)
            (gradient,) = torch.autograd.grad((term + 0 * u.sum(-1)).sum(), u)
        share = max(
            _apart(found.value[:CHAINS_TRIED], term.detach()), _apart(found.gradient[:CHAINS_TRIED], gradient)
        ) / TOLERANCE.get(u.dtype, 1e-2)
        if late and share > WRONG:
            raise OptionError(
                f"the compiled log density ({name}) is not that of the programs any more: they read something that "
                "changes and cannot be seen. Call with compile=False."
            )
        if not share <= 1:
            raise NoGraph(f"compiled and eager log densities differ ({name})")

    def _be_eager(self, why: str) -> None:
        self.name = f"{EAGER}: {why}"
        self._codes, self._prepared = {}, {}


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


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest number; infinite where one is finite and the other is not."""
    one, other = one.double(), other.double()
    finite = other.isfinite()
    if not torch.equal(finite, one.isfinite()):
        return torch.inf
    if not bool(finite.any()):
        return 0.0
    return float((one - other)[finite].abs().max() / (1 + other[finite].abs().max()))
