"""The figures show the numbers they are given, in nats, and bear every size and every missing number."""

import dataclasses

import numpy as np
import pytest
import torch

from ppvae.experiments.figures import evidence_figures, galleries
from ppvae.experiments.figures.mended_waterfall import mended_waterfall
from ppvae.experiments.figures.waterfall import gap_waterfall
from ppvae.inference import importance_evidence
from ppvae.models import LinearGaussian


def evidence(num_data=12, num_particles=200):
    pair = LinearGaussian(num_features=3, latent_dim=2)
    return importance_evidence(pair.model, pair.guide, torch.randn(num_data, 3), num_particles, seed=0)


def drawn(figure):
    """Draw it, as a file would, with warnings as errors; its axes."""
    figure.canvas.draw()
    return figure.axes[0]


def history(*validation):
    names = ("epoch", "elbo", "validation_elbo", "validation_standard_error")
    return [dict(zip(names, (i, v + 1, v, 0.1), strict=True)) for i, v in enumerate(validation, 1)]


def test_training_curve_shows_the_end_and_not_the_first_epochs():
    values = -100 - 1e6 * np.exp(-np.arange(60.0))
    axes = drawn(evidence_figures.training_curve(history(*values)))
    low, high = axes.get_ylim()
    assert -200 < low < -100.1 < -98.9 < high < 0
    np.testing.assert_allclose(axes.lines[1].get_ydata(), values)
    assert "nats" in axes.get_ylabel()


def test_training_curve_shows_a_late_collapse():
    values = np.append(np.full(60, -100.0) + np.arange(60) / 60, -5000.0)
    assert drawn(evidence_figures.training_curve(history(*values))).get_ylim()[0] < -5000


@pytest.mark.parametrize("values", [[-3.0], [-3.0, -2.0], [float("nan")] * 3])
def test_training_curve_of_few_epochs_or_without_validation(values):
    drawn(evidence_figures.training_curve(history(*values)))


def test_bound_climbs_from_the_elbo_to_the_evidence():
    e = evidence()
    axes = drawn(evidence_figures.bound_curve(e))
    curve = axes.lines[0]
    np.testing.assert_array_equal(curve.get_xdata(), e.bound_k)
    assert curve.get_ydata()[0] == pytest.approx(float(e.elbo.mean()))
    assert curve.get_ydata()[-1] == pytest.approx(float(e.log_evidence.mean()))
    assert axes.get_xscale() == "log"
    (band,) = axes.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert low < curve.get_ydata().min()
    assert high > curve.get_ydata().max()


def test_gap_histogram_counts_every_datum_once():
    e = evidence(40)
    k = torch.where(torch.arange(40) < 10, 0.9, 0.1).double()
    axes = drawn(evidence_figures.gap_histogram(dataclasses.replace(e, pareto_k=k)))
    # stacked: the lower bars are the trusted data
    trusted, doubtful = (sum(bar.get_height() for bar in bars) for bars in axes.containers)
    assert (trusted, doubtful) == (30, 10)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any("25%" in label for label in labels)
    assert any(f"mean {float(e.gap.mean()):.2f} nats".replace("-", "−") in label for label in labels)


@pytest.mark.parametrize("draw", [evidence_figures.bound_curve, evidence_figures.gap_histogram])
@pytest.mark.parametrize(("num_data", "num_particles"), [(1, 1), (1, 30), (3, 2)])
def test_few_data_and_few_particles(draw, num_data, num_particles):
    drawn(draw(evidence(num_data, num_particles)))


@pytest.mark.parametrize("draw", [evidence_figures.bound_curve, evidence_figures.gap_histogram])
@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_data_without_evidence_are_left_out(draw, value):
    e = evidence(4)
    log_evidence, bound = e.log_evidence.clone(), e.bound.clone()
    log_evidence[0] = value
    bound[-1, 0] = value
    drawn(draw(dataclasses.replace(e, log_evidence=log_evidence, bound=bound)))
    everything = dataclasses.replace(
        e, log_evidence=torch.full_like(log_evidence, value), bound=torch.full_like(bound, value)
    )
    drawn(draw(everything))


