"""The DataTree of a pair: its numbers against closed forms and enumeration, and its form against ArviZ itself."""

import itertools
import math
import types
import warnings

import arviz
import arviz_plots
import arviz_stats
import numpy as np
import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
import xarray as xr
from gate import slow_but, slow_those
from matplotlib import pyplot
from pyro import poutine

from ppvae.errors import DataError, NonFiniteError, OptionError, PairError
from ppvae.inference import DrawsFrom
from ppvae.inference.posterior.datatree import to_datatree
from ppvae.inference.posterior.draws import smoothed_weights, weight_stats
from ppvae.models import LinearGaussian

GROUPS = {
    "posterior",
    "sample_stats",
    "log_likelihood",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "observed_data",
}
# What reports this size of error in a test, where a mean over independent draws is compared with its truth.
Z_LIMIT = truths.Z_LIMIT

# For what takes a second each: in levels, in a plate, with context, discrete, all summed out, images, without latents.
KINDS = ["hierarchy", "plated", "conditional", "mixture_in_guide", "mixture", "vae_bernoulli", "feed_forward"]


def tree_of(pair, **options):
    size = {name: options.pop(name) for name in ("num_draws", "num_chains") if name in options}
    if size:
        options["draws"] = DrawsFrom(options.get("draws", "guide"), **size)
    return to_datatree(pair.model, pair.guide, pair.data, **({"seed": 0} | options))


def drawn(tree, name, group="posterior"):
    """Draws as ``(draws, datum, ...)``."""
    return torch.as_tensor(tree[group][name].to_numpy()).flatten(0, 1)


def within(draws, mean, std, count=None):
    """Whether means over the first dim are the truth, by z-scores; ``count`` draws are independent."""
    error = std / math.sqrt(count or len(draws))
    return ((draws.double().mean(0) - mean).abs() < Z_LIMIT * error).all()


@pytest.fixture
def linear():
    """A linear-Gaussian pair at its exact guide, with correlated latents, and data."""
    pair = LinearGaussian(num_features=4, latent_dim=2)
    with torch.no_grad():
        pair.weight.copy_(torch.tensor([[1.0, 0.8], [0.5, 0.9], [-0.3, 0.2], [0.7, 0.1]]))
    return pair.set_exact_guide(), torch.randn(5, 4)


