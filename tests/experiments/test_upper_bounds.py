"""upper_bounds: its table held to a pair whose answers are known, and the coupled chains to their own mean."""

import math

import pytest
import torch

from ppvae.experiments import upper_bounds
from ppvae.inference.bounds.coupled import coupled
from ppvae.inference.calibration import simulate
from ppvae.models import LinearGaussian


@pytest.mark.slow
def test_the_smallest_size_runs_on_digits():
    result = upper_bounds.run(upper_bounds.SMALL)
    assert "VAE on digits" in result.title
    assert len(result.rows) == 2
    assert result.conclusions
    assert result.figures["bounds"].axes[0].get_xlabel()


def test_all_bounds_lie_on_the_right_side_of_a_linear_pairs_truth(monkeypatch):
    """Each is at most 4.5 standard errors on the wrong side of the mean log p(x) of the same data."""
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=4, latent_dim=2, full_covariance=False)
    with torch.no_grad():
        pair.weight.mul_(2.5)
    pair.requires_grad_(False).eval().set_best_guide()
    like = torch.randn(60, 4)
    monkeypatch.setattr(upper_bounds, "trained_pair", lambda *args: (pair, like, "a linear pair"))
    rows = upper_bounds.run(upper_bounds.Config(distributions=(8,), num_chains=32)).rows
    truth = float(pair.log_evidence(simulate(pair.model, pair.guide, like, seed=0).batch[0]).mean())
    (row,) = rows
    error = 4.5 * max(row["± of exact"], row["± of tangents"], row["± of coupled"])
    assert row["lower"] < truth + error
    for name in ("exact", "tangents", "coupled"):
        assert row[name] > truth - error
    assert abs(row["tangents − exact"]) < error
    assert row["coupled"] > row["tangents"] - error
    assert row["exact − lower"] < 0.5


@pytest.mark.parametrize("variance", [0.1, 0.5])
def test_coupled_chains_have_the_tilted_mean_of_the_log_weights(variance):
    """Log-normal weights of mean 1: E[w log w] is half the variance of log w. |z| < 4.5 over 4000 data."""
    log_w = variance**0.5 * torch.randn(64, 4000, dtype=torch.float64) - variance / 2
    found = coupled(log_w)
    error = float(found.std()) / math.sqrt(len(found))
    assert bool(found.isfinite().all())
    assert abs(float(found.mean()) - variance / 2) < 4.5 * error
    assert error < 0.02


def test_what_cannot_be_finished_is_infinite_and_equal_weights_are_themselves():
    assert coupled(torch.zeros(1, 3)).tolist() == [math.inf] * 3
    assert coupled(torch.full((16, 2), -3.0)).tolist() == [-3.0, -3.0]
    steep = torch.tensor([[0.0], *[[-1e6]] * 15])  # the first weight is never left
    assert coupled(steep).item() == math.inf
