"""What a trained pair is used for, against closed forms: draws, embeddings, reconstructions, imputations, lines.

A statistic is held to 4.5 of its standard errors unless said otherwise: one false alarm in 147 000 comparisons of one
number. Tests compare fewer than 100 numbers each, so that one in 1000 new seeds or fewer would raise one.
"""

import math

import pairs
import programs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from gate import slow_those
from pyro.infer.autoguide import AutoNormal

from ppvae.errors import DataError, OptionError, PairError
from ppvae.inference import (
    TrainedPair,
    decode,
    embed,
    fit,
    impute,
    interpolate,
    reconstruct,
    sample,
)
from ppvae.models import VAE, Autoencoder, LinearGaussian

LIMIT = truths.Z_LIMIT


@pytest.fixture
def linear():
    """A linear-Gaussian pair with its exact guide, and data of it."""
    pair = LinearGaussian(num_features=4, latent_dim=2).set_exact_guide()
    with torch.no_grad():
        pair.bias.copy_(torch.tensor([0.0, 3.0, -2.0, 100.0]))
    pair.set_exact_guide()
    return pair, pair.bias.detach() + torch.randn(7, 4)


def trained(pair, x):
    return TrainedPair(pair.model, pair.guide, (x,))


# --- sample -----------------------------------------------------------------------------------------------------------


def test_samples_have_the_mean_and_covariance_of_the_model(linear):
    """x ~ N(b, W Wᵀ + σ² I): 4 means and 10 covariances of 20 000 draws, each within 4.5 standard errors."""
    pair, x = linear
    n = 20_000
    drawn = trained(pair, x[:1]).sample(n, seed=0)
    weight = pair.weight.detach()
    covariance = weight @ weight.T + pair.log_noise_scale.exp().detach() ** 2 * torch.eye(4)
    assert drawn.shape == (n, 4)
    sd = covariance.diagonal().sqrt()
    assert ((drawn.mean(0) - pair.bias).abs() < LIMIT * sd / math.sqrt(n)).all()
    error = ((covariance**2 + sd[:, None] ** 2 * sd**2) / n).sqrt()  # of a Gaussian's covariance
    assert ((torch.cov(drawn.T) - covariance).abs() < LIMIT * error).all()


def test_samples_are_those_of_a_seed_and_leave_the_generators_alone(linear):
    pair, x = linear
    before = torch.get_rng_state()
    first, again = (trained(pair, x).sample(5, seed=3) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, trained(pair, x).sample(5))


def test_samples_are_the_same_in_little_memory_but_for_their_draws(linear):
    """Pieces are drawn one after the other: other draws of the same distribution, as many as were asked for."""
    pair, x = linear
    drawn = sample(pair.model, pair.guide, x, 200, seed=0, memory_mb=0.01)
    assert drawn.shape == (200, 4)
    assert len(drawn.unique(dim=0)) == 200


def test_a_discrete_latent_is_drawn():
    """c ~ Categorical, x ~ N(μ_c, σ_c²): the mean of 20 000 draws against Σ π_c μ_c."""
    pair = pairs.build("mixture")
    drawn = sample(pair.model, pair.guide, pair.x, 20_000, seed=0)
    share = torch.tensor([0.5, 0.3, 0.2])
    mean = torch.tensor([[0.0, 0.0], [1.5, -1.0], [-2.0, 0.5]])
    for j in range(2):
        assert abs(truths.z_score(drawn[:, j], float(share @ mean[:, j]))) < LIMIT


def test_draw_i_is_given_the_context_of_row_i():
    """x ~ N(10 c + z, 0.1²), z ~ N(0, 0.1²)."""

    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 0.1))
            pyro.sample("x", dist.Normal(10.0 * c + z, 0.1), obs=x)

    def guide(x, c):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 0.1))

    x, c = torch.zeros(3), torch.tensor([0.0, 1.0, 2.0])
    pair = TrainedPair(model, guide, (x, c))
    drawn = pair.sample(7, like=(x, c), seed=0)
    assert torch.equal(drawn.div(10).round(), c[torch.arange(7) % 3])
    with pytest.raises(OptionError, match=r"like=\(x, \*context\)"):
        pair.sample(7)