class TestDensities:
    @pytest.mark.parametrize("name", slow_those(pairs.OTHER_NUMBERS, pairs.MEASURED))
    def test_weights_are_log_p_minus_log_q_and_average_to_the_evidence(self, name):
        """|z| < 4.5 for each of about 130 data; every weight where the guide is exact."""
        pair = pairs.build(name)
        stats = tree_of(pair, num_draws=500, predictive=False)["sample_stats"]
        log_w = drawn({"g": stats}, "log_weight", "g")
        torch.testing.assert_close(log_w, torch.as_tensor((stats["log_p"] - stats["log_q"]).to_numpy()).flatten(0, 1))
        w = (log_w - pair.truth).exp()
        if pair.exact and name != "mixture_conditional":  # there z is drawn from the mixture that the guide's odds make
            torch.testing.assert_close(w, torch.ones_like(w))
        else:
            assert within(w, 1.0, w.std(0))

    def test_by_hand(self):
        """`line`: z ~ N(0, 1), x ~ N(z, 1), q = N(x/2, s²/2)."""
        pair = pairs.line(scale=1.25)
        tree = tree_of(pair)
        z, stats, x = tree["posterior"]["z"], tree["sample_stats"], pair.x.numpy()
        half_log_2pi = math.log(2 * math.pi) / 2
        log_likelihood = -((x - z) ** 2) / 2 - half_log_2pi
        log_q = -((z - x / 2) ** 2) / (2 * 1.25**2 / 2) - math.log(1.25 * math.sqrt(0.5)) - half_log_2pi
        np.testing.assert_allclose(tree["log_likelihood"]["x"], log_likelihood, atol=1e-12)
        np.testing.assert_allclose(stats["log_p"], log_likelihood - z**2 / 2 - half_log_2pi, atol=1e-12)
        np.testing.assert_allclose(stats["log_q"], log_q, atol=1e-12)

    def test_the_likelihood_sums_over_plates_and_events(self):
        """`plated`: x ~ N(Σ_j w_j z_j + b, σ² I₂) with z in a plate of three."""
        pair = pairs.build("plated")
        tree = tree_of(pair)
        weight = torch.tensor([[0.9, -0.3, 0.2], [0.1, 0.8, 0.4]])
        loc = drawn(tree, "z") @ weight.T + torch.tensor([0.2, -0.1])
        expected = dist.Normal(loc, 0.6).log_prob(pair.x).sum(-1)
        torch.testing.assert_close(drawn(tree, "x", "log_likelihood"), expected)

    def test_the_likelihood_of_a_class_that_is_summed_out(self):
        """`parts`: log p(x|z) = Σ_j log Σ_c p(c) N(x_j; μ_c + z, σ²)."""
        pair = pairs.build("parts")
        tree = tree_of(pair)
        share, mean = torch.tensor([0.3, 0.6, 0.1]), torch.tensor([-1.0, 0.5, 2.0])
        each = dist.Normal(mean + drawn(tree, "z")[..., None, None], 0.7).log_prob(pair.x[..., None])
        expected = torch.logsumexp(each + share.log(), -1).sum(-1)
        torch.testing.assert_close(drawn(tree, "x", "log_likelihood"), expected)

    def test_a_guide_with_classes_has_the_density_of_its_mixture(self):
        """`mixture_conditional`: q(z|x) = Σ_c q(c) N(z; m_c, s_c²), and draws from it."""
        pair = pairs.build("mixture_conditional")
        tree = tree_of(pair, num_draws=1000)
        z, odds = drawn(tree, "z"), torch.tensor([0.6, 0.3, 0.1])
        trace = poutine.trace(poutine.condition(pair.guide, {"c": torch.arange(3)})).get_trace(pair.x[:1].expand(3, 2))
        fn = trace.nodes["z"]["fn"]
        expected = torch.logsumexp(fn.log_prob(z[:, 0, None]) + odds.log(), -1)
        torch.testing.assert_close(drawn(tree, "log_q", "sample_stats")[:, 0], expected)
        mean = (odds * fn.mean).sum()
        std = ((odds * (fn.variance + fn.mean**2)).sum() - mean**2).sqrt()
        assert within(z[:, 0], mean, std)

    def test_a_class_that_only_the_guide_marks_is_summed_out_of_both(self):
        pair = pairs.build("mixture_in_guide")
        model = poutine.infer_config(pair.model, lambda site: {"enumerate": None})
        tree = to_datatree(model, pair.guide, pair.x, seed=0)
        xr.testing.assert_equal(tree["sample_stats"].to_dataset(), tree_of(pair)["sample_stats"].to_dataset())
        assert tree.attrs["summed_out"] == "c"

    def test_draws_that_the_guide_cannot_make_have_density_zero(self):
        pair = pairs.uniform([0.1, 0.1], [0.9, 0.9])
        stats = tree_of(pair, draws={"z": torch.tensor([[[0.5, 0.95]]])})["sample_stats"]
        np.testing.assert_allclose(stats["log_q"][0, 0], [-math.log(0.8), -math.inf])
        assert np.isfinite(stats["log_p"]).all()

    def test_scales_are_left_out_and_masks_count(self):
        def model(x):
            with pyro.plate("data", len(x)), poutine.scale(scale=7.0):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0).mask(x < 1), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        log_likelihood = drawn(to_datatree(model, guide, torch.tensor([0.0, 2.0]), seed=0), "x", "log_likelihood")
        assert (log_likelihood[:, 1] == 0).all()
        assert (log_likelihood[:, 0] < -0.9).all()

    def test_auxiliary_sites_of_the_guide_count_and_are_left_out(self):
        """q(u, z|x) = N(u; 0, 1) δ(z − 2u) with the Delta's log density −log 2: q(z|x) = N(0, 4)."""

        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
                pyro.sample("z", dist.Delta(2 * u, log_density=-math.log(2)))

        x = torch.zeros(3)
        tree = to_datatree(model, guide, x, seed=0)
        assert list(tree["posterior"].data_vars) == ["z"]
        torch.testing.assert_close(drawn(tree, "log_q", "sample_stats"), dist.Normal(0, 2.0).log_prob(drawn(tree, "z")))
        given = to_datatree(model, guide, x, draws=tree["posterior"], seed=0)
        assert set(given["sample_stats"].data_vars) == {"log_p"}  # log q(z|x) would be an integral over u


