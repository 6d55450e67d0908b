"""What the VAE has and the autoencoder has not, each number held against a computation of another kind."""

import functools
import math

import numpy as np
import pytest
import torch
import truths_inference as truths
from scipy import stats

from ppvae.datasets import load_dataset
from ppvae.experiments import autoencoder_comparison
from ppvae.experiments import autoencoder_vs_vae as experiment
from ppvae.inference import fit, importance_evidence
from ppvae.models import VAE, Autoencoder, Binomial

SETTING = experiment.SMALL.settings[0]


@pytest.fixture(scope="module")
def found():
    """The experiment at its smallest size: its result and the comparison behind it, from one run."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "compare_pairs", functools.cache(autoencoder_comparison.compare_pairs))
        result = experiment.run(experiment.SMALL)
        comparison = experiment.compare_pairs(SETTING, experiment.SMALL.seed)
    torch.set_default_dtype(before)
    return result, comparison


@pytest.fixture
def x():
    return load_dataset("digits").train[:40]


def z_score(values):
    return float(values.mean() / values.std() * math.sqrt(len(values)))


def test_only_the_vaes_probabilities_add_up_to_one():
    offered, total, error = experiment.patch_totals(epochs=3, num_particles=1000, seed=1)
    assert abs(total - 1) < truths.Z_LIMIT * error
    assert error < 0.01
    assert offered > 1.5


def test_a_fitted_prior_makes_the_decoder_a_model_whose_evidence_is_the_integral(x):
    """One latent: ∫ N(z; mean, variance of the codes) p(x|g(z)) dz on a fine grid, from the autoencoder alone."""
    setting = autoencoder_comparison.DatasetConfig("digits", 40, 10, 1, (8,), 1)
    autoencoder = Autoencoder.for_data(x, 1, Binomial(16), hidden=(8,))
    codes = 0.7 * torch.randn(200, 1) - 1.3
    pair = autoencoder_comparison.with_prior(autoencoder, codes, x, setting)
    fit(pair.model, pair.guide, x, epochs=20, progress=False)
    evidence = importance_evidence(pair.model, pair.guide, x, 4000, seed=0)
    z = torch.linspace(-8, 6, 1401)[:, None]
    with torch.no_grad():
        log_p = autoencoder.decode(z[:, None]).log_prob(x).numpy()
    prior = stats.norm(codes.mean().item(), codes.std().item()).logpdf(z.numpy())
    truth = torch.from_numpy(np.logaddexp.reduce(log_p + prior, 0) + math.log(14 / 1400))
    known = evidence.pareto_k < 0.5
    assert known.sum() > 20
    difference = (evidence.log_evidence - truth).abs()
    assert (difference < truths.Z_LIMIT * evidence.standard_error + 1e-3)[known].all()
    with torch.no_grad():
        elsewhere = autoencoder_comparison.with_prior(autoencoder, None, x, setting)
        assert not torch.allclose(elsewhere.decode(z).mean, pair.decode(z).mean)
        assert torch.allclose(elsewhere.decode(z).mean, autoencoder.decode(z).mean)


def test_the_fitted_prior_has_the_moments_of_the_codes_and_the_decoder_stays_as_it_is(x):
    autoencoder = Autoencoder.for_data(x, 4, Binomial(16), hidden=SETTING.hidden)
    codes = torch.randn(100, 4) @ torch.randn(4, 4) + torch.arange(4.0)
    pair = autoencoder_comparison.with_prior(autoencoder, codes, x, SETTING)
    place = pair.decoder[0]
    np.testing.assert_allclose(place.weight @ place.weight.T, np.cov(codes.numpy().T), rtol=1e-9)
    np.testing.assert_allclose(place.bias, codes.mean(0), rtol=1e-12)
    encoder = [p.clone() for p in pair.encoder.parameters()]
    fit(pair.model, pair.guide, x, epochs=2, progress=False)
    fixed = zip(pair.decoder[1].parameters(), autoencoder.decoder.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in fixed)
    assert not any(torch.equal(p, q) for p, q in zip(pair.encoder.parameters(), encoder, strict=True))


def test_classifiers_distinguish_samples_of_two_distributions_and_not_of_one():
    """A share within 4.5 binomial errors of ½; two Gaussians √5 apart, near their best possible rate."""
    same = autoencoder_comparison.classifier_accuracy(torch.randn(2000, 5), torch.randn(2000, 5), seed=0)
    shifted = autoencoder_comparison.classifier_accuracy(torch.randn(2000, 5), torch.randn(2000, 5) + 1, seed=0)
    best = stats.norm.cdf(math.sqrt(5) / 2)
    for name in autoencoder_comparison.CLASSIFIERS:
        assert abs(same[name] - 0.5) < truths.Z_LIMIT * 0.5 / math.sqrt(2000)
        assert best - 0.06 < shifted[name] < best + truths.Z_LIMIT * math.sqrt(best * (1 - best) / 2000)


def test_classifiers_are_judged_on_rows_that_they_have_not_seen():
    """Rows of single numbers that say nothing of others: learnt by heart, of no use on the second half."""
    real, other = torch.randn(400, 1), torch.randn(400, 1)
    for share in autoencoder_comparison.classifier_accuracy(real, other, seed=0).values():
        assert share < 0.5 + truths.Z_LIMIT * 0.5 / math.sqrt(400)


def test_reconstructions_are_scored_by_the_binomial_of_scipy(x):
    autoencoder = Autoencoder.for_data(x, 2, Binomial(16), hidden=(8,))
    vae = VAE.for_data(x, Binomial(16), latent_dim=2, hidden=(8,))
    with torch.no_grad():
        scores = autoencoder_comparison._reconstruction(autoencoder, vae, x)
        for score, mean in zip(scores, (autoencoder.reconstruct(x), vae.decode(vae.encode(x)[0]).mean), strict=True):
            expected = stats.binom(16, mean.numpy() / 16).logpmf(x.numpy()).sum(1)
            np.testing.assert_allclose(score, expected, rtol=1e-9)


def test_entropy_rises_by_what_torch_says_and_not_where_nothing_was_erased(x):
    vae = VAE.for_data(x, Binomial(16), latent_dim=3, hidden=(8,))
    blank = x.clone()
    blank[:, 32:] = 0
    with torch.no_grad():
        rise = autoencoder_comparison._entropy_rise(vae, x, (8, 8))["lower half erased"]
        clear, erased = (torch.distributions.Normal(*vae.encode(y)).entropy().sum(-1) for y in (x, blank))
        np.testing.assert_allclose(rise, erased - clear, atol=1e-12)
        assert rise.abs().min() > 0
        assert (autoencoder_comparison._entropy_rise(vae, blank, (8, 8))["lower half erased"] == 0).all()


def test_paths_begin_and_end_at_the_reconstructions_of_data(x):
    autoencoder = Autoencoder.for_data(x, 2, Binomial(16), hidden=(8,))
    vae = VAE.for_data(x, Binomial(16), latent_dim=2, hidden=(8,))
    with torch.no_grad():
        paths = autoencoder_comparison._paths(autoencoder, vae, x)
        copies = autoencoder.reconstruct(x), vae.decode(vae.encode(x)[0]).mean
    for i in range(3):
        for row, copy in zip(paths[2 * i : 2 * i + 2], copies, strict=True):
            assert torch.allclose(row[0], copy[2 * i])
            assert torch.allclose(row[-1], copy[2 * i + 1])
            assert not torch.allclose(row[4], row[5])


@pytest.mark.slow
def test_the_autoencoder_wins_on_its_own_ground(found):
    """log p(x|z) of training data is higher at its code than at the VAE's mean: a mean above 0 by 4.5 errors."""
    _, comparison = found
    autoencoder, vae = comparison.reconstruction["training"]
    assert z_score(autoencoder - vae) > truths.Z_LIMIT


