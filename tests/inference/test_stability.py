"""The rule for collapsed columns against second differences of the evidence and ELBO of a linear-Gaussian pair."""

import math

import pytest
import torch

from ppvae.errors import DataError, OptionError
from ppvae.inference.latents.stability import column_growth, column_stability
from ppvae.models import LinearGaussian


@pytest.fixture
def x():
    return torch.randn(200, 5) @ torch.randn(5, 5) + torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])


def spectrum(x):
    r = x - x.mean(0)
    values, vectors = torch.linalg.eigh(r.T @ r / len(x))
    return values.flip(0), vectors.flip(1)


def collapsed(x, kept, noise):
    """Probabilistic PCA of a fixed σ² with some columns at their optimum and the last at zero."""
    values, vectors = spectrum(x)
    pair = LinearGaussian.for_data(x, kept + 1)
    with torch.no_grad():
        pair.weight[:, :kept] = vectors[:, :kept] * (values[:kept] - noise).sqrt()
        pair.weight[:, kept:] = 0
        pair.log_noise_scale.fill_(math.log(noise) / 2)
    return pair.set_exact_guide()


@pytest.mark.parametrize("share", [0.6, 0.95, 1.05, 1.5])
def test_at_a_maximum_the_ratio_is_the_left_out_eigenvalue_over_the_noise(x, share):
    left_out = spectrum(x)[0][2].item()
    noise = share * left_out
    found = column_stability(collapsed(x, 2, noise).weight, noise, x)
    assert found.ratio[2].item() == pytest.approx(1 / share, rel=1e-10)
    assert bool(found.stable[2]) == (share > 1)
    assert found.length[2] == 0
    # Columns that are in use would grow again: each leaves out its own eigenvalue.
    for j in (0, 1):
        assert found.ratio[j].item() == pytest.approx(spectrum(x)[0][j].item() / noise, rel=1e-10)
    assert ("the likelihood itself holds" in found.reason(2)) == (share > 1)
    assert ("train longer" in found.reason(2)) == (share < 1)


def directions(x, pair):
    """Along the worst direction in units of the noise: a change of W's last column, and of V's last row."""
    scale = pair.log_noise_scale.exp().expand(5).detach()
    white = (x - x.mean(0)) / scale
    W = pair.weight[:, :-1].detach() / scale[:, None]
    rest = torch.linalg.qr(W, mode="complete").Q[:, W.shape[1] :]
    values, vectors = torch.linalg.eigh(rest.T @ (white.T @ white / len(x)) @ rest)
    return scale * (rest @ vectors[:, -1]), (rest @ vectors[:, -1]) / scale, values[-1]


@pytest.mark.parametrize("diagonal_noise", [False, True])
@pytest.mark.parametrize("share", [0.7, 1.4])
def test_the_rates_are_second_differences_at_any_other_columns(x, share, diagonal_noise):
    """The other column is anything at all; the noise may differ between features."""
    pair = LinearGaussian.for_data(x, 2, diagonal_noise=diagonal_noise)
    with torch.no_grad():
        pair.weight.zero_()
        pair.weight[:, 0] = torch.tensor([0.5, -1.0, 2.0, 0.3, 0.8])
        pair.log_noise_scale.copy_(torch.linspace(-0.3, 0.4, 5) if diagonal_noise else torch.zeros(1))
        pair.log_noise_scale += math.log(share * directions(x, pair)[2].item()) / 2
    pair.set_exact_guide()
    column, row, _ = directions(x, pair)
    noise = (2 * pair.log_noise_scale).exp()
    found = column_stability(pair.weight, noise if diagonal_noise else noise.item(), x)
    assert found.ratio[1].item() == pytest.approx(1 / share, rel=1e-9)

    @torch.no_grad()
    def value(measure, a, b):
        pair.weight[:, 1] += a * column
        pair.guide_weight[1] += b * row
        pair.guide_bias[1] -= b * (row @ pair.bias)
        result = getattr(pair, measure)(x).mean().item()
        pair.guide_bias[1] += b * (row @ pair.bias)
        pair.guide_weight[1] -= b * row
        pair.weight[:, 1] -= a * column
        return result

    step = 1e-3
    evidence = 2 * (value("log_evidence", step, 0) - value("log_evidence", 0, 0)) / step**2
    assert found.evidence_rate[1].item() == pytest.approx(evidence, rel=1e-3)

    def second(i, j):
        """A mixed second difference of the ELBO."""
        signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
        at = [value("exact_elbo", *(s * step * (i == c) + t * step * (j == c) for c in (0, 1))) for s, t in signs]
        return (at[0] - at[1] - at[2] + at[3]) / (4 * step**2)

    matrix = torch.tensor([[second(i, j) for j in (0, 1)] for i in (0, 1)])
    assert found.elbo_rate[1].item() == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-3, abs=1e-4)


def test_small_remains_of_other_collapsed_columns_leave_their_direction_out(x):
    """The second dead column points along the left-out eigenvector, at a hundredth of the noise: it holds nothing."""
    noise = 0.5 * spectrum(x)[0][2].item()
    weight = torch.cat([collapsed(x, 2, noise).weight, 0.01 * math.sqrt(noise) * spectrum(x)[1][:, 2:3]], 1)
    found = column_stability(weight, noise, x)
    assert found.ratio[2].item() == pytest.approx(2, rel=1e-10)
    assert found.length[3].item() == pytest.approx(0.01, rel=1e-9)


def test_nothing_left_out_leaves_nothing_to_grow():
    x = torch.randn(50, 2)
    found = column_stability(torch.cat([torch.eye(2), torch.zeros(2, 1)], 1), 0.1, x)
    assert found.ratio[2] == 0
    assert found.stable[2]


def test_the_rates_have_the_sign_of_the_eigenvalue_less_the_noise():
    for eigenvalue, noise in [(2.0, 1.0), (1.0, 2.0), (0.3, 0.29), (1e-8, 1.0)]:
        evidence, elbo = column_growth(eigenvalue, noise)
        matrix = torch.tensor([[-1 / noise, eigenvalue / noise], [eigenvalue / noise, -eigenvalue]])
        assert elbo == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-6, abs=1e-15)
        assert (evidence > 0) == (elbo > 0) == (eigenvalue > noise)


def test_what_is_no_linear_decoder_is_refused(x):
    with pytest.raises(OptionError, match="weight must have a row for each of the 5 features"):
        column_stability(torch.zeros(4, 2), 1.0, x)
    with pytest.raises(OptionError, match="noise_variance must be one positive number"):
        column_stability(torch.zeros(5, 2), 0.0, x)
    with pytest.raises(OptionError, match="one for each of the 5"):
        column_stability(torch.zeros(5, 2), torch.ones(3), x)
    with pytest.raises(DataError, match="finite matrix"):
        column_stability(torch.zeros(5, 2), 1.0, x * math.nan)