class TestDraws:
    def test_the_exact_guide_has_the_posteriors_moments(self, linear):
        pair, x = linear
        z = drawn(to_datatree(pair.model, pair.guide, x, draws=DrawsFrom(num_draws=1000), seed=0), "z")
        posterior = pair.posterior(x)
        assert within(z, posterior.mean, posterior.stddev)
        residual = z - posterior.mean
        product = residual[..., 0] * residual[..., 1]
        assert within(product, posterior.covariance_matrix[:, 0, 1], product.std(0))

    @pytest.mark.parametrize("memory_mb", [64.0, 1.0])
    def test_resampling_mends_a_guide_that_is_too_wide_and_shifted(self, memory_mb):
        """`linear`, s = 1.4 and half a posterior sd off: mean and covariance of what is kept, by z-scores.

        The variance of a mean of resampled draws is that of weighting, σ²/ESS at most fourfold here, and that of
        drawing: 2 (means) + 3 (products) numbers for each of 6 data.
        """
        pair = pairs.linear(scale=1.4, shift=0.5)
        tree = tree_of(pair, draws="psis", num_draws=1000, memory_mb=memory_mb)
        z, ess = drawn(tree, "z"), torch.as_tensor(tree["sample_stats"]["importance_ess"].to_numpy())
        exact = drawn(tree_of(pairs.linear(), draws="guide", num_draws=25_000, predictive=False, seed=1), "z")
        for moment in (lambda z: z, lambda z: z**2, lambda z: z[..., :1] * z[..., 1:]):
            difference = moment(z).mean(0) - moment(exact).mean(0)
            variance = moment(exact).var(0)
            error = (variance * (1 / len(z) + 1 / len(exact) + 4 / ess[:, None])).sqrt()
            assert (difference.abs() < Z_LIMIT * error).all()
        guide = drawn(tree_of(pair, num_draws=1000), "z")
        assert ((guide.mean(0) - exact.mean(0)).abs() > 0.1).any()  # the guide itself has others

    def test_resampling_says_what_the_draws_are_worth(self):
        """For s times too wide a Gaussian in d dimensions ESS/K → 1/(1 + Var w) = (√(2 − 1/s²)/s)^d; k̂ = 1 − s² < 0."""
        tree = tree_of(pairs.linear(scale=1.25), draws="psis", num_draws=500, predictive=False)
        share = 1 / (1 + truths.relative_weight_variance(1.25, 2))
        np.testing.assert_allclose(tree["sample_stats"]["importance_ess"] / 20_000, share, rtol=0.05)
        assert (tree["sample_stats"]["pareto_k"] < 0.2).all()
        narrow = tree_of(pairs.linear(scale=0.5), draws="psis", num_draws=500, predictive=False)
        assert (narrow["sample_stats"]["pareto_k"] > 0.5).all()  # k = 0.75

    def test_weights_are_smoothed_as_arviz_smooths_them(self):
        log_w = torch.stack([2 * torch.randn(500).abs(), torch.zeros(500), torch.randn(500).clamp(max=1)], 1)
        weights = smoothed_weights(log_w, weight_stats(log_w)[0])
        expected = xr.DataArray(-log_w[:, 0].numpy(), dims="draw").azstats.psislw(dim="draw")[0]
        np.testing.assert_allclose(weights[:, 0].log(), expected)
        assert (weights[:, 0] - log_w[:, 0].softmax(0)).abs().max() > 1e-3
        torch.testing.assert_close(weights[:, 1:], log_w[:, 1:].softmax(0))  # equal; and with a tail that ends

    def test_each_datum_has_its_own_weights(self):
        """x ~ N(z, 0.3²) at 0.2 and 0.9; the second guide draws where the likelihood hardly varies."""
        for memory_mb in (64.0, 0.1):
            tree = tree_of(pairs.uniform([0.0, 0.7], [1.0, 0.9]), draws="psis", num_draws=20, memory_mb=memory_mb)
            share = tree["sample_stats"]["importance_ess"].to_numpy() / 800
            assert share[0] < 0.8 < 0.9 < share[1]

    def test_resampling_keeps_sites_of_one_draw_together(self):
        """`hierarchy`: log p and log q are those of the draw that was kept; they could not be, were sites mixed up."""
        pair = pairs.build("hierarchy")
        tree = tree_of(pair, draws="psis", num_draws=50)
        guide = tree_of(pair, draws=tree["posterior"])
        for name in ("log_p", "log_q", "log_weight"):
            np.testing.assert_array_equal(guide["sample_stats"][name], tree["sample_stats"][name])
        kept = drawn(tree, "log_weight", "sample_stats")
        assert (kept.mean(0) > drawn(tree_of(pair), "log_weight", "sample_stats").mean(0)).all()  # the posterior's mean
        z1, z2 = drawn(tree, "z1"), drawn(tree, "z2")
        assert all(
            len(torch.unique(torch.cat([z1[:, n], z2[:, n]], -1), dim=0)) == len(torch.unique(z1[:, n], dim=0))
            for n in range(5)
        )

    def test_the_closed_form(self, linear):
        pair, x = linear
        with torch.no_grad():
            pair.guide_bias.add_(1.0)  # the guide is wrong, the closed form is not
        tree = to_datatree(pair.model, pair.guide, x, draws=DrawsFrom("exact", num_draws=1000), seed=0)
        posterior = pair.posterior(x)
        assert within(drawn(tree, "z"), posterior.mean, posterior.stddev)
        square = (drawn(tree, "z") - posterior.mean).square()
        assert within(square, posterior.variance, math.sqrt(2) * posterior.variance)
        log_q = drawn(tree, "log_q", "sample_stats")
        guide = torch.distributions.MultivariateNormal(posterior.mean + 1.0, posterior.covariance_matrix)
        torch.testing.assert_close(log_q, guide.log_prob(drawn(tree, "z")))
        # log p(x, z) − log p(z|x) = log p(x) wherever it is evaluated
        log_p = drawn(tree, "log_p", "sample_stats")
        evidence = pair.log_evidence(x).expand(len(log_p), -1)
        torch.testing.assert_close(log_p - posterior.log_prob(drawn(tree, "z")), evidence)

    @pytest.mark.parametrize("name", ["plated", "hierarchy", "conditional", "mixture_in_guide"])
    def test_draws_of_ones_own_come_back_with_their_densities(self, name):
        pair = pairs.build(name)
        first = tree_of(pair, num_draws=20, num_chains=3)
        record = {name: torch.as_tensor(v.to_numpy()) for name, v in first["posterior"].data_vars.items()}
        again = tree_of(pair, draws=record)
        xr.testing.assert_equal(again, tree_of(pair, draws=types.SimpleNamespace(draws=record)))
        xr.testing.assert_equal(first["posterior"].to_dataset(), again["posterior"].to_dataset())
        xr.testing.assert_allclose(first["log_likelihood"].to_dataset(), again["log_likelihood"].to_dataset())
        np.testing.assert_allclose(first["sample_stats"]["log_weight"], again["sample_stats"]["log_weight"])
        assert again.attrs["draws"] == "given"
        assert "pareto_k" not in again["sample_stats"]  # they are not weights of these draws

    def test_all_sources_have_one_shape(self, linear):
        pair, x = linear
        trees = {
            d: to_datatree(pair.model, pair.guide, x, draws=DrawsFrom(d, num_draws=30), seed=0)
            for d in ("guide", "psis", "exact")
        }
        trees["hmc"] = to_datatree(pair.model, pair.guide, x, draws={"z": torch.randn(4, 30, 5, 2)}, seed=0)
        assert len({str(tree["posterior"].sizes) for tree in trees.values()}) == 1
        arviz_plots.plot_forest(trees, coords={"datum": [0]})
        pyplot.close("all")

    def test_the_seed_repeats_them_and_leaves_the_generator(self):
        pair = pairs.build("line")
        state = torch.get_rng_state()
        for draws in ("guide", "psis"):
            one, two = (tree_of(pair, draws=draws, num_draws=10) for _ in range(2))
            xr.testing.assert_equal(one, two)
        assert torch.equal(torch.get_rng_state(), state)
        assert not one["posterior"].equals(tree_of(pair, draws="psis", num_draws=10, seed=1)["posterior"])


