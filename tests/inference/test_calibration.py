"""Calibration: exact guides pass as often as is promised, planted faults are found and named, figures are closed forms.

Repetitions come cheaply: simulations are independent, so that one run of R·M of them is R runs of M.
"""

import inspect
import math
from dataclasses import replace

import arviz_plots
import matplotlib.pyplot as plt
import numpy as np
import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from calibrated_pairs import correlated, diagonal
from pyro import poutine
from scipy import stats

from ppvae.errors import DataError, OptionError, PairError
from ppvae.inference.calibration.calibrate import Calibration, calibrate
from ppvae.inference.calibration.view import SOURCES


def trained_on_one_side(shift):
    """z ~ N(0, 1), x ~ N(z, 0.3²): the guide is the posterior where x > 0, and shifted by `shift` sd where not."""
    mean, std = 1 / 1.09, math.sqrt(0.09 / 1.09)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean * x + shift * std * (x <= 0), std))

    return model, guide


def runs(view, size):
    """The simulations of a view as independent views of `size` each."""
    per_simulation = ("pit", "joint_pit", "symmetric_kl", "elbo", "gap")
    for start in range(0, view.num_simulations, size):
        some = slice(start, start + size)
        parts = {name: getattr(view, name)[some] for name in per_simulation}
        yield replace(view, **parts, weights=view.weights[:, some])


# ---- False alarms


@pytest.mark.parametrize("source", ["prior", "data"])
def test_an_exact_guide_is_faulted_no_more_often_than_is_promised(source):
    """300 runs of 100 simulations: more than 33 alarms have probability below 1e-5 at 5 % each."""
    pair = diagonal(3)
    x = 1.0 + 0.5 * torch.randn(200, 3)
    calibration = calibrate(*pair, x, anchor=source, num_simulations=30_000, num_draws=10, seed=0)
    view = getattr(calibration, source)
    every = list(runs(view, 100))
    assert stats.binom.sf(33, 300, 0.05) < 1e-4
    assert sum(v.faulty for v in every) <= 33
    # Each p-value is what it says: 900 of them, at 5 % within 4.5 standard deviations.
    p = torch.cat([v.p_value for v in every])
    assert ((p <= 0.05).double().mean(0) - 0.05).abs().max() < 4.5 * (0.05 * 0.95 / 900) ** 0.5
    # And ranks are uniform to the last of 30 000.
    for column in torch.cat([view.pit, view.joint_pit], -1).T:
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-5
    if source == "data":
        assert 3 < view.ess.mean() < 9  # the weights are not idle
    else:
        torch.testing.assert_close(view.ess, torch.full((30_000,), 10.0))


@pytest.mark.parametrize(
    "name", ["hierarchy_exact", "conditional_exact", "gamma_poisson_exact", "beta_binomial_exact", "linear_gaussian"]
)
def test_exact_pairs_pass_both_views(name):
    """Of any support, depth and context: log w is constant, so that the divergence is zero without error."""
    pair = pairs.build(name)
    model = pair.model
    calibration = calibrate(model, pair.guide, pair.data, num_simulations=200, num_draws=20, seed=1)
    assert calibration.verdict == "calibrated"
    for view in calibration.views:
        tolerance = 1e-9 if name != "linear_gaussian" else 1e-6
        assert view.symmetric_kl.abs().max() < tolerance
        assert view.gap.abs().max() < tolerance
    assert calibration.given_gap.abs().max() < tolerance
    torch.testing.assert_close(calibration.given_elbo, pair.truth.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_two_views_together_fault_an_exact_guide_no_more_often_than_one():
    """200 runs of both: more than 22 alarms have probability below 1e-3 at 5 %; at 5 % in each view there were more."""
    x = 1.0 + 0.5 * torch.randn(200, 3)
    found = calibrate(*diagonal(3), x, num_simulations=20_000, num_draws=10, seed=5)
    both = list(zip(runs(found.prior, 100), runs(found.data, 100), strict=True))
    alarms = sum(replace(found, prior=one, data=two).verdict not in ("calibrated", "cannot tell") for one, two in both)
    assert alarms <= 22
    looser = sum(any(replace(view, level=0.05).faulty for view in pair) for pair in both)
    assert alarms <= looser
    assert found.prior.level == found.data.level == 0.025


def test_units_are_named_by_site_and_index():
    names = {
        "hierarchy_exact": ("z2[0]", "z1[0]", "z1[1]", "z1[2]"),
        "plated": ("z[0]", "z[1]", "z[2]"),
        "line": ("z",),
    }
    for name, unit in names.items():
        pair = pairs.build(name)
        view = calibrate(pair.model, pair.guide, pair.data, anchor="prior", num_simulations=20, num_draws=5).prior
        assert view.unit == unit


# ---- Power


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "shift", "word"), [({7: 0.8}, {}, "too narrow"), ({}, {12: 0.25}, "biased up")])
def test_a_fault_in_one_of_twenty_dimensions_is_found_and_named(scale, shift, word):
    """60 runs of 1000 simulations, all found: were the power below 0.95, that had probability below 5 %."""
    (culprit,) = scale or shift
    model, guide = diagonal(20, scale, shift)
    calibration = calibrate(
        model, guide, torch.zeros(1, 20), anchor="prior", num_simulations=60_000, num_draws=10, seed=2, memory_mb=256
    )
    every = list(runs(calibration.prior, 1000))
    assert [v.verdict[culprit] for v in every] == [word] * 60
    others = sum(any(w != "fine" for j, w in enumerate(v.verdict) if j != culprit) for v in every)
    assert others <= 11  # 60 chances of 5 %: more with probability below 1e-4
    assert every[0].power(scale=0.8) > 0.99
    assert every[0].power(bias=0.25) > 0.99


