"""Recordings give the bits of the programs, and what cannot be recorded is run."""

import pairs
import pytest
import torch
from torch import Tensor

from ppvae.inference import annealed_evidence
from ppvae.inference.pair import Pair, evaluate, recording
from ppvae.inference.pair.recording import Recordings, recorded

from .test_data_set_units import Regression

U = torch.linspace(-1.0, 2.0, 12).reshape(3, 2, 2)


def square(u: Tensor) -> Tensor:
    return -u.square().sum(-1)[None] / 2


@pytest.mark.parametrize("name", ["linear_wide", "gamma_poisson", "mixture_conditional", "nested", "pyro_modules"])
def test_a_pair_plays_the_bits_of_its_programs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third evaluation is recorded, and the fourth is at another place."""
    monkeypatch.setattr(recording, "RECORD_AFTER", 3)
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as view:
        terms = view.path("guide")
        u = [view.draw("guide", 4) for _ in range(4)]
        first = [evaluate(view.path("guide"), place) for place in u[2:]]  # the second ends unrecorded
        assert view.recordings._latest is None
        again = [evaluate(terms, place) for place in u[2:]]
        assert view.recordings._latest is not None
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.gradients, other.gradients)


def test_shared_latents_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole estimate, of a pair that is vectorised, to the bit."""
    pair = Regression()
    evidence = [annealed_evidence(pair.model, pair.guide, pair.batch, 8, 20, seed=0)]
    monkeypatch.setattr(recording, "RECORD_AFTER", 3)
    evidence.append(annealed_evidence(pair.model, pair.guide, pair.batch, 8, 20, seed=0))
    assert torch.equal(evidence[0].log_evidence, evidence[1].log_evidence)


def test_what_depends_on_a_value_is_run() -> None:
    assert recorded(square, U) is not None
    assert recorded(lambda u: square(u) if u.sum() > 0 else 2 * square(u), U) is None


def test_what_draws_is_run() -> None:
    state = torch.get_rng_state()
    assert recorded(lambda u: square(u) + torch.randn(()), U) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_what_changes_from_run_to_run_is_run() -> None:
    runs: list[int] = []

    def drifting(u: Tensor) -> Tensor:
        runs.append(0)
        return square(u) / len(runs)

    assert recorded(drifting, U) is None


def test_a_term_without_a_finite_gradient_leaves_the_others_alone() -> None:
    """The slope of √|u| at 0 is infinite."""

    def terms(u: Tensor) -> Tensor:
        return torch.cat([u.abs().sqrt().sum(-1)[None], square(u)])

    u = torch.cat([torch.zeros(1, 2, 2), U])
    expected = evaluate(terms, u)
    graph = recorded(terms, u)
    assert graph is not None
    found = evaluate(lambda u: recording._Played.apply(u, graph), u)
    assert torch.equal(found.gradients, expected.gradients)
    assert expected.gradients[1].abs().max() > 1


def test_programs_are_run_until_they_are_recorded_and_each_shape_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RECORD_AFTER", 3)
    shapes: list[int] = []

    def counted(u: Tensor) -> Tensor:
        shapes.append(len(u))
        return square(u)

    recordings = Recordings()
    for _ in range(10):
        for u in (U, U[:2]):
            found = evaluate(lambda u: recordings.values("square", counted, u), u)
            assert torch.equal(found.gradients[0], -u)
    # Both are run twice, and then recorded: a run for the recording, and two to compare with it. The second takes over,
    # and of the first there is no recording any more.
    assert shapes.count(2) == 2 + 3
    assert shapes.count(3) == 2 + 3 + 7
    recordings.values("square", counted, U)
    assert len(shapes) == 5 + 12 + 1  # without a gradient
