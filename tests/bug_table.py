"""What `check` says of every planted bug, as a page in markdown: ``python tests/bug_table.py > docs/lint.md``."""

import re
import warnings

import pyro
import torch
from bugs import BUILDERS, FILES, UNUSUAL

from ppvae.inference import Finding, check

HEAD = "| bug | finding | at | what is said | remedy |\n|---|---|---|---|---|"
INTRODUCTION = """# Bugs that `check` finds

{bugs} bugs that people plant in a pair, each a small program in `tests/bugs/` beside the same program mended. Of each
the table has the finding that names it, whether it refuses training and evidence (!) or warns, the line that it points
to, and the remedy: applied, it makes the finding go away. Of {unusual} right pairs that look like one of the bugs, and
of the {programs} programs of [programs.md](programs.md), none of these findings is raised falsely. `pytest
tests/inference/test_lint.py` demands all of it.

```
ppvae check my_pair.py --data my_data.npy
python tests/bug_table.py > docs/lint.md
```

What a finding rests on is one run of both programs in which torch records what each density depends on, and a few
more that compare values. A warning is a suspicion: a scale that nothing keeps positive may stay positive, and a guide
that proposes the same for all data may be meant. Not looked for are bugs that leave a right pair for another model: a
variance passed as a scale, a wrong sign in a decoder, data in the wrong units.
"""


def named(name: str) -> Finding:
    """The finding that names a planted bug."""
    bug = BUILDERS[name]
    pyro.clear_param_store()
    found = check(*bug.make(False))
    return next(finding for finding in found if (finding.code, finding.site) == (bug.code, bug.site))


def row(name: str) -> str:
    """The row of a bug."""
    finding = named(name)
    where = finding.site + (f", {finding.line}" if finding.line else "")
    cells = (
        str(BUILDERS[name].make.__doc__).strip().rstrip("."),
        f"`{finding.code}`{'!' if finding.fatal else ''}",
        where or "–",
        re.sub(r"0x[0-9a-f]+", "…", finding.message),
        finding.remedy,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> None:
    """Print the page."""
    from programs import BUILDERS as PROGRAMS

    warnings.simplefilter("ignore")
    torch.set_default_dtype(torch.float64)
    print(INTRODUCTION.format(bugs=len(BUILDERS), unusual=len(UNUSUAL), programs=len(PROGRAMS)))
    for file in FILES:
        print(f"## {str(file.__doc__).strip().splitlines()[0].rstrip('.')}\n\n{HEAD}")
        for bug in file.BUGS:
            print(row(bug.make.__name__))
        print()


if __name__ == "__main__":
    main()
