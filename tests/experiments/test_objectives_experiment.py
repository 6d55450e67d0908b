"""objectives: its smallest size."""

import math

import pytest

from ppvae.experiments.objectives import SMALL, run


@pytest.mark.slow
def test_the_smallest_size_runs():
    result = run(SMALL)
    assert len(result.rows) == 17
    assert len({row["objective"] for row in result.rows}) == 17
    assert all(math.isfinite(row["gap"]) for row in result.rows)
    assert len(result.conclusions) == 3