def test_the_power_that_is_stated_is_the_power_there_is():
    """100 runs of 100 simulations, where a bias of 0.25 sd is found about half the time."""
    model, guide = diagonal(2, shift={0: 0.35})
    view = calibrate(
        model, guide, torch.zeros(1, 2), anchor="prior", num_simulations=20_000, num_draws=20, seed=3
    ).prior
    every = list(runs(view, 100))
    measured = sum(v.verdict[0] == "biased up" for v in every) / 200
    stated = every[0].power(bias=0.35)
    assert 0.4 < stated < 0.95
    assert abs(measured - stated) < 4.5 * math.sqrt(0.25 / 100 + 0.25 / 200)


def test_the_power_near_the_data_heeds_the_weights():
    """It falls as the weights grow uneven, and is the risk of a false alarm where there is no fault."""
    model, guide = diagonal(1, scale={0: 0.8})
    view = calibrate(model, guide, torch.zeros(1, 1), anchor="prior", num_simulations=300, num_draws=20, seed=3).prior
    powers = []
    for unevenness in (0.0, 2.0, 4.0, 1000.0):
        weights = (unevenness * torch.randn(21, 300)).softmax(0)
        uneven = replace(view, weights=weights)
        assert uneven.power() <= 0.14  # of 100 repeats at a risk of 3/5 of 5 %: more with probability below 1e-5
        powers.append(uneven.power(scale=0.8))
    assert powers == sorted(powers, reverse=True)
    assert powers[0] > 0.8
    assert powers[-1] < 0.14
    # Among more units each has to show more.
    among_many = replace(view, unit=view.unit * 100)
    assert among_many.power(scale=0.85) < view.power(scale=0.85) - 0.2


@pytest.mark.slow
def test_the_power_that_is_stated_near_the_data_is_the_power_there_is():
    """Ten coordinates, of which one is biased: its own part in the weights is small, as is assumed."""
    model, guide = diagonal(10, shift={0: 0.3})
    x = 0.6 + 1.1 * torch.randn(400, 10)
    view = calibrate(model, guide, x, anchor="data", num_simulations=20_000, num_draws=50, seed=3).data
    every = list(runs(view, 200))
    measured = sum(v.verdict[0] != "fine" for v in every) / 100
    stated = every[0].power(bias=0.3)
    assert view.ess.mean() < 25
    assert 0.3 < stated < 0.99
    assert abs(measured - stated) < 0.25