def regression():
    """y ~ N(X w, 0.5²), w ~ N(0, I): weights that the data share, with the exact posterior as the guide."""
    X = torch.randn(30, 2)
    y = X @ torch.tensor([1.0, -0.5]) + 0.5 * torch.randn(30)

    def posterior(y, X):
        precision = torch.eye(2) + 4 * X.T @ X
        return torch.linalg.solve(precision, 4 * X.T @ y), torch.linalg.inv(precision)

    def model(y, X):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(X @ w, 0.5), obs=y)

    def guide(y, X):
        pyro.sample("w", dist.MultivariateNormal(*posterior(y, X)))

    return TrainedPair(model, guide, (y, X)), y, X, posterior(y, X)


def test_a_draw_of_data_that_share_latents_is_a_data_set():
    """y ~ N(0, X Xᵀ + ¼ I): the variance of the sum of squares is that of N(0, C), 100 draws."""
    pair, y, X, _ = regression()
    drawn = pair.sample(100, seed=0)
    assert drawn.shape == (100, 30)
    covariance = X @ X.T + 0.25 * torch.eye(30)
    assert abs(truths.z_score(drawn.square().sum(-1), float(covariance.trace()))) < LIMIT
    assert y.shape == drawn[0].shape


def test_nothing_is_drawn_from_an_autoencoder():
    pair = Autoencoder(num_features=4, latent_dim=2)
    with pytest.raises(PairError, match="prior of 'z' is masked"):
        trained(pair, torch.randn(5, 4)).sample(3)


def test_nothing_is_drawn_from_a_model_that_reads_its_data():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + x.mean(), 1.0), obs=x)

    pair = TrainedPair(model, lambda x: pyro.sample("z", dist.Normal(x, 1.0)), (torch.randn(4),))
    with pytest.raises(PairError, match="depends on the values of x"):
        pair.sample(3)
    with pytest.raises(PairError, match="x cannot be reconstructed by the model, since 'x' depends on the values of x"):
        pair.reconstruct(torch.randn(4))


# --- embed ------------------------------------------------------------------------------------------------------------


def test_embeddings_of_an_exact_guide_are_the_posterior_to_rounding(linear):
    pair, x = linear
    found, exact = trained(pair, x).embed(x), pair.posterior(x)
    torch.testing.assert_close(found.mean["z"], exact.mean.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.standard_deviation["z"], exact.stddev.detach(), rtol=1e-10, atol=1e-10)
    assert torch.equal(found.monte_carlo_error["z"], torch.zeros(7, 2))
    assert torch.equal(found.matrix, found.mean["z"])
    assert torch.equal(found.spread, found.standard_deviation["z"])
    assert found.columns == ["z[0]", "z[1]"]


