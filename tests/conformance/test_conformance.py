"""Every foreign program is trained and measured, or refused in the words foreseen; absent packages are skipped.

The packages come with ``pip install -c constraints.txt -e '.[dev,conformance]'``; docs/conformance.md has the table.
"""

import pytest

from conformance.measure import demand_conformity, files, programs

# Of Pyro's own examples, those that take longest.
LONG = {"Epidemic", "FactorModel", "Forecast", "RegressionWithPriors", "VariationalRegression"}


def _cases():
    for file, missing in files().items():
        if missing:
            yield pytest.param(None, id=file, marks=pytest.mark.skip(f"{', '.join(missing)} is not installed"))
        else:
            yield from (_case(file, program) for program in programs(file))


def _case(file, program):
    name = program.__name__
    return pytest.param(program, id=f"{file}-{name}", marks=[pytest.mark.slow] if name in LONG else [])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("program", list(_cases()))
def test_conforms(program):
    demand_conformity(program)