def test_a_refit_for_each_simulation_is_a_hundred_times_the_work():
    """1000 steps of SVI, NumPyro's default, are 6000 runs of a program, each gradient for two; here they are counted.

    With so few draws the faults above are found all the same.
    """
    counts = {"model": 0, "guide": 0}

    def counted(name, program):
        def run(x):
            with poutine.trace() as traced:
                program(x)
            counts[name] += traced.trace.nodes["z"]["value"][..., 0].numel()

        return run

    model, guide = diagonal(20)
    pair = counted("model", model), counted("guide", guide)
    calibrate(*pair, torch.zeros(1, 20), anchor="prior", num_simulations=1000, num_draws=10, seed=0)
    assert min(counts.values()) > 10_000
    assert sum(counts.values()) / 1000 < 6000 / 100


# ---- Words

CASES = {
    "too narrow": (0.7, 0.0),
    "too wide": (1.4, 0.0),
    "biased up": (1.0, 0.5),
    "biased down": (1.0, -0.5),
    "biased down and too narrow": (0.6, -0.5),
    "biased up and too wide": (1.5, 0.6),
}


@pytest.mark.parametrize("word", CASES)
def test_a_planted_fault_has_its_word(word):
    scale, shift = CASES[word]
    pair = diagonal(3, {1: scale}, {1: shift})
    x = torch.randn(300, 3)
    calibration = calibrate(*pair, x, num_simulations=600, num_draws=50, seed=4)
    for view in calibration.views:
        assert view.verdict == ("fine", word, "fine")
        assert any(f"{SOURCES[view.anchor]}, the guide is {word} in z[1]" in remark for remark in view.remarks())
    assert calibration.verdict == "bad on the data"
    # z* has mean −shift/scale and sd 1/scale in the guide's units; under r both differ.
    assert float(calibration.prior.bias[1]) == pytest.approx(shift / scale, abs=0.2)
    assert float(calibration.prior.width[1]) == pytest.approx(scale, rel=0.2)


def test_ranks_in_a_heap_are_biased_and_not_wide():
    pair = diagonal(1, shift={0: 6.0})
    view = calibrate(*pair, torch.zeros(1, 1), anchor="prior", num_simulations=100, num_draws=20, seed=0).prior
    assert view.width > 1.5
    assert view.verdict == ("biased up",)


def test_a_shape_that_is_neither_shifted_nor_scaled():
    """Two modes ± a about the right mean with the right variance."""
    std = math.sqrt(0.5)

    def guide(x):
        with pyro.plate("data", len(x)):
            sign = dist.MixtureSameFamily(
                dist.Categorical(torch.tensor([0.5, 0.5])), dist.Normal(torch.tensor([-0.95, 0.95]), 0.31)
            )
            moved = dist.TransformedDistribution(
                sign.expand(x.shape[:1]), dist.transforms.AffineTransform(x[:, 0] / 2, std)
            )
            pyro.sample("z", dist.Independent(moved.expand(x.shape[:1]), 0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).to_event(1), obs=x)

    view = calibrate(model, guide, torch.zeros(1, 1), anchor="prior", num_simulations=300, num_draws=50, seed=0).prior
    assert view.adjusted[0][0, 0] < 1e-4


# ---- Joint faults


def test_a_wrong_correlation_is_found_though_all_marginals_are_right():
    model, guide, true = correlated(0.0)
    assert true < -0.4
    view = calibrate(model, guide, torch.zeros(1, 1), anchor="prior", num_simulations=1000, num_draws=100, seed=0).prior
    assert view.verdict == ("fine", "fine")
    assert view.joint_faults == ("distance", "density")
    assert view.faulty
    assert any("correlation" in remark for remark in view.remarks())
    model, guide, _ = correlated(true)
    assert not calibrate(model, guide, torch.zeros(1, 1), anchor="prior", seed=0).prior.faulty


def test_a_guide_that_ignores_x_is_found():
    """The prior as guide has uniform ranks in every unit; the density's have not."""
    model, _ = diagonal(2)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    view = calibrate(model, guide, torch.zeros(1, 2), anchor="prior", num_simulations=500, num_draws=50, seed=0).prior
    assert view.verdict == ("fine", "fine")
    assert view.joint_faults == ("density",)


# ---- Divergence