def test_embeddings_where_one_latent_is_drawn_given_another():
    """a ~ N(x, 1), b | a ~ N(2a, 1) under the guide: E b = 2x exactly known by averaging, sd √5, to 4.5 errors."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x, 1.0))
            pyro.sample("b", dist.Normal(2 * a, 1.0))

    x = torch.tensor([-1000.0, 0.0, 1.0, 2.0])
    found = embed(model, guide, x, num_particles=2000, seed=0)
    assert torch.equal(found.mean["a"], x)
    assert ((found.mean["b"] - 2 * x).abs() < LIMIT * found.monte_carlo_error["b"]).all()
    torch.testing.assert_close(found.monte_carlo_error["b"], torch.full((4,), 2 / math.sqrt(2000)), rtol=0.1, atol=0.0)
    torch.testing.assert_close(found.standard_deviation["b"], torch.full((4,), math.sqrt(5)), rtol=0.1, atol=0.0)
    assert found.columns == ["a", "b"]


def test_pieces_of_any_size_give_the_same_exact_embedding(linear):
    pair, x = linear
    pieces = embed(pair.model, pair.guide, x, num_particles=100, memory_mb=0.001)
    torch.testing.assert_close(pieces.matrix, embed(pair.model, pair.guide, x).matrix, rtol=1e-12, atol=1e-12)


def test_plates_inside_a_datum_have_columns_of_their_own():
    pair = pairs.build("plated")
    found = embed(pair.model, pair.guide, pair.data, seed=0)
    assert found.mean["z"].shape == (5, 3)
    assert found.columns == ["z[0]", "z[1]", "z[2]"]


def test_data_that_share_latents_have_no_embeddings():
    pair, y, X, _ = regression()
    with pytest.raises(PairError, match="the data share 'w'"):
        pair.embed((y, X))


def test_a_number_of_a_class_has_no_mean():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(c.to(x.dtype), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(torch.ones(3)))

    with pytest.raises(PairError, match="'c' has no finite mean under the guide"):
        embed(model, guide, torch.randn(4))
    with pytest.raises(PairError, match="'c' is discrete"):
        interpolate(model, guide, torch.randn(4), torch.randn(4))


def test_latents_that_are_all_summed_out_leave_nothing_to_embed():
    pair = pairs.build("mixture")
    with pytest.raises(PairError, match="no latents that are not summed out"):
        embed(pair.model, pair.guide, pair.x)


# --- reconstruct ------------------------------------------------------------------------------------------------------


def test_reconstructions_are_the_posterior_predictive(linear):
    """E[x̃|x] = W m + b and Var = diag(W M⁻¹ Wᵀ) + σ²: 28 means to 4.5 Monte Carlo errors, deviations to 10 %."""
    pair, x = linear
    found, posterior = trained(pair, x).reconstruct(x, num_particles=2000, seed=0), pair.posterior(x)
    weight = pair.weight.detach()
    exact = posterior.mean.detach() @ weight.T + pair.bias.detach()
    variance = (weight @ posterior.covariance_matrix[0].detach() @ weight.T).diagonal()
    assert ((found.mean - exact).abs() < LIMIT * found.monte_carlo_error).all()
    torch.testing.assert_close(found.monte_carlo_error, (variance / 2000).sqrt().expand(7, 4), rtol=0.1, atol=0.0)
    noise = pair.log_noise_scale.exp().detach() ** 2
    torch.testing.assert_close(found.standard_deviation, (variance + noise).sqrt().expand(7, 4), rtol=0.05, atol=0.0)


def test_reconstructions_come_in_pieces(linear):
    pair, x = linear
    found = reconstruct(pair.model, pair.guide, x, num_particles=1000, seed=0, memory_mb=0.01)
    exact = pair.posterior(x).mean.detach() @ pair.weight.detach().T + pair.bias.detach()
    assert ((found.mean - exact).abs() < LIMIT * found.monte_carlo_error).all()


def test_a_class_that_is_summed_out_is_drawn_given_the_datum():
    """E[x̃|x] = Σ p(c|x) μ_c, 5 data by 2 entries, to 4.5 errors of 2000 draws."""
    pair = pairs.build("mixture")
    share = torch.tensor([0.5, 0.3, 0.2])
    mean, std = torch.tensor([[0.0, 0.0], [1.5, -1.0], [-2.0, 0.5]]), torch.tensor([1.0, 0.5, 0.8])
    log_joint = dist.Normal(mean, std[:, None]).to_event(1).log_prob(pair.x[:, None]) + share.log()
    weights = log_joint.softmax(-1)
    found = reconstruct(pair.model, pair.guide, pair.x, num_particles=2000, seed=0)
    # A class of no weight is never drawn: its error is 0, and its share below 1/2000.
    assert ((found.mean - weights @ mean).abs() < LIMIT * found.monte_carlo_error + 2e-3).all()
    second = weights @ (mean**2 + std[:, None] ** 2) - (weights @ mean) ** 2
    torch.testing.assert_close(found.standard_deviation, second.sqrt(), rtol=0.1, atol=0.02)


def test_data_that_share_latents_are_reconstructed_together():
    """E[ỹ|y] = X E[w|y], 30 rows, to 4.5 errors."""
    pair, y, X, (loc, covariance) = regression()
    found = pair.reconstruct((y, X), num_particles=500, seed=0)
    assert ((found.mean - X @ loc).abs() < LIMIT * found.monte_carlo_error).all()
    exact = ((X @ covariance @ X.T).diagonal() + 0.25).sqrt()
    torch.testing.assert_close(found.standard_deviation, exact, rtol=0.1, atol=0.0)


def test_a_distribution_without_moments_is_averaged_over_its_draws():
    """x = exp(z + ε): the normal in x's log has no moments that torch knows as a transformed distribution."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 0.1))
            base = dist.Normal(z, 0.1)
            pyro.sample("x", dist.TransformedDistribution(base, [dist.transforms.ExpTransform()]), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x.log(), 0.1))

    x = torch.tensor([0.8, 1.0, 1.5])
    found = reconstruct(model, guide, x, num_particles=4000, seed=0)
    exact = (0.5 * x.log() + 0.01).exp()
    assert ((found.mean - exact).abs() < LIMIT * found.monte_carlo_error).all()
    torch.testing.assert_close(found.standard_deviation, exact * math.sqrt(math.exp(0.02) - 1), rtol=0.1, atol=0.0)


