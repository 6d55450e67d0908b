"""The ledger of published figures: its verdicts, its files, its page, and the rows that are cheap to run."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from ppvae.datasets import Dataset
from ppvae.errors import OptionError, RunError
from ppvae.experiments import reproduce as experiment
from ppvae.experiments.reproductions import (
    RESULTS,
    Figure,
    Published,
    Row,
    RowEffort,
    RowOutcome,
    exact_likelihoods,
    few_labels,
    find_row,
    gradient_quality,
    imputation,
    known_targets,
    mnist_likelihood,
    read_records,
    reproduce,
    rows,
    suboptimality,
    verdict,
)
from ppvae.experiments.reproductions.bounds_of_images import drawn_bound
from ppvae.experiments.reproductions.ledger_page import page
from ppvae.experiments.reproductions.result_files import figures_of
from ppvae.experiments.reproductions.training import TimeBudget, trained
from ppvae.models import VAE, Bernoulli, LinearGaussian

LOWER = Published("nats", 10.0, 0.05, better="lower", spread=0.3)


@pytest.mark.parametrize(
    ("published", "figure", "said"),
    [
        (LOWER, None, "open"),
        (LOWER, Figure(10.3, 0.0), "reproduced"),  # within what the paper says it varies by
        (LOWER, Figure(10.5, 0.26), "reproduced"),  # within two standard errors
        (LOWER, Figure(10.5, 0.1), "not reproduced"),
        (LOWER, Figure(10.5, 0.1, "cut short"), "not decided"),
        (LOWER, Figure(9.5, 0.1, "cut short"), "better"),
        (replace(LOWER, better="higher"), Figure(9.5, 0.1), "not reproduced"),
        (replace(LOWER, better="neither"), Figure(9.5, 0.1), "not reproduced"),
        (replace(LOWER, better="neither"), Figure(10.0, 0.1, "not trusted"), "not decided"),
        (LOWER, Figure(10.1, 0.0, "cut short"), "reproduced"),
        (replace(LOWER, spread=0.0), Figure(10.05, 0.0), "reproduced"),  # the same digits
        (replace(LOWER, standard_error=0.25), Figure(10.49, 0.0), "reproduced"),
    ],
)
def test_verdicts(published, figure, said):
    assert verdict(published, figure) == said


def test_every_result_is_of_a_row_and_says_where_it_comes_from():
    records, known = read_records(), rows()
    assert len(records) >= 15
    assert set(records) <= set(known)
    assert {file.stem for file in RESULTS.glob("*.json")} == set(records)
    for name, record in records.items():
        assert len(figures_of(known[name], records)) == len(known[name].published)
        assert {"config", "seed", "seconds", "date", "machine", "versions", "commit"} <= set(record)
        assert record["commit"]
        assert all(math.isfinite(each["value"]) and each["standard_error"] >= 0 for each in record["figures"])


def test_the_page_is_that_of_the_results(repository):
    """Written anew by python -m ppvae.experiments.reproductions.ledger_page."""
    assert (repository / "docs" / "ledger.md").read_text(encoding="utf-8") == page(rows(), read_records())


def test_every_row_has_a_source_and_a_protocol_or_a_reason():
    for row in rows().values():
        assert row.source
        assert row.published
        assert row.run is not None or row.open
        assert bool(row.protocol) == (row.run is not None)


def test_a_row_that_has_changed_since_its_result_is_refused():
    row = find_row("lsat6")
    records = {"lsat6": {"figures": [{"what": "another", "value": 1.0, "standard_error": 0.0, "undecided": ""}]}}
    with pytest.raises(RunError, match="run it again"):
        figures_of(row, records)


def test_a_result_is_written_whole_and_read_back(tmp_path):
    row = Row(
        "one", "One", (Published("a number", 1.0, 0.5, better="higher"),), "nobody", "none", "", lambda effort: OUTCOME
    )
    found = reproduce(row, RowEffort(folder=tmp_path, seed=3))
    assert read_records(tmp_path) == {"one": json.loads((tmp_path / "one.json").read_text())}
    assert found["figures"][0] == {"what": "a number", "value": 1.25, "standard_error": 0.5, "undecided": "short"}
    assert (found["seed"], found["details"]) == (3, {"steps": 7})
    assert "| 1 | 1.25 ± 0.50 | reproduced |" in page({"one": row}, read_records(tmp_path))


OUTCOME = RowOutcome((Figure(1.25, 0.5, "short"),), {"steps": 7})


def test_bad_names_and_rows_that_cannot_be_run(tmp_path):
    with pytest.raises(OptionError, match="did you mean 'lsat6'"):
        experiment.run(experiment.Config("lsat", folder=str(tmp_path)))
    with pytest.raises(RunError, match="the data are not at hand"):
        experiment.run(experiment.Config("cortex", folder=str(tmp_path)))


def test_lsat6_through_the_experiment(tmp_path):
    """All eleven published digits; the maximum is unique but for the sign of θ."""
    found = experiment.run(experiment.Config("lsat6", folder=str(tmp_path)))
    assert [row["verdict"] for row in found.rows] == ["reproduced"] * 11
    assert (tmp_path / "lsat6.json").exists()


def test_the_printed_likelihood_is_below_the_maximum_by_its_formula(monkeypatch):
    torch.manual_seed(0)
    x = (torch.randn(60, 3) @ torch.randn(3, 8) + 0.1 * torch.randn(60, 8)).double()
    monkeypatch.setattr(exact_likelihoods, "LUCAS_LATENTS", 2)
    best = LinearGaussian.maximum_likelihood(x, 2).log_evidence(x).mean().item()
    assert best - exact_likelihoods.printed_likelihood(x) == pytest.approx(0.5 * 8 * math.log(60 / 59), abs=1e-9)


# --- trainings for a time --------------------------------------------------------------------------------------------


def small_pair():
    return VAE(num_features=6, latent_dim=2, hidden=(8,))


OPTIONS = {"batch_size": 20, "learning_rate": 0.01}


def test_the_elbo_from_moments_is_the_mean_over_the_data():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    pair, x = LinearGaussian(5, 2, full_covariance=False), torch.randn(30, 5) + 0.5
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    found = exact_likelihoods.mean_elbo(pair, x.mean(0), torch.cov(x.T, correction=0))
    assert float(found.detach()) == pytest.approx(float(pair.exact_elbo(x).mean().detach()), abs=1e-10)


def test_a_training_ends_with_its_time_and_is_not_taken_up_again(tmp_path):
    x = torch.bernoulli(torch.full((40, 6), 0.5))
    effort = RowEffort(folder=tmp_path, seconds=0.3, compile=False)
    pair, told = trained("small", small_pair, x, lambda: None, effort, **OPTIONS)
    assert told["epochs"] >= 1
    assert told["seconds"] >= 0.3
    again, same = trained("small", small_pair, x, lambda: None, effort, **OPTIONS)
    assert same == told
    assert all(torch.equal(a, b) for a, b in zip(pair.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("ended", [True, False])
def test_a_longer_time_goes_on_from_the_checkpoint_of_a_shorter_one(tmp_path, ended):
    x = torch.bernoulli(torch.full((40, 6), 0.5))
    effort = RowEffort(folder=tmp_path, seconds=0.2, compile=False)
    _, first = trained("small", small_pair, x, lambda: None, effort, **OPTIONS)
    if not ended:  # killed before its note was written
        (tmp_path / "small.training.json").unlink()
    _, second = trained("small", small_pair, x, lambda: None, replace(effort, seconds=1.0), **OPTIONS)
    assert second["steps"] > first["steps"]
    assert second["seconds"] > 0.7  # all of the time, and not one epoch of it


def test_a_checkpoint_keeps_the_time_that_is_spent_and_not_what_was_asked_for():
    old, new = TimeBudget(1.0, epochs=5), TimeBudget(3.0, epochs=50)
    old.spent = 0.9
    kept = LambdaLR(torch.optim.SGD([torch.zeros(1)]), old).state_dict()
    LambdaLR(torch.optim.SGD([torch.zeros(1)]), new).load_state_dict(kept)
    assert (new.seconds, new.epochs, new.spent) == (3.0, 50, 0.9)


def test_epochs_end_a_training_before_its_time(tmp_path):
    x = torch.bernoulli(torch.full((40, 6), 0.5))
    effort = RowEffort(folder=tmp_path, seconds=1e6, compile=False)
    _, told = trained("small", small_pair, x, lambda: None, effort, epochs=3, **OPTIONS)
    assert (told["epochs"], told["steps"]) == (3, 6)


def test_the_learning_rate_falls_by_half_a_cosine_of_time_or_epochs():
    budget = TimeBudget(10.0, epochs=4)
    assert budget(0) == 1.0
    assert budget(2) == pytest.approx(0.5)
    budget.spent = 7.5
    assert budget(2) == pytest.approx((1 + math.cos(0.75 * math.pi)) / 2)
    assert budget(4) == pytest.approx(0.01)


# --- measurements ----------------------------------------------------------------------------------------------------


def test_the_drawn_bound_of_an_exact_guide_is_the_evidence():
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=3, latent_dim=2).set_exact_guide()
    x = torch.randn(7, 3)
    found = drawn_bound(pair, x, 5, seed=0)
    torch.testing.assert_close(found.value, pair.log_evidence(x).detach(), rtol=0, atol=1e-4)
    assert float(found.standard_error.max()) < 1e-4


def test_the_drawn_bound_covers_the_evidence_by_its_error():
    """|z| < 4.5 over 50 data: a false alarm in 3 000 runs; K is large enough for the bound's bias not to show."""
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=3, latent_dim=2)
    with torch.no_grad():
        pair.set_exact_guide().guide_log_scale.add_(0.2)
    x = torch.randn(50, 3)
    found = drawn_bound(pair, x, 4000, seed=0)
    z = (found.value - pair.log_evidence(x).detach()) / found.standard_error
    assert float(z.abs().max()) < 4.5
    assert float(z.std()) > 0.5


