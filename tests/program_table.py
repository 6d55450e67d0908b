"""What comes out for every program, as a page in markdown: ``python tests/program_table.py > docs/programs.md``.

With names of programs, the table of these alone. The answer is that of ``importance_evidence``, at the data where it is
furthest from the truth; what is said is the findings of ``check``, or the sentence that refuses.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from programs import BUILDERS, FILES, Program

from ppvae.errors import PpvaeError
from ppvae.inference import check, fit, importance_evidence

# The longest sentence that a cell of the table shows.
SHOWN = 160
# Differences below this come from rounding and from the truth's own quadrature, or from a training that stops short of
# the maximum of the likelihood, where the truth of a trained program stands.
ROUNDING, UNTRAINED = 1e-5, 1e-3
# With fewer draws nothing is known of the weights, and no answer is trusted.
LEAST_DRAWS = 50
# So many standard errors are the most that chance explains among so many rows.
FAR = 4.0
HEAD = (
    "| program | unit | true log p(x) | answer ± standard error | apart | trusted | what is said |\n"
    "|---|---|---|---|---|---|---|"
)
INTRODUCTION = """# Programs that were to make ppvae lie

{count} programs as people write them, with data and with log p(x) known by mathematics: a closed form, quadrature or
enumeration, each by two routes that do not use ppvae. They stand in `tests/programs/`, and `pytest
tests/inference/test_programs.py` demands of each that its evidence is the truth, or that a sentence says why no number
is right. This page shows what comes out, with seed 0 and in double precision:

```
python tests/program_table.py > docs/programs.md      # two to four minutes
python tests/program_table.py planar_flow             # some programs alone
```

How to read a row: the *unit* is what has an evidence of its own; the *true* log p(x) and the *answer* of
`importance_evidence`, in nats, are those of the unit at which they are furthest apart; *apart* is their difference in
standard errors (– where it is less than {rounding:g} nats, or than {untrained:g} where the program is trained, since
the truth is that of the maximum of the likelihood); *trusted* says for how many units ppvae stands by its answer; *what
is said* are the findings of `check` and the doubts about the answer, or the sentence that refuses. Where no number is
right, the truth is "none is right", and the program must be refused, or the number be called what it is. Where a
`pyro.factor` or an improper prior makes p(x, z) no density, the truth is the logarithm of its integral, and a sentence
must say so.
"""


@dataclass(frozen=True)
class Row:
    """What comes out for a program."""

    name: str
    cells: tuple[str, ...]
    apart: float
    silent: bool

    def __str__(self) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in self.cells)} |"

    @property
    def lies(self) -> bool:
        """Whether a number is wrong and nothing is said."""
        return self.silent and not self.apart <= FAR


def main(names: list[str]) -> None:
    """Print a row for each program that is named, or the page of all."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    if names:
        print(HEAD)
        for name in names:
            print(row(name), flush=True)
        return
    print(INTRODUCTION.format(count=len(BUILDERS), rounding=ROUNDING, untrained=UNTRAINED))
    rows = []
    for file in FILES:
        print(f"## {str(file.__doc__).strip().splitlines()[0].rstrip('.')}\n\n{HEAD}")
        for make in file.PROGRAMS:
            rows.append(row(make.__name__))
            print(rows[-1], flush=True)
        print()
    lies = [one.name for one in rows if one.lies]
    print(
        f"Rows whose answer is wrong ({FAR:g} standard errors or more from the truth, or a number where none is right) "
        f"with nothing said: {', '.join(lies) or 'none'}."
    )


def row(name: str) -> Row:
    """The row of a program: the first sentence of its docstring and what comes out."""
    pyro.clear_param_store()
    build: Callable[[], Program] = BUILDERS[name]
    program = build()
    what = str(build.__doc__).strip().splitlines()[0].rstrip(".")
    findings = check(program.model, program.guide, program.x)
    said = [f"[{one.code}] {one.site + ': ' if one.site else ''}{one.message}" for one in findings]
    known = not isinstance(program.truth, str)
    try:
        found = _measured(program)
    except PpvaeError as refusal:
        true = f"{program.truth[0]:.4f}" if known else "none is right"
        return Row(name, (what, program.unit, true, "none", "–", "refused", _short(str(refusal))), 0.0, False)
    worst = int((found.log_evidence - program.truth).abs().argmax()) if known else 0
    value, error = float(found.log_evidence[worst]), float(found.standard_error[worst])
    answer = f"{value:.4f} ± {error:.1g}"
    trusted = f"{int(found.trusted.sum())} of {len(found.trusted)}"
    said += [found.doubts()[worst]] * (not found.trusted[worst])
    true, apart = "none is right", float("inf")
    if known:
        true, difference = f"{program.truth[worst]:.4f}", abs(value - float(program.truth[worst]))
        apart = 0.0 if difference < (UNTRAINED if program.train else ROUNDING) else difference / max(error, ROUNDING)
    shown = "–" if apart in (0.0, float("inf")) else f"{apart:.1f}"
    cells = (what, program.unit, true, answer, shown, trusted, _short("; ".join(said) or "nothing"))
    return Row(name, cells, apart, silent=not said)


def _measured(program: Program):
    """The evidence of a program after its training."""
    model, guide = program.model, program.guide
    if program.train:
        rate = program.learning_rate
        fit(model, guide, program.x, epochs=program.train, learning_rate=rate, seed=0, progress=False)
    model, guide = program.measured(model, guide) if program.measured else (model, guide)
    num_particles = max(program.num_particles, LEAST_DRAWS)
    return importance_evidence(model, guide, program.x, num_particles=num_particles, seed=0)


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= SHOWN else sentence[: SHOWN - 1].rsplit(" ", 1)[0] + " …"


if __name__ == "__main__":
    main(sys.argv[1:])