@pytest.mark.parametrize(("scale", "shift"), [(0.8, 0.0), (1.25, 0.0), (1.0, 0.5)])
def test_symmetric_kl_has_its_closed_form(scale, shift):
    """d/2 (s² + 1/s² − 2) for the scale; δ² for a shift by δ sd in one dimension."""
    pair = pairs.linear(scale=scale, shift=shift)
    view = calibrate(pair.model, pair.guide, pair.x, anchor="prior", num_simulations=2000, num_draws=20, seed=5).prior
    assert abs(truths.z_score(view.symmetric_kl, scale**2 + scale**-2 - 2 + shift**2)) < truths.Z_LIMIT
    assert view.summary()["symmetric_kl_standard_error"] < 0.05


def test_symmetric_kl_near_the_data_is_that_of_both_under_r():
    """One datum at 1: r = N(μ, ρ²), the guide's draws, to the 1 % that 5000 of them fit.

    p_r and q_r are Gaussian with precisions 1/ρ² + 1 and 1/ρ² + 2/s² − 1; averaged over x' ~ N(μ, ρ² + 1).
    """
    s = 1.5
    pair = pairs.line(s)
    calibration = calibrate(
        pair.model, pair.guide, torch.ones(1), anchor="data", num_simulations=2000, num_draws=200, seed=6
    )
    mu, rho2 = 0.5, s**2 / 2
    x = mu + math.sqrt(rho2 + 1) * torch.from_numpy(stats.norm.ppf((np.arange(2000) + 0.5) / 2000))
    prec_p, prec_q = 1 / rho2 + 1, 1 / rho2 + 2 / s**2 - 1
    delta2 = ((mu / rho2 + x) / prec_p - (mu / rho2 + x / s**2) / prec_q).square()
    truth = float(((prec_p / prec_q + prec_q / prec_p - 2) / 2 + delta2 * (prec_p + prec_q) / 2).mean())
    summary = calibration.summary()
    estimate, error = summary["data_symmetric_kl"], summary["data_symmetric_kl_standard_error"]
    assert abs(estimate - truth) < 4.5 * error + 0.05 * truth
    assert error < 0.1 * truth
    assert abs(truth - (s**2 + s**-2 - 2) / 2) > 5 * error  # and not that of the pair itself


# ---- Both views


def test_a_guide_that_is_good_on_the_data_alone():
    pair = trained_on_one_side(shift=1.0)
    z = 1.5 + 0.3 * torch.randn(400)
    x = z + 0.3 * torch.randn(400)
    calibration = calibrate(*pair, x, seed=7)
    assert calibration.prior.faulty
    assert not calibration.data.faulty
    assert min(calibration.data.stated_power) > 0.9
    assert calibration.verdict == "bad away from the data"
    assert calibration.farther(calibration.prior) > 1.5
    remarks = calibration.remarks()
    assert "the fault lies where the data are not" in remarks[0]
    assert any(remark.startswith("simulations from the prior are far from the data") for remark in remarks)
    assert calibration.prior.summary()["symmetric_kl"] == pytest.approx(0.5, abs=0.15)
    assert abs(calibration.data.summary()["symmetric_kl"]) < 0.05
    elsewhere = calibrate(*pair, -x, seed=7)
    assert elsewhere.verdict == "bad on the data"
    assert any(r.startswith("simulations from the prior are easier for the guide") for r in elsewhere.remarks())
    assert elsewhere.data.summary()["symmetric_kl"] > elsewhere.prior.summary()["symmetric_kl"]


def test_simulations_near_the_data_are_near_them():
    """Of two clusters, none falls between, where the prior is highest."""
    pair = trained_on_one_side(shift=0.0)
    x = torch.cat([2.0 + 0.2 * torch.randn(200), -2.0 + 0.2 * torch.randn(200)])
    calibration = calibrate(*pair, x, num_simulations=300, num_draws=200, seed=8)
    assert calibration.verdict == "calibrated"
    # ELBO = log p(x'), lower by about 2 nats at ± 2 than near 0, where data of the prior lie.
    assert calibration.data.elbo.mean() == pytest.approx(float(calibration.given_elbo.mean()), abs=0.2)
    assert calibration.prior.elbo.mean() > calibration.given_elbo.mean() + 0.8


def test_what_hardly_could_have_been_found_is_not_called_calibrated():
    pair = diagonal(2)
    calibration = calibrate(*pair, torch.randn(50, 2), num_simulations=20, num_draws=2, seed=2)
    assert calibration.verdict == "cannot tell"
    assert any("give more simulations" in remark for remark in calibration.remarks())