class TestPredictive:
    def test_data_from_the_prior_and_from_the_posterior(self, linear):
        """x̃ ~ N(b, WWᵀ + Ψ), and given x: mean W m + b, variance W S Wᵀ + Ψ."""
        pair, x = linear
        tree = to_datatree(pair.model, pair.guide, x, draws=DrawsFrom(num_draws=1000), seed=0)
        W, noise = pair.weight.detach(), (2 * pair.log_noise_scale.detach()).exp()
        prior_var = (W @ W.T).diagonal() + noise
        assert within(drawn(tree, "x", "prior_predictive"), pair.bias.detach().expand(5, 4), prior_var.sqrt())
        square = drawn(tree, "x", "prior_predictive").square()
        assert within(square, prior_var.expand(5, 4), math.sqrt(2) * prior_var)
        assert within(drawn(tree, "z", "prior"), torch.zeros(5, 2), torch.ones(5, 2))
        posterior = pair.posterior(x)
        std = ((W @ posterior.covariance_matrix[0].detach() @ W.T).diagonal() + noise).sqrt()
        predicted = drawn(tree, "x", "posterior_predictive")
        assert within(predicted, posterior.mean.detach() @ W.T + pair.bias.detach(), std)
        # x̃ goes with the draw of its own index
        residual = predicted - drawn(tree, "z") @ W.T - pair.bias.detach()
        assert within(residual.square(), noise.expand(5, 4), math.sqrt(2) * noise)

    def test_a_class_is_drawn_from_its_posterior(self):
        """`mixture`: E[x̃|x] = Σ_c p(c|x) μ_c."""
        pair = pairs.build("mixture")
        predicted = drawn(tree_of(pair, num_draws=1000), "x", "posterior_predictive")
        share, mean = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([[0.0, 0.0], [1.5, -1.0], [-2.0, 0.5]])
        std = torch.tensor([1.0, 0.5, 0.8])
        joint = dist.Normal(mean, std[:, None]).to_event(1).log_prob(pair.x[:, None]) + share.log()
        assert within(predicted, joint.softmax(-1) @ mean, predicted.std(0))

    def test_a_chain_of_classes_is_drawn_as_a_whole(self):
        """`chain`: E[x̃_t|x] = Σ over 2⁵ paths, and E[x̃_0 x̃_1|x], which sees the states together."""
        pair = pairs.build("chain")
        tree = tree_of(pair, num_draws=1000)
        predicted = torch.stack([drawn(tree, f"x{t}", "posterior_predictive") for t in range(5)], -1)
        start, step, mean = torch.tensor([0.6, 0.4]), torch.tensor([[0.8, 0.2], [0.3, 0.7]]), torch.tensor([-1.0, 1.0])
        paths = torch.tensor(list(itertools.product(range(2), repeat=5)))
        log_prior = start[paths[:, 0]].log() + step[paths[:, :-1], paths[:, 1:]].log().sum(-1)
        log_joint = log_prior + dist.Normal(mean[paths], 0.9).log_prob(pair.x[:, None]).sum(-1)
        odds = log_joint.softmax(-1)
        assert within(predicted, odds @ mean[paths], predicted.std(0))
        product = predicted[..., 0] * predicted[..., 1]
        assert within(product, odds @ (mean[paths[:, 0]] * mean[paths[:, 1]]), product.std(0))

    def test_a_class_goes_with_the_draw_it_belongs_to(self):
        """`mixture_in_model`: E[x̃ | z, x] = Σ_c p(c|z, x) (a_c z + b_c) for every single draw z."""
        pair = pairs.build("mixture_in_model")
        tree = tree_of(pair, num_draws=1000)
        z = drawn(tree, "z")
        share = torch.tensor([0.2, 0.5, 0.3])
        slope = torch.tensor([[1.0, 0.0], [0.5, -0.8], [-0.3, 0.9]])
        offset = torch.tensor([[0.0, 1.0], [0.5, -0.5], [-1.0, 0.0]])
        loc = slope * z[..., None, None] + offset
        odds = (dist.Normal(loc, 0.6).to_event(1).log_prob(pair.x[:, None]) + share.log()).softmax(-1)
        residual = drawn(tree, "x", "posterior_predictive") - (odds[..., None] * loc).sum(-2)
        assert within(residual, torch.zeros(4, 2), residual.std(0))
        assert within(residual * z[..., None], torch.zeros(4, 2), (residual * z[..., None]).std(0))

    def test_images_keep_their_shape(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Bernoulli(logits=z[..., None, None].expand(*z.shape, 3, 2)).to_event(2), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        x = torch.ones(4, 3, 2)
        tree = to_datatree(model, guide, x, draws=DrawsFrom(num_draws=5), dims={"x": ["row", "column"]}, seed=0)
        assert tree["posterior_predictive"]["x"].dims == ("chain", "draw", "datum", "row", "column")
        np.testing.assert_array_equal(tree["observed_data"]["x"], x)
        assert tree["observed_data"]["x"].dims == ("datum", "row", "column")

    def test_can_be_left_out(self):
        tree = tree_of(pairs.build("line"), predictive=False)
        assert set(tree.children) == GROUPS - {"prior_predictive", "posterior_predictive"}

    def test_a_sequence_whose_distribution_knows_no_length(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                emission = dist.Normal(z[..., None, None] + torch.tensor([-1.0, 1.0]), 1.0)
                pyro.sample("x", dist.DiscreteHMM(torch.zeros(2), torch.zeros(2, 2), emission), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        x = torch.randn(4, 5)
        with pytest.raises(PairError, match="predictive=False"):
            to_datatree(model, guide, x)
        tree = to_datatree(model, guide, x, predictive=False)
        np.testing.assert_array_equal(tree["observed_data"]["x"], x)

    def test_a_draw_that_is_shorter_than_the_data_is_not_repeated_to_their_length(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        with pytest.raises(PairError, match=r"'x' has shape \(1,\) and what was given \(5,\)"):
            to_datatree(model, guide, torch.randn(4, 5))
        assert to_datatree(model, guide, torch.randn(4, 5), predictive=False)["observed_data"]["x"].shape == (4, 5)

    def test_a_likelihood_that_cannot_be_drawn_from_is_named(self):
        class Silent(dist.Normal):
            def rsample(self, sample_shape=()):
                raise NotImplementedError("no sampler")

            sample = rsample

            def expand(self, batch_shape, _instance=None):
                return super().expand(batch_shape, self._get_checked_instance(Silent, _instance))

        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", Silent(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        with pytest.raises(PairError, match=r"no sampler.*predictive=False"):
            to_datatree(model, guide, torch.zeros(3))
        assert "prior" in to_datatree(model, guide, torch.zeros(3), predictive=False)


class TestForm:
    def test_attributes(self):
        tree = tree_of(pairs.build("mixture_in_model"), num_draws=2)
        for node in tree.subtree:
            assert node.attrs["creation_library"] == "ppvae"
            assert node.attrs["inference_library"] == "pyro"
            assert node.attrs["inference_library_version"] == pyro.__version__
            assert {"created_at", "creation_library_version", "torch_version"} < set(node.attrs)
            assert node.attrs["seed"] == 0
            assert node.attrs["summed_out"] == "c"
            assert node.attrs["draws"] == "the guide, q(z|x)"
        assert {v.attrs.get("units") for n, v in tree["sample_stats"].data_vars.items() if n.startswith("log_")} == {
            "nats"
        }
        assert tree["log_likelihood"]["x"].attrs["units"] == "nats"
        pair = LinearGaussian(3, 2)
        tree = to_datatree(pair.model, pair.guide, torch.zeros(2, 3))
        assert tree.attrs["pair"] == "LinearGaussian"
        assert "seed" not in tree.attrs

    def test_context_is_constant_data_under_its_own_name(self):
        pair = pairs.build("conditional")
        tree = tree_of(pair, num_draws=2, dims={"u": ["covariate"]})
        assert tree["constant_data"]["u"].dims == ("datum", "covariate")
        np.testing.assert_array_equal(tree["constant_data"]["u"], pair.context[0])

    def test_coords_and_dims_as_arviz_takes_them(self):
        pair = pairs.build("plated")
        names = ["a", "b", "c", "d", "e"]
        for dims in ({"z": ["part"]}, {"z": ["datum", "part"]}):
            tree = tree_of(pair, num_draws=3, dims=dims, coords={"part": ["l", "m", "r"], "datum": names})
            assert tree["posterior"]["z"].dims == ("chain", "draw", "datum", "part")
            for group in GROUPS:
                assert tree[group]["datum"].to_numpy().tolist() == names
        assert arviz_stats.summary(tree).index[0] == "z[a, l]"
        z = to_datatree(pair.model, pair.guide, pair.x, draws=DrawsFrom(num_draws=3), seed=0)["posterior"]["z"]
        assert z.dims == ("chain", "draw", "datum", "z_dim_0")
        np.testing.assert_array_equal(z.sel(datum=1), tree["posterior"]["z"].sel(datum="b"))

    @pytest.mark.parametrize("draws", ["guide", pytest.param("psis", marks=pytest.mark.slow)])
    def test_memory_changes_neither_form_nor_truth(self, draws):
        pair = pairs.build("mixture_in_guide")
        tree = tree_of(pair, draws=draws, num_draws=25, memory_mb=0.02)
        assert tree["posterior"]["z"].shape == (4, 25, 4)
        again = tree_of(pair, draws=tree["posterior"])
        np.testing.assert_allclose(again["sample_stats"]["log_p"], tree["sample_stats"]["log_p"])
        np.testing.assert_allclose(again["log_likelihood"]["x"], tree["log_likelihood"]["x"])
        np.testing.assert_array_equal(tree["observed_data"]["x"], pair.x)

    def test_single_precision_stays(self):
        pair = LinearGaussian(num_features=3, latent_dim=2).float()
        tree = to_datatree(
            pair.model, pair.guide, torch.zeros(4, 3, dtype=torch.float32), draws=DrawsFrom("exact", num_draws=4)
        )
        assert tree["posterior"]["z"].dtype == tree["posterior_predictive"]["x"].dtype == np.float32
        assert tree["sample_stats"]["log_p"].dtype == np.float64


class TestArviz:
    @pytest.mark.parametrize("name", slow_but(KINDS, pairs.MEASURED))
    def test_tables_and_files_of_every_pair(self, name, tmp_path):
        """What has no latents that are drawn has no posterior to be summed up: there it is the predictive one."""
        pair = pairs.build(name)
        tree = tree_of(pair, num_draws=50)
        group = "posterior" if pair.latents else "posterior_predictive"
        variables = tree[group].data_vars
        assert set(tree["posterior"].data_vars) == pair.latents
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of draws that do not differ: a Delta's, or binary ones
            table = arviz_stats.summary(tree, group=group)
            rhat, ess = arviz_stats.rhat(tree, group=group), arviz_stats.ess(tree, group=group)
        assert len(table) == sum(v[0, 0].size for v in variables.values())
        if name != "autoencoder" and pair.latents:
            assert all((rhat[v] < 1.1).all() and (ess[v] > 50).all() for v in variables)  # of 200 independent draws
        path = tmp_path / "tree.nc"
        tree.to_netcdf(path, engine="h5netcdf")
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            xr.testing.assert_identical(opened.load(), tree)

    @pytest.mark.parametrize("name", ["hierarchy", "conditional", "parts", "feed_forward"])
    def test_files_open_in_arviz(self, name, tmp_path):
        pair = pairs.build(name)
        tree = tree_of(pair, num_draws=10)
        tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
        read = arviz.from_netcdf(tmp_path / "tree.nc")
        assert (
            isinstance(read, xr.DataTree) or pair.latents or "posterior" not in read
        )  # ArviZ 0.23 drops what is empty
        groups = set(tree.children) - ({"posterior"} if "posterior" not in read else set())
        for group in groups:
            found = read[group]
            dataset = found.to_dataset() if isinstance(found, xr.DataTree) else found
            xr.testing.assert_identical(dataset, tree[group].to_dataset())

    @pytest.mark.parametrize("name", slow_but(KINDS, pairs.MEASURED))
    def test_figures_of_every_pair(self, name):
        pair = pairs.build(name)
        tree = tree_of(pair, num_draws=50)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if pair.latents:
                arviz_plots.plot_forest(tree, coords={"datum": [0, 1]})
                # A dim of length 1 has to be pointed at: plot_pair of ArviZ 0.8 cannot name what is left of it.
                short = {dim: 0 for dim, size in tree["posterior"].sizes.items() if size == 1}
                arviz_plots.plot_pair(tree, coords={"datum": 0, **short})
            if pair.latents and name != "autoencoder":  # whose weights p(z)/q(z|x) do not vary
                stats = tree["sample_stats"]
                loo = arviz_stats.loo_approximate_posterior(
                    tree, log_p=stats["log_p"], log_q=stats["log_q"], pointwise=True
                )
                arviz_plots.plot_khat(loo)
            arviz_plots.plot_ppc_dist(tree, kind="ecdf", num_samples=10)
            pit = (tree["posterior_predictive"].to_dataset() <= tree["observed_data"].to_dataset()).mean(
                ("chain", "draw")
            )
            tree["pit"] = xr.DataTree(pit)
            arviz_plots.plot_ecdf_pit(tree, group="pit", sample_dims=["datum"])
        pyplot.close("all")

    def test_ranks_of_independent_draws(self):
        arviz_plots.plot_rank(tree_of(pairs.build("line")))
        pyplot.close("all")


class TestLeaveOneOut:
    """Without x_n nothing is known of z_n but its prior: elpd_loo is Σ log p(x_n)."""

    @pytest.mark.parametrize("name", ["vae_binomial", "stored", "mixture_in_model", "line"])
    def test_arviz_finds_the_evidence_of_every_datum(self, name):
        """Beside the truth: the self-normalised estimate's own error, from its weights p(z)/q(z|x) without smoothing.

        Where the guide is narrower than the prior k̂ is large and the estimate too high; there ArviZ says so.
        """
        pair = pairs.build(name)
        tree = tree_of(pair, num_draws=2500, predictive=False)
        stats = tree["sample_stats"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loo = arviz_stats.loo_approximate_posterior(
                tree, log_p=stats["log_p"], log_q=stats["log_q"], pointwise=True
            )
            arviz_plots.plot_khat(loo)
        pyplot.close("all")
        assert loo.elpd_i.dims == loo.pareto_k.dims == ("datum",)
        log_likelihood = drawn(tree, next(iter(tree["log_likelihood"].data_vars)), "log_likelihood")
        ratio = (drawn(tree, "log_weight", "sample_stats") - log_likelihood).softmax(0)
        likelihood = (log_likelihood - pair.truth).exp()
        error = (ratio * (likelihood - 1)).square().sum(0).sqrt()
        good = torch.as_tensor(loo.pareto_k.to_numpy() < 0.5)
        assert good.any()
        off = torch.as_tensor(loo.elpd_i.to_numpy()) - pair.truth
        assert (off.abs() < Z_LIMIT * error)[good].all()

    def test_a_pair_without_latents_has_nothing_to_weigh(self):
        tree = tree_of(pairs.build("feed_forward"), num_draws=10)
        assert (tree["sample_stats"]["log_weight"] == tree["log_likelihood"]["y"]).all()


class TestBadInputs:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"draws": "hmc"}, "draws must be one of .*it is 'hmc'"),
            ({"draws": ["guide"]}, "draws must be one of .*it is of type list"),
            ({"draws": DrawsFrom}, "draws must be one of .*it is the class DrawsFrom"),
            ({"num_draws": 0}, "num_draws must be an integer of at least 1; it is 0"),
            ({"num_chains": 2.0}, "num_chains must be an integer"),
            ({"memory_mb": 0}, "memory_mb must be a positive number"),
            ({"draws": {}}, r"draws lacks 'z'.*\['z'\]"),
            ({"draws": {"z": torch.zeros(1, 2, 5, 3), "w": torch.zeros(1)}}, "draws holds 'w'"),
            ({"draws": {"z": torch.zeros(1, 2, 5)}}, r"draws has \(1, 2, 5\) for 'z', and the pair \(1, 2, 5, 3\)"),
            ({"draws": {"z": torch.zeros(0, 2, 5, 3)}}, "draws holds nothing"),
            ({"draws": {"z": torch.zeros(5)}}, "draws holds nothing"),
            ({"draws": {"z": torch.full((1, 2, 5, 3), torch.nan)}}, "draws holds NaN or infinite values for 'z'"),
            ({"dims": {"y": ["a"]}}, r"dims names 'y'.*\['x', 'z'\]"),
            ({"dims": {"z": ["a", "b"]}}, "dims of 'z' must be a list of up to 1 different names"),
            ({"dims": {"z": "part"}}, "dims of 'z' must be a list"),
            ({"dims": {"z": ["chain"]}}, "dims of 'z' must be"),
            ({"dims": {"z": ["x"]}}, "dims of 'z' must be"),
            ({"dims": {"z": ["k"], "x": ["k"]}}, "dims gives 'k' the lengths 3 and 2"),
            ({"coords": {"part": [1, 2, 3]}}, "coords names 'part', which is no dim: .*z_dim_0"),
            ({"coords": {"datum": [1, 2, 3]}}, "coords has 3 values for 'datum', which has 5"),
        ],
    )
    def test_options(self, options, words):
        with pytest.raises(OptionError, match=words):
            tree_of(pairs.build("plated"), **options)

    def test_data_that_are_not_finite(self):
        pair = pairs.build("line")
        with pytest.raises(DataError, match="NaN or infinite"):
            to_datatree(pair.model, pair.guide, torch.tensor([0.0, math.nan]))

    def test_a_closed_form_that_there_is_not(self):
        with pytest.raises(PairError, match=r"posterior\(x\).*draws='guide'"):
            tree_of(pairs.build("line"), draws="exact")

    @pytest.mark.parametrize("name", ["draw", "datum", "a/b"])
    def test_a_site_whose_name_is_taken(self, name):
        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(pyro.sample(name, dist.Normal(0.0, 1.0)), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample(name, dist.Normal(0.0, 1.0))

        with pytest.raises(PairError, match=f"{name!r}.*another name"):
            to_datatree(model, guide, torch.zeros(3))

    def test_resampling_from_nothing(self):
        pair = pairs.uniform([0.1, 2.0], [0.9, 3.0])  # the second guide lies outside the support
        with pytest.raises(NonFiniteError, match=r"datum 1 .*draws='guide'"):
            tree_of(pair, draws="psis", num_draws=10)
        assert np.isneginf(tree_of(pair)["sample_stats"]["log_weight"][..., 1]).all()

    def test_a_pair_that_breaks_the_contract(self):
        def model(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).expand([len(x)]).to_event(1), obs=x)

        with pytest.raises(PairError, match="only-in-model"):
            to_datatree(model, lambda x: None, torch.zeros(3))
