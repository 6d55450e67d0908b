"""missed_modes: its smallest size, and its truths against a second quadrature."""

import math

import pytest
import torch

from ppvae.experiments.missed_mode_pairs import PROBLEMS, build
from ppvae.experiments.missed_modes import SMALL, run


@pytest.mark.slow
def test_the_smallest_size_runs() -> None:
    result = run(SMALL)
    assert len(result.rows) == 4
    assert all(row["silent"] == 0 for row in result.rows)
    assert len(result.conclusions) == 2


@pytest.mark.parametrize("name", ["absolute value", "mixture prior", "label switching", "two decoders", "factor sign"])
@pytest.mark.slow
def test_the_truth_is_that_of_plain_sampling_from_the_prior(name: str) -> None:
    """The mean of p(x|z) over 400 000 draws of the prior, for the data where it is known to 10 %; |z| < 4.5."""
    torch.manual_seed(0)
    prior, likelihood, log_evidence, _ = PROBLEMS[name]()
    x = build(name, 6).data[0]
    z = prior.sample((400_000,))
    known = 0
    for row, truth in zip(x, log_evidence(x), strict=True):
        log_w = likelihood(z).log_prob(row)
        estimate = torch.logsumexp(log_w, 0) - math.log(len(z))
        relative = float((log_w - estimate).exp().std() / math.sqrt(len(z)))
        if relative < 0.1:
            known += 1
            assert abs(float((truth.sum() - estimate).exp()) - 1) < 4.5 * relative + 0.02
    assert known > 0