@pytest.mark.parametrize("likelihood", [dist.Cauchy, lambda loc, scale: dist.Categorical(logits=loc[..., None])])
def test_data_without_a_mean_are_not_reconstructed(likelihood):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", likelihood(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(PairError, match="'x' has no finite mean"):
        reconstruct(model, guide, torch.zeros(4))


def test_counts_are_reconstructed_as_real_numbers():
    pair = pairs.build("gamma_poisson_exact")
    found = reconstruct(pair.model, pair.guide, pair.x.long(), seed=0)
    assert found.mean.dtype == torch.get_default_dtype()


# --- impute -----------------------------------------------------------------------------------------------------------


class Masked:
    """The linear-Gaussian pair with the missing entries masked, and its exact posterior given those that are seen."""

    def __init__(self):
        self.weight, self.bias, self.noise = torch.randn(4, 2), torch.randn(4), 0.5

    def model(self, x):
        seen = ~x.isnan()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            reading = dist.Normal(z @ self.weight.T + self.bias, self.noise).mask(seen).to_event(1)
            pyro.sample("x", reading, obs=x.nan_to_num())

    def guide(self, x):
        scaled = self.weight * (~x.isnan())[..., None] / self.noise
        precision = torch.eye(2) + scaled.mT @ scaled
        rest = (x - self.bias).nan_to_num() / self.noise
        loc = torch.linalg.solve(precision, (scaled.mT @ rest[..., None])[..., 0])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, torch.linalg.inv(precision)))

    def conditional(self, row):
        """Mean and standard deviation of the missing entries given the others, from the joint Gaussian."""
        gone, seen = row.isnan(), ~row.isnan()
        joint = self.weight @ self.weight.T + self.noise**2 * torch.eye(4)
        gain = joint[gone][:, seen] @ torch.linalg.inv(joint[seen][:, seen])
        covariance = joint[gone][:, gone] - gain @ joint[seen][:, gone]
        return self.bias[gone] + gain @ (row[seen] - self.bias[seen]), covariance.diagonal().sqrt()


NAN = math.nan
HOLES = torch.tensor([[0.7, NAN, 0.2, 1.0], [NAN, NAN, -0.6, NAN], [1.0, 2.0, 3.0, 4.0], [NAN, NAN, NAN, NAN]])


def test_imputations_are_the_conditional_gaussian():
    """8 missing entries, means to 4.5 errors of 4000 draws; deviations to 5 %; what is seen stays to the bit."""
    pair, x = Masked(), HOLES.double()
    found = impute(pair.model, pair.guide, x, num_particles=4000, seed=0)
    gone = x.isnan()
    assert found.imputed == 8
    assert torch.equal(found.mean[~gone], x[~gone])
    assert torch.equal(found.standard_deviation[~gone], torch.zeros(8))
    for i, row in enumerate(x):
        mean, sd = pair.conditional(row)
        assert ((found.mean[i][gone[i]] - mean).abs() < LIMIT * found.monte_carlo_error[i][gone[i]]).all()
        torch.testing.assert_close(found.standard_deviation[i][gone[i]], sd, rtol=0.05, atol=0.0)


@pytest.mark.parametrize("name", ["masked_by_a_handler", "masked_with_the_nan_inside", "site_for_each_column"])
def test_every_way_to_mask_is_understood(name):
    """z | the seen of a row is N(m, (1.05 s)²) under these guides: the mean of what is missing is m, to 4.5 errors."""
    program = programs.build(name)
    x = program.x
    precision = 1 + (~x.isnan()).sum(-1) / 0.36
    loc = x.nan_to_num().sum(-1) / 0.36 / precision
    found = impute(program.model, program.guide, x, num_particles=2000, seed=0)
    gone = x.isnan()
    error = (found.mean - loc[:, None]).abs() < LIMIT * found.monte_carlo_error
    assert error[gone].all()
    assert torch.equal(found.mean[~gone], x[~gone])


def test_nothing_missing_leaves_data_as_they_are():
    pair = Masked()
    x = torch.randn(3, 4)
    found = impute(pair.model, pair.guide, x, seed=0)
    assert torch.equal(found.mean, x)
    assert found.imputed == 0


