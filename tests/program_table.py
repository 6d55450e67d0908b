"""What comes out for every program, as a table in markdown: ``python tests/program_table.py``.

The answer is that of ``importance_evidence``, at the data where it is furthest from the truth; what is said is the
findings of ``check``, or the sentence that refuses.
"""

import sys
import warnings
from collections.abc import Callable

import pyro
import torch
from programs import BUILDERS, Program

from ppvae.errors import PpvaeError
from ppvae.inference import check, fit, importance_evidence

# The longest sentence that a cell of the table shows.
SHOWN = 110


def main(names: list[str]) -> None:
    """Print a row for each program that is named, or for all."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    print("| program | unit | true log p(x) | answer ± error | trusted | what is said |\n|---|---|---|---|---|---|")
    for name in names or BUILDERS:
        print(row(BUILDERS[name]), flush=True)


def row(build: Callable[[], Program]) -> str:
    """The row of a program: the first sentence of its docstring and what comes out."""
    pyro.clear_param_store()
    program = build()
    what = str(build.__doc__).strip().splitlines()[0].rstrip(".")
    findings = check(program.model, program.guide, program.x)
    said = "; ".join(f"[{one.code}] {one.message}" for one in findings) or "nothing"
    true, answer, trusted = _answer(program)
    said = answer if trusted == "refused" else said
    cells = (what, program.unit, true, "none" if trusted == "refused" else answer, trusted, _short(said))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _answer(program: Program) -> tuple[str, str, str]:
    """The truth, the answer or the sentence that refuses it, and for how many units it is to be trusted."""
    model, guide, truth = program.model, program.guide, program.truth
    try:
        if program.train:
            rate = program.learning_rate
            fit(model, guide, program.x, epochs=program.train, learning_rate=rate, seed=0, progress=False)
        model, guide = program.measured(model, guide) if program.measured else (model, guide)
        found = importance_evidence(model, guide, program.x, num_particles=program.num_particles, seed=0)
    except PpvaeError as error:
        return "none is right" if isinstance(truth, str) else f"{truth[0]:.4f}", str(error), "refused"
    worst = 0 if isinstance(truth, str) else int((found.log_evidence - truth).abs().argmax())
    true = "none is right" if isinstance(truth, str) else f"{truth[worst]:.4f}"
    answer = f"{found.log_evidence[worst]:.4f} ± {found.standard_error[worst]:.1g}"
    return true, answer, f"{int(found.trusted.sum())} of {len(found.trusted)}"


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= SHOWN else sentence[: SHOWN - 1].rsplit(" ", 1)[0] + " …"


if __name__ == "__main__":
    main(sys.argv[1:])