def from_the_prior(kind, x, latent_dim):
    """A pair whose guide is the prior, so that the weights are bounded."""
    torch.manual_seed(0)
    pair = kind.for_data(x, latent_dim=latent_dim, hidden=())
    with torch.no_grad():
        pair.encoder[-1].weight.zero_()
        pair.encoder[-1].bias.copy_(torch.tensor([0.0, math.log(math.e - 1)]).repeat_interleave(latent_dim))
    return pair


def test_weighted_means_know_why_a_value_is_missing():
    """E[f(z)|s = 1] by a grid over z and x; 200 000 draws, six errors."""
    pair = from_the_prior(imputation.NotMIWAE, torch.tensor([[0.5], [-1.0], [torch.nan]]), latent_dim=1)
    with torch.no_grad():
        pair.decoder[0].weight.fill_(1.0)
        pair.missing_slope.fill_(2.0)
        pair.missing_intercept.fill_(0.3)
        z, x = torch.meshgrid(torch.linspace(-8, 8, 801), torch.linspace(-9, 9, 901), indexing="ij")
        features = pair.likelihood.features(pair.decoder(z[..., None]))
        log_p = features.log_prob(x[..., None])[..., 0] - z.square() / 2 - torch.nn.functional.softplus(-2 * x - 0.3)
        truth = float((log_p.double().flatten().softmax(0) * features.mean[..., 0].flatten()).sum())
        without = float(features.mean[400].mean())
    found = imputation.weighted_means(pair, torch.tensor([[torch.nan]]), 200_000)
    assert abs(float(found) - truth) < 0.015
    assert abs(truth - without) > 0.1