def test_what_is_missing_and_not_masked_is_refused():
    """0 in place of NaN counts as seen: the latents would follow it."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 0.5).expand([len(x), 3]).to_event(1), obs=x.nan_to_num())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.nan_to_num().mean(-1), 0.5))

    with pytest.raises(PairError, match="the model does not mask at 'x'"):
        impute(model, guide, torch.tensor([[0.5, NAN, 0.1]]))


def test_a_missing_value_that_reaches_a_density_is_refused(linear):
    pair, x = linear
    with pytest.raises(DataError, match="reach a density"):
        impute(pair.model, pair.guide, torch.where(torch.eye(7, 4, dtype=torch.bool), NAN, x))


def chained(x):
    """Two readings, the second of which goes on from the first."""
    seen = ~x.isnan()
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        first = pyro.sample("first", dist.Normal(z, 0.5).mask(seen[..., 0]), obs=x[..., 0].nan_to_num())
        pyro.sample("second", dist.Normal(first, 0.5).mask(seen[..., 1]), obs=x[..., 1].nan_to_num())


def narrow(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.0, 1.0))


def test_observations_that_depend_on_each_other_are_not_imputed():
    with pytest.raises(PairError, match="'second' depends on what else is observed"):
        impute(chained, narrow, torch.tensor([[0.5, NAN], [NAN, 1.0]]))


def test_context_that_the_model_observes_is_kept_in_a_reconstruction():
    """y ~ Bernoulli(½) is observed, x ~ N(z + 10 y, 0.5²): E[x̃|x, y] is E z + 10 y, and not E z + 5."""

    def model(x, y):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.5), obs=y)
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + 10.0 * y, 0.5), obs=x)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * (x - 10.0 * y), math.sqrt(0.2)))

    x, y = torch.tensor([0.3, 9.0, -1.0]), torch.tensor([0.0, 1.0, 0.0])
    exact = 0.8 * (x - 10 * y) + 10 * y
    found = reconstruct(model, guide, (x, y), num_particles=1000, seed=0)
    assert ((found.mean - exact).abs() < LIMIT * found.monte_carlo_error).all()
    torch.testing.assert_close(found.standard_deviation, torch.full((3,), math.sqrt(0.45)), rtol=0.1, atol=0.0)
    torch.testing.assert_close(decode(model, guide, 0.8 * (x - 10 * y)[:, None], (x, y)), exact)
    drawn = sample(model, guide, (x, y), 200, seed=0)
    assert 50 < (drawn > 5).sum() < 150  # drawn with x: the chance of less is below 1e-12


def test_they_are_reconstructed_all_the_same():
    """E second = E first = E z = 0, each to 4.5 errors; Var second = 1 + ¼ + ¼."""
    found = reconstruct(chained, narrow, torch.tensor([[0.5, 1.0]]), num_particles=4000, seed=0)
    assert (found.mean.abs() < LIMIT * found.monte_carlo_error).all()
    torch.testing.assert_close(found.standard_deviation[0, 1], torch.tensor(math.sqrt(1.5)), rtol=0.05, atol=0.0)


def test_a_likelihood_that_is_joint_is_not_imputed_in_part():
    """N(z, Σ) masked as a whole where an entry is missing: the entries that are seen say more of it than z does."""
    joint = 0.5 * torch.eye(2) + 0.5

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            both = dist.MultivariateNormal(z[..., None].expand(*z.shape, 2), joint).mask(~x.isnan().any(-1))
            pyro.sample("x", both, obs=x.nan_to_num())

    with pytest.raises(PairError, match="MultivariateNormal, whose numbers depend on each other"):
        impute(model, narrow, torch.tensor([[0.5, NAN], [1.0, 1.0]]))
    found = impute(model, narrow, torch.tensor([[NAN, NAN], [1.0, 1.0]]), seed=0)
    assert found.imputed == 2


# --- log_prob, interpolate, to_datatree -------------------------------------------------------------------------------


def test_log_prob_is_the_evidence(linear):
    pair, x = linear
    evidence = trained(pair, x).log_prob(x, seed=0)
    torch.testing.assert_close(evidence.log_evidence, pair.log_evidence(x).detach(), atol=1e-8, rtol=0.0)
    assert (evidence.standard_error < 1e-6).all()


def test_a_line_leads_from_reconstruction_to_reconstruction(linear):
    """The decoder is linear: every point is that of the line between W m_a + b and W m_b + b."""
    pair, x = linear
    line = interpolate(pair.model, pair.guide, x[:3], x[3:6], 5)
    exact = pair.posterior(x).mean.detach() @ pair.weight.detach().T + pair.bias.detach()
    for k, t in enumerate(torch.linspace(0, 1, 5)):
        torch.testing.assert_close(line[k], (1 - t) * exact[:3] + t * exact[3:6])


def test_latents_that_are_positive_stay_so():
    """z ~ Gamma, the guide's mean is (2 + x)/(1 + 1) …; in the middle lies the geometric mean of the two ends."""
    pair = pairs.build("gamma_poisson_exact")
    ends = embed(pair.model, pair.guide, pair.x).matrix[:, 0]
    line = interpolate(pair.model, pair.guide, pair.x[:2], pair.x[2:4], 3)
    rate = line[0] / ends[:2]  # E[x|z] = rate z
    torch.testing.assert_close(line[1], (ends[:2] * ends[2:4]).sqrt() * rate)


