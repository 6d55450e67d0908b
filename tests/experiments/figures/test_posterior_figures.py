"""Figures of a posterior: they show the draws that they are given, and the grid is the posterior."""

import matplotlib
import numpy as np
import pairs
import pytest
import torch
import xarray as xr
from matplotlib.patches import Ellipse

from ppvae.experiments.figures import calibration_figures, evidence_figures, latent_space, posterior_figures
from ppvae.inference import DrawsFrom, calibrate, importance_evidence, to_datatree
from ppvae.inference.pair import Pair
from ppvae.models import LinearGaussian

GUIDE, EXACT = (DrawsFrom(source, num_draws=60) for source in ("guide", "exact"))


@pytest.fixture(scope="module")
def linear():
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    pair = LinearGaussian(num_features=4, latent_dim=2)
    with torch.no_grad():
        pair.weight.copy_(torch.tensor([[1.0, 0.5], [0.0, 1.0], [0.5, 0.5], [1.0, -1.0]]))
    x = torch.randn(5, 4)
    guide = to_datatree(pair.model, pair.guide, x, draws=GUIDE, seed=0)
    reference = to_datatree(pair.model, pair.guide, x, draws=EXACT, predictive=False, seed=0)
    torch.set_default_dtype(default)
    return pair, x, guide, reference


def test_coordinates_of_every_latent_are_named_and_in_place():
    pair = pairs.build("hierarchy")
    few = DrawsFrom(num_draws=3, num_chains=2)
    tree = to_datatree(pair.model, pair.guide, pair.data, draws=few, predictive=False, seed=0)
    flat = posterior_figures.coordinates(tree, 1)["posterior"].to_dataset()
    assert list(flat.data_vars) == [
        f"{s}[{i}]" for s, n in tree["posterior"].data_vars.items() for i in range(n.shape[-1])
    ]
    np.testing.assert_array_equal(flat["z1[2]"], tree["posterior"]["z1"][:, :, 1, 2])
    assert list(posterior_figures.coordinates(tree, 0, ["z1[1]"])["posterior"].data_vars) == ["z1[1]"]


def test_the_coordinates_that_differ_most_are_chosen():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4, 500, 1, 3))
    p = xr.DataTree.from_dict({"posterior": xr.Dataset({"z": (("chain", "draw", "datum", "j"), draws)})})
    q = xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"z": (("chain", "draw", "datum", "j"), draws * [1, 1, 0.5] + [0, 2, 0])})}
    )
    assert posterior_figures.farthest(q, p, 0, 1) == ["z[1]"]
    assert posterior_figures.farthest(q, p, 0, 2) == ["z[1]", "z[2]"]


def test_the_intervals_of_a_forest_are_those_of_the_draws(linear):
    _, _, guide, reference = linear
    figure = posterior_figures.forest({"guide": guide, "reference": reference}, 3, ["z[0]", "z[1]"])
    axes = figure.axes[-1]
    means = sorted(float(path.get_offsets()[0, 0]) for path in axes.collections)
    drawn = [tree["posterior"]["z"][:, :, 3, j] for tree in (guide, reference) for j in range(2)]
    np.testing.assert_allclose(means, sorted(float(z.median()) for z in drawn), atol=0.15)
    assert axes.get_xlabel() == "value of the coordinate"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["guide", "reference"]


def test_every_figure_has_its_axes_named_and_leaves_pyplot_as_it_was(linear):
    pair, x, guide, reference = linear
    names = ["z[0]", "z[1]"]
    before = matplotlib.get_backend()
    evidence = importance_evidence(pair.model, pair.guide, x, 50, seed=0)
    figures = [
        posterior_figures.pairs(guide, reference, 0, names),
        posterior_figures.ranks(reference, 0, names),
        posterior_figures.traces(reference, 0, names),
        posterior_figures.predictive(guide, "posterior_predictive"),
        posterior_figures.predictive(guide, "prior_predictive"),
        evidence_figures.khat(evidence),
        latent_space.latent_map(guide),
    ]
    for figure in figures:
        assert figure is not None
        assert any(axes.get_xlabel() for axes in figure.axes)
        assert any(axes.get_ylabel() for axes in figure.axes)
    assert matplotlib.get_backend() == before
    assert matplotlib.pyplot.get_fignums() == []
    heights = figures[5].axes[0].collections[0].get_offsets()[:, 1]
    np.testing.assert_allclose(heights, evidence.pareto_k)


def test_binary_data_are_shown_by_their_share_of_ones():
    pair = pairs.build("vae_bernoulli")
    tree = to_datatree(pair.model, pair.guide, pair.data, draws=GUIDE, seed=0)
    figure = posterior_figures.predictive(tree, "posterior_predictive")
    assert figure.axes[0].get_xlabel() == "share of ones in a datum of x"
    assert posterior_figures.predictive(tree, "nothing") is None


def test_faults_are_orange_and_the_band_is_the_exact_one(linear):
    pair, x, _, _ = linear
    exact = LinearGaussian(num_features=4, latent_dim=2)
    exact.load_state_dict(pair.state_dict())
    with torch.no_grad():
        exact.set_exact_guide().guide_log_scale.sub_(0.7)
    found = calibrate(exact.model, exact.guide, x, num_simulations=300, num_draws=50, anchor="prior", seed=0)
    assert set(found.prior.verdict) == {"too narrow"}
    (figure,) = calibration_figures.calibrations(found).values()
    units, distance, density = figure.axes
    orange = matplotlib.colors.to_hex(calibration_figures.ORANGE)
    assert [matplotlib.colors.to_hex(line.get_color()) for line in units.lines] == [orange, orange]
    for axes in (units, distance, density):
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert 0.05 < band.max() < 0.15
    curve = units.lines[0].get_ydata()
    assert curve.max() > 0.1  # too narrow: the curve rises first


def test_the_grid_is_the_posterior(linear):
    """Mean and covariance of the mass on the grid against the closed form, to the fourth digit."""
    pair, x, _, _ = linear
    low, high = torch.full((2,), -30.0, dtype=torch.float64), torch.full((2,), 25.0, dtype=torch.float64)
    with torch.no_grad(), Pair.on(pair.model, pair.guide, (x,), start="guide") as density:
        axes, mass = latent_space.exact_grid(density.rows(slice(2, 3)), low, high)
    z = torch.cartesian_prod(*axes)
    mean = mass.flatten() @ z
    covariance = (mass.flatten()[:, None] * (z - mean)).T @ (z - mean)
    truth = pair.posterior(x)
    torch.testing.assert_close(mean, truth.mean[2], atol=1e-4, rtol=0)
    torch.testing.assert_close(covariance, truth.covariance_matrix.expand(5, 2, 2)[2], atol=1e-3, rtol=0)


def test_ellipses_are_the_guides(linear):
    pair, x, _, _ = linear
    figure = latent_space.exact_posteriors(pair, (x,), ["z[0]", "z[1]"], range(5), seed=0)
    panels = [axes for axes in figure.axes if axes.patches]
    assert len(panels) == 5
    for axes in panels:
        inner, outer = [patch for patch in axes.patches if isinstance(patch, Ellipse)]
        assert outer.width == pytest.approx(2 * inner.width)
    assert latent_space.exact_posteriors(pair, x, ["z[0]", "z[1]", "z[2]"], range(5), seed=0) is None