@pytest.mark.slow
def test_the_vae_knows_when_half_of_x_is_gone(found):
    _, comparison = found
    assert z_score(comparison.entropy_rise["lower half erased"]) > truths.Z_LIMIT


@pytest.mark.slow
def test_the_table_holds_a_likelihood_for_every_model_and_none_for_data(found):
    result, comparison = found
    rows = {row["codes from"]: row for row in result.rows}
    assert list(rows) == [autoencoder_comparison.CONTROL, *comparison.evidence]
    assert math.isnan(rows[autoencoder_comparison.CONTROL]["log p(x), test"])
    for name, evidence in comparison.evidence.items():
        assert rows[name]["log p(x), test"] == pytest.approx(float(evidence.log_evidence.mean()))
        assert rows[name]["gap"] > 0
    # 100 held-out data against 100 others: classifiers distinguish samples from data, and not data from data.
    error = rows[autoencoder_comparison.CONTROL]["± binomial"]
    assert error == pytest.approx(0.5 / math.sqrt(SETTING.num_held_out))
    for classifier in autoencoder_comparison.CLASSIFIERS:
        assert abs(rows[autoencoder_comparison.CONTROL][f"{classifier} accuracy"] - 0.5) < truths.Z_LIMIT * error
    for name in comparison.evidence:
        assert rows[name]["forest accuracy"] > 0.5 + truths.Z_LIMIT * error


@pytest.mark.slow
def test_the_figures_can_be_drawn_and_say_what_they_show(found):
    result, _ = found
    assert set(result.figures) == {"classifier_accuracy", "entropy", "samples_digits", "paths_digits"}
    for figure in result.figures.values():
        figure.canvas.draw()
    assert result.figures["classifier_accuracy"].axes[0].get_xlabel()
    assert result.figures["entropy"].axes[0].get_ylabel()
    assert len(result.conclusions) == 1 + 2 + 3 + 3