def test_latents_outside_their_support_are_not_decoded():
    pair = pairs.build("gamma_poisson_exact")
    inside = torch.tensor([[0.5], [2.0]])
    assert (decode(pair.model, pair.guide, inside, pair.x) > 0).all()
    with pytest.raises(OptionError, match="outside the support that the model gives 'z'"):
        decode(pair.model, pair.guide, torch.tensor([[0.5], [-1.0]]), pair.x)


def test_lines_between_what_does_not_fit_are_refused(linear):
    pair, x = linear
    with pytest.raises(OptionError, match="b has shape"):
        interpolate(pair.model, pair.guide, x[:2], x[:3])
    with pytest.raises(OptionError, match="num_steps"):
        interpolate(pair.model, pair.guide, x[:2], x[:2], 1)
    conditional = pairs.build("conditional_exact")
    other = (conditional.x, *(c + 1 for c in conditional.context))
    with pytest.raises(OptionError, match="another context"):
        interpolate(conditional.model, conditional.guide, conditional.data, other)
    assert interpolate(conditional.model, conditional.guide, conditional.data, conditional.data, 2).shape[0] == 2


def test_a_tree_for_arviz(linear):
    pair, x = linear
    tree = trained(pair, x).to_datatree(x, predictive=False, seed=0)
    assert tree["posterior"]["z"].sizes["datum"] == 7


# --- a Fit ------------------------------------------------------------------------------------------------------------


def plain_functions():
    """z ~ N(0, 1), x ~ N(w z, 1)."""

    def model(x):
        weight = pyro.param("weight", torch.ones(3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * weight, 1.0).to_event(1), obs=x)

    def guide(x):
        gain = pyro.param("gain", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ gain, 0.5))

    return model, guide


def test_a_fit_of_plain_functions_is_used_on_its_own_values(tmp_path):
    model, guide = plain_functions()
    x = torch.randn(50, 1) * torch.tensor([1.0, 2.0, -1.0]) + 0.1 * torch.randn(50, 3)
    result = fit(model, guide, x, epochs=5, learning_rate=0.05, batch_size=20, progress=False)
    assert result.example[0].shape == (20, 3)
    drawn, z, back = result.sample(10, seed=0), result.embed(x), result.reconstruct(x, seed=0)
    torch.testing.assert_close(z.mean["z"], x @ result.parameters["gain"])
    assert drawn.shape == (10, 3)
    result.save(tmp_path / "fit.pt")
    pyro.clear_param_store()
    assert torch.equal(result.sample(10, seed=0), drawn)
    again = type(result).load(tmp_path / "fit.pt", model, guide, x[:3])
    assert torch.equal(again.sample(10, seed=0), drawn)
    assert torch.equal(again.reconstruct(x, seed=0).mean, back.mean)


def test_a_fit_goes_on_with_more_data():
    """Its programs are trained on from its own values, and the first record stays as it is."""
    model, guide = plain_functions()
    x = torch.randn(60, 3)
    first = fit(model, guide, x[:30], epochs=3, learning_rate=0.05, progress=False)
    before = {name: value.clone() for name, value in first.parameters.items()}
    whole = first.embed(x).matrix
    pyro.clear_param_store()
    second = fit(first.model, first.guide, x, epochs=1, learning_rate=1e-9, progress=False)
    for name, value in before.items():
        torch.testing.assert_close(second.parameters[name], value, atol=1e-6, rtol=0.0)
    third = fit(first.model, first.guide, x, epochs=3, learning_rate=0.05, progress=False)
    assert not torch.equal(third.parameters["weight"], before["weight"])
    assert torch.equal(first.embed(x).matrix, whole)


