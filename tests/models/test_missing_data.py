"""MIWAE for K > 1: `IWAE` on a pair of data with missing values, against the Gaussian of those that are there."""

import pairs
import pyro
import pytest
import torch

from ppvae.datasets import load_dataset
from ppvae.inference import IWAE, fit
from ppvae.models import MIWAE


def test_the_bound_climbs_to_the_evidence_of_what_is_there():
    """|z| < 4.5 for the order of neighbours, whose differences are of some 0.1 nats."""
    pair = pairs.build("miwae")
    truth, found = pair.truth.sum().item(), {}
    for K in (1, 5, 50):
        objective, values = IWAE(K), []
        for seed in range(30):
            pyro.set_rng_seed(seed)
            values.append(-objective.loss(pair.model, pair.guide, pair.x))
        found[K] = torch.tensor(values)
    means = [found[K].mean().item() for K in found]
    assert means == sorted(means)
    assert means[-1] < truth + 4.5 * found[50].std().item() / 30**0.5
    pyro.set_rng_seed(0)
    assert -IWAE(20_000).loss(pair.model, pair.guide, pair.x) == pytest.approx(truth, abs=0.05)


def test_with_many_particles_the_model_follows_the_evidence():
    pair = pairs.build("miwae")
    (net,) = pair.modules
    weights = list(net.decoder.parameters())
    exact = torch.autograd.grad(-pair.log_evidence(pair.x).sum(), weights)
    pyro.set_rng_seed(0)
    IWAE(20_000).loss_and_grads(pair.model, pair.guide, pair.x)
    for parameter, wanted in zip(weights, exact, strict=True):
        assert torch.allclose(parameter.grad, wanted, atol=0.1)


@pytest.mark.slow
def test_it_trains_by_the_line_of_the_docstring():
    data = load_dataset("breast_cancer_missing")
    torch.manual_seed(0)
    pair = MIWAE.for_data(data.train, latent_dim=2, hidden=(16,))
    result = fit(pair.model, pair.guide, data, loss=IWAE(num_particles=50), epochs=20, progress=False, seed=0)
    assert result.loss == "IWAE"
    assert result.history[-1]["elbo"] > result.history[0]["elbo"] + 2
