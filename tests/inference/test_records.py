"""Every result prints in a few lines, without a tensor."""

import dataclasses
import html
import re
from collections.abc import Callable
from typing import Any

import pairs
import pytest
import torch

from ppvae import inference
from ppvae.inference.records import Printed, row

MEASURES: dict[str, Callable[[pairs.Pair], Any]] = {
    "fit": lambda pair: inference.fit(pair.model, pair.guide, pair.data, epochs=1, progress=False),
    "simulate": lambda pair: inference.simulate(pair.model, pair.guide, pair.data, seed=0),
    "sample_posterior": lambda pair: inference.sample_posterior(
        pair.model, pair.guide, pair.rows(slice(0, 1)).data, num_draws=250, warm_up=100, seed=0
    ),
    "guide_quality": lambda pair: inference.guide_quality(
        pair.model, pair.guide, pair.rows(slice(0, 1)).data, measured("sample_posterior"), seed=0
    ),
    "calibrate": lambda pair: inference.calibrate(pair.model, pair.guide, pair.data, num_simulations=50, seed=0),
    "attribute_gap": lambda pair: inference.attribute_gap(
        pair.model, pair.guide, pair.data, optimiser=inference.Optimiser(steps=20), num_draws=100, seed=0
    ),
    "refine": lambda pair: inference.refine(pair.model, pair.guide, pair.data, seed=0),
    "latent_units": lambda pair: inference.latent_units(pair.model, pair.guide, pair.data, seed=0),
    "certify": lambda pair: inference.certify(pair.model, pair.guide, pair.data, seed=0),
    "elbo_surgery": lambda pair: inference.elbo_surgery(pair.model, pair.guide, pair.data, seed=0),
    "annealed_evidence": lambda pair: inference.annealed_evidence(pair.model, pair.guide, pair.data, 4, 5, seed=0),
    "estimate_evidence": lambda pair: inference.estimate_evidence(pair.model, pair.guide, pair.data, seed=0),
    "importance_evidence": lambda pair: inference.importance_evidence(pair.model, pair.guide, pair.data, 10, seed=0),
    "embed": lambda pair: inference.embed(pair.model, pair.guide, pair.data, seed=0),
    "reconstruct": lambda pair: inference.reconstruct(pair.model, pair.guide, pair.data, seed=0),
    "TrainedPair": lambda pair: inference.TrainedPair(pair.model, pair.guide, pair.args),
    "column_stability": lambda pair: inference.column_stability(torch.eye(4)[:, :2], torch.ones(4), torch.randn(9, 4)),
}


RESULTS: dict[str, Any] = {}


def measured(name: str) -> Any:
    """A result, made once: inside a test, in its floating-point type."""
    if name not in RESULTS:
        torch.manual_seed(0)
        RESULTS[name] = MEASURES[name](pairs.build("linear_gaussian"))
    return RESULTS[name]


@pytest.mark.parametrize("name", MEASURES)
def test_a_result_prints_in_a_few_lines(name):
    result = measured(name)
    for printed in (repr(result), str(result)):
        assert printed.startswith(type(result).__name__)
        assert "tensor(" not in printed
        assert len(printed.splitlines()) <= 20
    shown = re.fullmatch(r"<pre[^<>]*>([^<>]*)</pre>", result._repr_html_(), flags=re.DOTALL)
    assert shown is not None
    assert html.unescape(shown.group(1)) == repr(result)


def test_what_a_notebook_shows_is_escaped():
    class Named(Printed):
        def __repr__(self):
            return "a < b & <script>"

    assert Named()._repr_html_().endswith(">a &lt; b &amp; &lt;script&gt;</pre>")


@pytest.mark.parametrize("name", ["guide_quality", "attribute_gap", "latent_units", "certify", "elbo_surgery"])
def test_the_numbers_are_those_of_the_summary(name):
    result = measured(name)
    assert set(result.printed.split()) <= set(result.summary())
    for number in result.printed.split():
        value = result.summary()[number]
        assert f"  {number:18} {value if isinstance(value, str) else f'{value:.4g}'}" in repr(result)


def test_every_public_result_is_meant():
    """A result is a dataclass of the package; those that print themselves say so by repr=False."""
    public = [getattr(inference, name) for name in inference.__all__]
    results = [kind for kind in public if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    assert len(results) >= 10
    wordy = {kind.__name__ for kind in results if kind.__dataclass_params__.repr}
    assert wordy == {
        "Finding",
        "Optimiser",
        "Compute",
        "Annealing",
        "Attempts",
        "Sampling",
        "DrawsFrom",
        "WarmUp",
        "Cyclical",
    }  # short, and without tensors


def test_a_line_has_an_error_where_there_is_one():
    assert row("kl", 1.23456, 0.0213) == "  kl                 1.235 ± 0.021"
    assert row("verdict", "calibrated") == "  verdict            calibrated"
