"""The bridge between two sets of draws, for Gaussians whose every distance is known."""

import math

import pytest
import torch
import truths_inference as truths
from gate import slow_but
from torch.distributions import Normal, kl_divergence

from ppvae.inference.sampling.bridge_sampling import bridge, effective_draws

LOG_EVIDENCE = -3.0


def correlated_draws(num_chains, num_draws, num_data, rho=0.5):
    """Autoregressive chains of N(0, 1), ``(num_chains, num_draws, num_data)``."""
    u = [torch.randn(num_chains, num_data)]
    for _ in range(num_draws - 1):
        u.append(rho * u[-1] + math.sqrt(1 - rho**2) * torch.randn(num_chains, num_data))
    return torch.stack(u, 1)


def crossing(q, p):
    """TV by the trapezoidal rule."""
    u = torch.linspace(-15, 15, 100_001)
    return float(torch.trapezoid((p.log_prob(u).exp() - q.log_prob(u).exp()).abs(), u) / 2)


@pytest.mark.parametrize(
    ("loc", "scale"), slow_but([(0.0, 0.6), (2.5, 0.8)], [(1.0, 1.0), (0.0, 0.6), (0.0, 1.6), (2.5, 0.8)])
)
def test_truth_and_errors(loc, scale):
    """400 replicates: the mean of z is 0 within 4.5/√400, its spread 1 within 4.5/√800 (and some, for the ESS)."""
    torch.manual_seed(2)
    num = 400
    p, q = Normal(torch.tensor(0.0), torch.tensor(1.0)), Normal(torch.tensor(loc), torch.tensor(scale))
    at_q, at_p = q.sample((1000, num)), correlated_draws(8, 125, num)
    found = bridge(*(LOG_EVIDENCE + p.log_prob(u) - q.log_prob(u) for u in (at_q, at_p)))
    truth = {
        "log_evidence": LOG_EVIDENCE,
        "kl_guide": float(kl_divergence(q, p)),
        "kl_posterior": float(kl_divergence(p, q)),
        "total_variation": crossing(q, p),
    }
    for name, value in truth.items():
        z = (getattr(found, name) - value) / getattr(found, f"{name}_standard_error")
        assert abs(float(z.mean())) < 0.3, name
        assert 0.8 < float(z.std()) < 1.25, name


def test_half_of_the_posterior_is_missed_and_the_evidence_is_right():
    """p = ½N(−4, 1) + ½N(4, 1) and q = N(4, 1): importance sampling finds log ½."""
    torch.manual_seed(0)
    side = torch.randint(2, (8, 500, 1)) * 8.0 - 4
    at_p, at_q = side + torch.randn(8, 500, 1), 4 + torch.randn(4000, 1)
    one, other = Normal(4.0, 1.0), Normal(-4.0, 1.0)

    def log_w(u):
        return torch.logaddexp(one.log_prob(u), other.log_prob(u)) - math.log(2) - one.log_prob(u)

    found = bridge(log_w(at_q), log_w(at_p))
    assert abs(float(found.log_evidence)) < truths.Z_LIMIT * float(found.log_evidence_standard_error)
    assert float(found.log_evidence_standard_error) < 0.05
    assert float(log_w(at_q).logsumexp(0) - math.log(4000)) == pytest.approx(-math.log(2), abs=0.01)
    assert float(found.total_variation) == pytest.approx(0.5, abs=0.03)


def test_an_exact_guide_has_no_error():
    found = bridge(torch.full((100, 2), -7.0), torch.full((4, 50, 2), -7.0))
    for name, value in found._asdict().items():
        assert torch.allclose(value, torch.full((2,), -7.0 if name == "log_evidence" else 0.0), atol=1e-12), name


def test_draws_of_no_density():
    """q outside the support of p weighs nothing; p outside that of q makes KL(p‖q) infinite, and nothing else."""
    torch.manual_seed(0)
    at_q, at_p = torch.zeros(1000, 1), torch.zeros(4, 250, 1)
    at_q[:500] = -math.inf  # p = U(0, 1), q = U(0, 2): log p/q = log 2 or −∞
    at_q[500:], at_p[:] = math.log(2), math.log(2)
    found = bridge(at_q, at_p)
    assert float(found.log_evidence) == pytest.approx(0.0, abs=1e-9)
    assert float(found.kl_posterior) == pytest.approx(math.log(2))
    assert math.isinf(float(found.kl_guide))
    assert float(found.total_variation) == pytest.approx(0.5)
    found = bridge(
        torch.full((1000, 1), -math.log(2)),
        torch.where(torch.arange(250) % 2 == 0, -math.log(2), math.inf).expand(4, 250)[..., None],
    )
    assert math.isinf(float(found.kl_posterior))
    assert float(found.log_evidence) == pytest.approx(0.0, abs=1e-9)


def test_effective_draws_of_an_autoregressive_chain():
    """(1 − ρ)/(1 + ρ) of their number for a mean, and with ρ² for a spread."""
    torch.manual_seed(0)
    u = correlated_draws(8, 2000, 4, rho=0.6)
    assert torch.allclose(effective_draws(u) / 16_000, torch.tensor(0.25), atol=0.03)
    assert torch.allclose(effective_draws(u, "sd") / 16_000, torch.tensor((1 - 0.36) / 1.36), atol=0.05)
    assert effective_draws(torch.zeros(4, 10, 1)).tolist() == [40.0]