def test_weighted_means_are_those_of_the_posterior():
    """A decoder that is affine: E[x_missing|x_seen] by conditioning a normal distribution; 50 000 draws, 6 errors."""
    seen = torch.tensor([[0.5, torch.nan, -1.0], [torch.nan, 0.3, 0.2]])
    pair = from_the_prior(imputation.MIWAE, seen, latent_dim=2)
    W, b = pair.decoder[0].weight.detach().double(), pair.decoder[0].bias.detach().double()
    noise = pair.likelihood.features(torch.zeros(3)).scale.detach().double().expand(3)
    cov = W @ W.T + noise.square().diag()
    found = imputation.weighted_means(pair, seen, 50_000)
    for row, x in enumerate(seen.double()):
        at, there = x.isnan(), ~x.isnan()
        best = b[at] + cov[at][:, there] @ torch.linalg.solve(cov[there][:, there], (x - b)[there])
        assert float((found[row].double()[at] - best).abs().max()) < 0.03


def test_the_notebooks_pair_is_linear_and_takes_the_data_as_they_are():
    seen = torch.randn(40, 4)
    seen[:, 0][seen[:, 0] > 0] = torch.nan
    pair = imputation.linear_not_miwae(seen)
    z = torch.randn(3, 10)
    middle = pair.decoder(z[0] + z[1]) + pair.decoder(torch.zeros(10))
    torch.testing.assert_close(pair.decoder(z[0]) + pair.decoder(z[1]), middle)
    assert pair.missing_slope.tolist() == [1.0, 0.0, 0.0, 0.0]
    torch.testing.assert_close(pair.decoder(torch.zeros(10)), seen.nanmean(0), rtol=0, atol=1e-3)


def test_the_root_is_over_missing_values_and_several_runs_have_their_spread():
    full, seen = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, torch.nan], [torch.nan, 4.0]])
    assert imputation._root(full, seen, torch.tensor([[9.0, 5.0], [7.0, 9.0]])) == pytest.approx(math.sqrt(12.5))
    figure = imputation._of_several([1.0, 1.2])
    assert figure.value == pytest.approx(1.1)
    assert figure.standard_error == pytest.approx(math.sqrt(0.02 * 1.5))


def test_the_mass_of_the_targets_is_one():
    """By a grid over the plane, to which their tails outside it and its steps are small."""
    axis = torch.linspace(-60, 60, 401)
    z = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    for density, error in ((known_targets.gaussian_mixture, 1e-3), (known_targets.student_mixture, 5e-3)):
        assert float(density(z).double().exp().sum()) * 0.09 == pytest.approx(1.0, abs=error)