def test_a_fit_with_latents_that_the_data_share_draws_data_sets():
    _, y, X, _ = regression()

    def model(y, X):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(X @ w, 0.5), obs=y)

    result = fit(model, AutoNormal(model), (y, X), epochs=20, learning_rate=0.05, progress=False)
    assert result.sample(3, seed=0).shape == (3, 30)
    assert result.reconstruct((y, X), seed=0).mean.shape == (30,)
    with pytest.raises(PairError, match="the data share 'w'"):
        result.embed((y, X))
    with pytest.raises(PairError, match="the data share 'w'"):
        result.interpolate((y, X), (y, X))


def test_a_fit_with_a_parameter_for_each_datum():
    """AutoNormal of latents by datum: it is asked about all of its data at once."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    x = torch.randn(40)
    result = fit(model, AutoNormal(model), x, epochs=500, learning_rate=0.02, progress=False)
    assert len(result.example[0]) == 40
    assert result.sample(100, seed=0).shape == (100,)
    found = result.embed(x, num_particles=2000, seed=0)
    # The guide is trained to within 0.15; what is averaged over its draws adds 4.5 errors.
    assert ((found.mean["z"] - 0.8 * x).abs() < 0.15 + LIMIT * found.monte_carlo_error["z"]).all()


def test_a_trained_vae_in_single_precision():
    torch.set_default_dtype(torch.float32)
    x = torch.bernoulli(torch.full((50, 6), 0.3))
    vae = VAE(num_features=6, latent_dim=2, hidden=(8,))
    result = fit(vae.model, vae.guide, x, epochs=2, progress=False)
    drawn = result.sample(5, seed=0)
    assert drawn.dtype == torch.float32
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(result.embed(x).matrix, vae.encode(x)[0])
    torch.testing.assert_close(result.embed(x).spread, vae.encode(x)[1])
    assert result.reconstruct(x, seed=0).mean.dtype == torch.float32
    assert result.interpolate(x[:2], x[2:4], 4).shape == (4, 2, 6)


@pytest.mark.parametrize("name", ["num_particles", "seed", "memory_mb"])
def test_options_without_meaning_are_refused(linear, name):
    pair, x = linear
    for method in ("embed", "reconstruct", "impute"):
        with pytest.raises(OptionError, match=name):
            getattr(trained(pair, x), method)(x, **{name: -1})
    with pytest.raises(OptionError, match="num_samples"):
        trained(pair, x).sample(0)


@pytest.mark.parametrize("name", slow_those(pairs.OTHER_NUMBERS, sorted(pairs.BUILDERS)))
def test_every_pair_has_an_answer_or_a_sentence(name):
    """Shapes are those of the data, numbers are finite, errors stand where draws differ; or the way out is said."""
    pair = pairs.build(name)
    use = TrainedPair(pair.model, pair.guide, pair.args)
    asked = {
        "sample": lambda: use.sample(3, like=pair.data, seed=0),
        "embed": lambda: use.embed(pair.data, seed=0).matrix,
        "reconstruct": lambda: use.reconstruct(pair.data, num_particles=10, seed=0).mean,
        "interpolate": lambda: use.interpolate(pair.data, pair.data, 2, seed=0)[0],
    }
    refused, said = set(), []
    for method, ask in asked.items():
        try:
            found = ask()
        except PairError as error:
            refused.add(method)
            said.append(str(error))
            continue
        assert len(found) == (3 if method == "sample" else len(pair.x))
        assert method == "embed" or found.shape[1:] == pair.x.shape[1:]
        assert found.isfinite().all()
    assert all(": " in sentence for sentence in said)  # what is wrong: a way out
    without_latents = {"embed", "interpolate"} if not pair.latents else set()
    assert refused >= without_latents
    assert refused <= without_latents | {
        "feed_forward": {"reconstruct"},  # the number of a class has no mean
        "autoencoder": {"sample"},
    }.get(name, {"interpolate"} if pair.summed else set())