# ---- Forms


def test_a_seed_repeats_and_leaves_the_generators_alone():
    pair, x = diagonal(2), torch.randn(30, 2)
    before = torch.random.get_rng_state()
    first, second = (calibrate(*pair, x, num_simulations=30, num_draws=4, seed=9) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(first.views, second.views, strict=True):
        assert torch.equal(a.pit, b.pit)
    assert not torch.equal(first.prior.pit, calibrate(*pair, x, num_simulations=30, num_draws=4, seed=10).prior.pit)


def test_work_in_small_pieces_has_the_same_law():
    pair = diagonal(2, scale={0: 0.6})
    options = {"num_simulations": 120, "num_draws": 30, "seed": 0}
    calibration = calibrate(*pair, torch.randn(60, 2), memory_mb=0.1, **options)
    assert calibration.prior.verdict == ("too narrow", "fine")
    assert calibration.prior.pit.shape == (120, 2)
    assert calibration.data.weights.shape == (31, 120)
    torch.testing.assert_close(calibration.data.weights.sum(0), torch.ones(120))


def test_dataset_and_pit_go_to_arviz():
    pair = diagonal(3, scale={1: 0.5})
    calibration = calibrate(*pair, torch.randn(40, 3), num_simulations=100, num_draws=20, seed=0)
    dataset = calibration.to_dataset()
    assert dict(dataset.sizes) == {"view": 2, "simulation": 100, "unit": 3, "joint": 2, "test": 3, "given": 40}
    assert dataset["verdict"].sel(view="prior", unit="z[1]") == "too narrow"
    assert dataset["symmetric_kl"].attrs["units"] == "nats"
    tree = calibration.to_pit()
    options = inspect.signature(arviz_plots.plot_ecdf_pit).parameters
    level = {"ci_prob" if "ci_prob" in options else "envelope_prob": tree.attrs["ci_prob"]}
    for group in ("prior_sbc", "data_sbc"):
        arviz_plots.plot_ecdf_pit(tree, group=group, backend="matplotlib", **level)
        plt.close("all")
    assert tree["prior_sbc"]["pit"].sizes == {"chain": 1, "draw": 100, "unit": 3}


def test_one_view_alone():
    pair = diagonal(2)
    prior = calibrate(*pair, torch.zeros(1, 2), anchor="prior", num_simulations=50, num_draws=10, seed=0)
    assert prior.data is None
    assert prior.given_gap is None
    assert "given" not in prior.to_dataset().sizes
    data = calibrate(*pair, torch.zeros(1, 2), anchor="data", num_simulations=50, num_draws=10, seed=0)
    assert data.prior is None
    assert isinstance(data, Calibration)
    assert data.summary()["verdict"] == "calibrated" or max(data.data.stated_power) < 0.5


def test_sites_that_are_summed_out_are_drawn_from_the_prior():
    pair = pairs.build("mixture_in_model")
    view = calibrate(pair.model, pair.guide, pair.data, anchor="prior", num_simulations=50, num_draws=10, seed=0).prior
    assert view.pit.shape[0] == 50
    with pytest.raises(PairError, match=r"sums '\w+' out: give anchor='prior'"):
        calibrate(pair.model, pair.guide, pair.data, num_simulations=50, num_draws=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor": "posterior"}, "anchor must be one of 'prior', 'data', 'both'; it is 'posterior'"),
        ({"num_simulations": 10}, "num_simulations must be an integer of at least 20; it is 10"),
        ({"num_simulations": 50.0}, "num_simulations must be an integer"),
        ({"num_draws": 1}, "num_draws must be an integer of at least 2; it is 1"),
        ({"memory_mb": 0}, "memory_mb must be a positive number"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(OptionError, match=message):
        calibrate(*diagonal(2), torch.zeros(3, 2), **options)


def test_bad_data():
    with pytest.raises(DataError, match="NaN or infinite"):
        calibrate(*diagonal(2), torch.full((3, 2), math.nan))
    with pytest.raises(DataError, match="must be a tensor"):
        calibrate(*diagonal(2), {1.0})


def test_a_discrete_latent_is_refused():
    def program(x, observe=True):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            if observe:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(PairError, match="'z' is discrete"):
        calibrate(program, lambda x: program(x, observe=False), torch.zeros(3))