def test_half_of_the_columns_of_the_wines_lack_their_large_values(monkeypatch, tmp_path):
    monkeypatch.setenv("PPVAE_DATA", str(tmp_path))
    with pytest.raises(RunError, match=r"winequality_white\.npz is missing"):
        imputation.white_wine()
    values = torch.randn(50, 11).numpy()
    import numpy as np

    np.savez(tmp_path / "winequality_white.npz", x=values)
    full, seen = imputation.white_wine()
    assert torch.equal(seen.isnan(), (full > 0) & (torch.arange(11) < 5))


def test_signal_to_noise_of_one_particle_has_a_closed_form(monkeypatch):
    """|μ − m|/σ, where q is N(μ, σ²) and the posterior has mean m; 1 ± 4.5/√(2n): a false alarm in 150 000 runs."""
    monkeypatch.setattr(gradient_quality, "OF_SLOPE", 100)
    torch.manual_seed(0)
    pair = LinearGaussian(1, 1).double().set_exact_guide()
    scale, x = float(pair.guide_log_scale.detach().exp()), torch.tensor([[1.0]], dtype=torch.float64)
    with torch.no_grad():
        pair.guide_bias.add_(0.5 * scale)
        pair.guide_log_scale.add_(0.2)  # where q is the posterior the gradients of DReG have no spread
    ratio, square = gradient_quality.signal_to_noise(pair, gradient_quality.IWAE, 1, x)
    assert abs(ratio / (0.5 * math.exp(-0.2)) - 1) < 4.5 / math.sqrt(200)
    assert square < 4.5**2


def test_the_gradient_at_the_posterior(monkeypatch):
    """Zero to rounding for STL and DReG; the score's standard deviations else, within three of their errors."""
    monkeypatch.setattr(gradient_quality, "AT_OPTIMUM", 60)
    stl, dreg, loc, log_scale = gradient_quality.at_the_posterior(RowEffort()).figures
    assert max(stl.value, dreg.value) < 1e-9
    assert abs(loc.value - 1) < 3 * loc.standard_error
    assert abs(log_scale.value - math.sqrt(2)) < 3 * log_scale.standard_error


# --- the rows on MNIST, on pictures of a few pixels -------------------------------------------------------------------


@pytest.fixture
def small_mnist(monkeypatch):
    """Grey pictures of 16 pixels in place of MNIST, and as few draws, chains and images as make sense."""
    torch.manual_seed(0)
    grey = torch.rand(200, 16)
    labels = {"train": torch.arange(100) % 10, "validation": torch.arange(0), "test": torch.arange(100) % 10}
    data = Dataset("mnist", grey[:100], grey[:0], torch.bernoulli(grey[100:]), (4, 4), labels, binarise=True)
    fixed = replace(data, name="binarized_mnist", train=torch.bernoulli(data.train), labels=None, binarise=False)
    for module in (mnist_likelihood, suboptimality, few_labels):
        monkeypatch.setattr(module, "load_dataset", lambda name: fixed if name == fixed.name else data)
        for name, value in SMALL_SIZES.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


SMALL_SIZES = {
    "ANNEALED": 5,
    "CHAINS": 4,
    "DISTRIBUTIONS": 5,
    "PARTICLES": 50,
    "WU_DRAWS": 50,
    "WU_DISTRIBUTIONS": 4,
    "WU_LEAPFROGS": 2,
    "WU_IMAGES": 6,
    "GAP_IMAGES": 6,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["mnist_vae", "fixed_mnist_iwae_5", "fixed_mnist_vamp_prior", "suboptimality", "annealing_from_the_guide"],
)
def test_rows_on_images_run_at_their_smallest_size(small_mnist, name, tmp_path):
    found = reproduce(find_row(name), RowEffort(folder=tmp_path, seconds=0.3, compile=False))
    assert all(math.isfinite(each["value"]) and each["undecided"] for each in found["figures"])
    assert found["details"]["steps"] >= 1


@pytest.mark.slow
def test_the_row_on_few_labels_runs_at_its_smallest_size(small_mnist, tmp_path):
    found = reproduce(find_row("few_labels_100"), RowEffort(folder=tmp_path, seconds=0.5, compile=False))
    assert 0 <= found["figures"][0]["value"] <= 1


def test_bernoulli_pixels_of_a_vae_start_at_the_mean_of_grey_ones():
    torch.manual_seed(0)
    grey = torch.tensor([0.1, 0.5, 0.9]).expand(4000, 3)
    mean = mnist_likelihood.vae_for(grey, latent_dim=2, hidden=(4,)).decode(torch.zeros(2)).mean
    assert isinstance(mnist_likelihood.vae_for(grey, latent_dim=2, hidden=(4,)).likelihood, Bernoulli)
    torch.testing.assert_close(mean, grey[0], rtol=0, atol=0.03)


def test_the_folder_of_the_results_travels_with_the_package():
    assert Path(RESULTS).is_dir()