def test_the_line_of_the_bound_curve_is_the_estimate():
    e = evidence()
    higher = dataclasses.replace(e, log_evidence=e.log_evidence + 2)  # as chains would have found
    axes = drawn(evidence_figures.bound_curve(higher))
    estimate = f"{float(higher.log_evidence.mean()):.2f}".replace("-", "−")
    assert f"= {estimate}" in axes.get_legend().get_texts()[1].get_text()


@pytest.mark.parametrize(("event_shape", "label"), [((4, 4), "data,\norange: missing"), ((16,), "data")])
def test_what_is_missing_leaves_the_rest_in_the_picture(event_shape, label):
    rows = torch.rand(3, 16)
    rows[0, 5] = rows[1] = torch.nan
    figure = galleries.reconstructions(rows, torch.rand(3, 16), event_shape)
    drawn(figure)
    (axes,) = figure.axes
    assert axes.get_yticklabels()[0].get_text() == label
    if label == "data":
        heights = np.concatenate([path.vertices[:, 1] for path in axes.collections[0].get_paths()])
        assert np.isfinite(heights).sum() == 6 * 16 - 17
    else:
        assert {image.get_clim() for image in axes.images} == {axes.images[0].get_clim()}
        assert np.isfinite(axes.images[0].get_clim()).all()


@pytest.mark.parametrize("event_shape", [(4, 4), (2, 8), (16,), (1, 16), (2, 2, 4)])
def test_pictures_and_curves(event_shape):
    rows = torch.rand(20, 16)
    drawn(galleries.reconstructions(rows[:3], rows[3:6], event_shape))
    drawn(galleries.prior_samples(rows, event_shape))
    walk = galleries.latent_traversal(rows.reshape(4, 5, 16), event_shape, [7, 1, 0, 2], [-2, -1, 0, 1, 2])
    axes = drawn(walk)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["−2", "−1", "0", "1", "2"]
    assert axes.get_yticklabels()[0].get_text() == "$z_{7}$"
    if event_shape == (4, 4):
        assert len(axes.images) == 20
        np.testing.assert_allclose(axes.images[6].get_array(), rows[6].reshape(4, 4), rtol=1e-6)


def test_constant_pictures_and_single_features():
    drawn(galleries.prior_samples(torch.zeros(1, 16), (4, 4)))
    drawn(galleries.prior_samples(torch.zeros(3, 1), (1,)))


def unsplit_gap(log_evidence=-3.0):
    numbers = {"elbo": -5.0, "amortisation": 1.5, "family": 0.5, "total": 2.0, "log_evidence": log_evidence}
    return numbers | {f"{name}_standard_error": 0.1 for name in numbers}


def test_a_familys_part_that_is_not_split_is_one_block():
    figures = [gap_waterfall(unsplit_gap()), mended_waterfall(unsplit_gap(), unsplit_gap())]
    for figure in figures:
        axes = drawn(figure)
        labels = ["ELBO", "amortisation", "not split\nfurther", r"$\log p(x)$"]
        assert [label.get_text() for label in axes.get_xticklabels()] == labels
        assert [(bar.get_y(), bar.get_height()) for bar in axes.patches[:2]] == [(-5.0, 1.5), (-3.5, 0.5)]
    assert "log_evidence is nan" in gap_waterfall(unsplit_gap(float("nan"))).axes[0].texts[0].get_text()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_gap_without_a_finite_mean_is_told_and_not_drawn(value):
    parts = {name: 1.0 for name in ("amortisation", "covariance", "flow", "rest")}
    numbers = {"elbo": -5.0, "log_evidence": value, **parts, **{f"{name}_standard_error": 0.1 for name in parts}}
    figure = gap_waterfall(numbers)
    drawn(figure)
    assert "log_evidence" in figure.axes[0].texts[0].get_text()
