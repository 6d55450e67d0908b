"""ais_vs_importance, gap_attribution and certificate_width: their tables held to pairs whose answers are known."""

import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pairs
import pytest
import torch

from ppvae.experiments import ais_vs_importance, certificate_width, gap_attribution
from ppvae.experiments.runs import trained_pair
from ppvae.models import LinearGaussian

EXPERIMENTS = {"ais": ais_vs_importance, "gap": gap_attribution, "certificate": certificate_width}


@cache
def small(name):
    return EXPERIMENTS[name].run(EXPERIMENTS[name].SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_smallest_size_runs_on_digits(name):
    result = small(name)
    assert "VAE on digits" in result.title
    assert len(result.rows) >= 2
    assert result.conclusions
    assert all(len(row) == len(result.rows[0]) for row in result.rows)
    for figure in result.figures.values():
        assert all(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes)


@pytest.fixture
def linear():
    """A pair with a full-covariance posterior under its best diagonal guide: the gap is the family's, to the digit."""
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=4, latent_dim=2, full_covariance=False)
    with torch.no_grad():
        pair.weight.mul_(2.5)
    pair.requires_grad_(False).eval()
    return pair.set_best_guide()


def _examine(monkeypatch, module, pair, num_data=6):
    x = torch.randn(num_data, 4)
    monkeypatch.setattr(module, "trained_pair", lambda *args: (pair, x, "a linear pair"))
    return x


def test_all_three_methods_find_the_evidence(linear, monkeypatch):
    """|z| < 4.5 for each of eleven rows: a false alarm in 1 of 10 000 runs."""
    x = _examine(monkeypatch, ais_vs_importance, linear)
    config = ais_vs_importance.Config(
        particles=(1000,), distributions=(10, 20), distributions_from_prior=(40,), num_chains=50
    )
    rows = ais_vs_importance.run(config).rows
    truth = float(linear.log_evidence(x).mean())
    for row in rows:
        assert abs(row["log p(x)"] - truth) < 4.5 * row["Monte Carlo error"]
    assert [row["evaluations per datum"] for row in rows] == [1000, 50 * 9 * 6, 50 * 19 * 6, 50 * 39 * 6]


@pytest.mark.slow
def test_a_planted_family_gap_is_the_family_s(linear, monkeypatch):
    x = _examine(monkeypatch, gap_attribution, linear, num_data=3)
    truth = float((linear.log_evidence(x) - linear.exact_elbo(x)).mean())
    rows = gap_attribution.run(gap_attribution.Config(tolerance=0.05, steps=400)).rows
    part = {row["part"]: row["mean"] for row in rows}
    assert truth > 0.05
    assert part["gap"] == pytest.approx(truth, abs=0.03)
    assert part["family"] == pytest.approx(truth, abs=0.03)
    assert part["amortisation"] == pytest.approx(0, abs=0.03)
    assert part["family: removed by full covariance"] == pytest.approx(truth, abs=0.03)


def test_a_familys_part_that_is_not_split_has_no_rows_of_its_parts(monkeypatch):
    pair = pairs.build("mixture_conditional_wide")
    monkeypatch.setattr(gap_attribution, "trained_pair", lambda *args: (pair, pair.x, "a mixture"))
    result = gap_attribution.run(gap_attribution.Config(tolerance=1.0, steps=5))
    assert [row["part"] for row in result.rows] == ["ELBO", "log p(x)", "gap", "amortisation", "family"]
    assert not any("Full covariance would remove" in sentence for sentence in result.conclusions)
    assert set(result.figures) == {"waterfall", "parts"}


def test_certificates_hold_what_is_known_of_the_model(linear, monkeypatch):
    """The mean of log p(x) over the model's own data is −H[x]; of N data it strays by sd/√N, here 4.5 of them."""
    n = 400
    # Functions that do not say whose methods they are: the pair would know its evidence.
    silent = SimpleNamespace(model=lambda x: linear.model(x), guide=lambda x: linear.guide(x))
    _examine(monkeypatch, certificate_width, silent, num_data=n)
    rows = certificate_width.run(
        certificate_width.Config(data=("drawn",), distributions=(1,), starts=("guide",), num_chains=8)
    ).rows
    covariance = linear.weight @ linear.weight.T + torch.diag(linear.log_noise_scale.exp().square().expand(4))
    entropy = 2 * (1 + math.log(2 * math.pi)) + float(torch.logdet(covariance)) / 2
    stray = 4.5 * math.sqrt(2 / n)  # Var[log p(x)] = 4/2 for a Gaussian in four dimensions
    (row,) = rows
    assert row["lower"] - stray < -entropy < row["upper"] + stray
    assert 0 < row["width"] < 0.3


@pytest.mark.slow
def test_chains_beat_draws_on_the_digits():
    rows = {(row["method"], row["K or T"]): row["log p(x)"] for row in small("ais").rows}
    assert rows["AIS from the guide", 20] > rows["importance sampling", 400]


@pytest.mark.slow
def test_a_certificate_gets_narrower_with_its_budget():
    for data in ("drawn", "given"):
        rows = [row for row in small("certificate").rows if row["data"] == data]
        assert rows[-1]["distributions"] > rows[0]["distributions"] == 1
        assert rows[-1]["width"] < rows[0]["width"] or (data == "given" and rows[-1]["width"] < 1)


def test_the_subject_of_a_run_is_its_trained_pair(tmp_path, undrawn):
    from ppvae.experiments.runs import main_job
    from ppvae.storage import Settings

    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(60, 5)))
    settings = Settings(pair="LinearGaussian", data=str(tmp_path / "x.npy"), epochs=2, num_particles=30,
                        pair_args={"latent_dim": 1}, out=str(tmp_path / "runs"), accelerator="cpu")  # fmt: skip
    result = main_job.run(settings, say=lambda line: None)
    pair, x, what = trained_pair.trained_pair(str(result.directory.path), 4, 1, 0)
    assert len(x) == 4
    assert "LinearGaussian" in what
    torch.testing.assert_close(pair.log_evidence(x).mean() * 0, torch.zeros((), dtype=x.dtype))
    with pytest.raises(ValueError, match="is not a run directory"):
        trained_pair.trained_pair(str(tmp_path), 4, 1, 0)
