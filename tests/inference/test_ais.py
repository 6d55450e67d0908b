"""annealed_evidence: within its error of the truth for pairs of every kind, resumable, and clear about bad input.

What the chains themselves promise (unbiasedness, ordering) is tested with `inference/sampling/annealing.py`.
"""

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
from gate import slow_but
from torch import Tensor

from ppvae.errors import CheckpointError, DataError, OptionError, PairError
from ppvae.inference import Annealing, Sampling, annealed_evidence, certify, importance_evidence
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.option_records import Start
from ppvae.inference.sampling import annealing

WITH_TRUTH = sorted(set(pairs.BUILDERS) - {"autoencoder", "vae_bernoulli", "vae_binomial"})
# Gaussian, in levels, in a plate, with context, of another support, not Gaussian, discrete in either program, a module.
KINDS = [
    "linear_shifted",
    "hierarchy",
    "plated",
    "conditional",
    "gamma_poisson",
    "banana",
    "mixture_in_guide",
    "parts",
    "methods",
]


@pytest.mark.parametrize("start", ["guide", pytest.param("prior", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", slow_but(KINDS, WITH_TRUTH))
def test_within_its_error_of_the_truth(name: str, start: Start) -> None:
    """|z| < 5 with 100 chains: about 300 comparisons in all, a false alarm in fewer than 1 of 1000 runs."""
    pair = pairs.build(name)
    evidence = annealed_evidence(pair.model, pair.guide, pair.data, 100, 12, annealing=Annealing(start=start), seed=0)
    error = evidence.standard_error.clamp(min=1e-9)
    assert ((evidence.log_evidence - pair.truth).abs() < 5 * error).all()
    assert evidence.method == "annealing"
    assert evidence.num_particles == 100


def test_from_the_prior_a_guide_with_auxiliary_draws_is_no_obstacle() -> None:
    """|z| < 5 for 3 data, and both sides of a certificate at 99.9 %: a false alarm in fewer than 1 of 500 runs."""
    pair = pairs.build("line")

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            extra = pyro.sample("extra", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(x / 2 + extra, 0.5))

    prior = Annealing(start="prior")
    evidence = annealed_evidence(pair.model, guide, pair.data, 100, 12, annealing=prior, seed=0)
    assert ((evidence.log_evidence - pair.truth).abs() < 5 * evidence.standard_error).all()
    sampling = Sampling(start="prior", max_distributions=64)
    certificate = certify(pair.model, guide, pair.data, confidence=0.999, sampling=sampling, seed=0)
    assert certificate.mean_lower <= pair.truth.mean() <= certificate.mean_upper
    with pytest.raises(PairError, match=r"'extra' is auxiliary.*start from the prior"):
        annealed_evidence(pair.model, guide, pair.data, 100, 12, seed=0)


def test_a_narrow_guide_is_no_obstacle() -> None:
    """Where importance sampling has weights without a variance, chains from the same guide come close."""
    pair = pairs.linear(scale=0.3)
    drawn = importance_evidence(pair.model, pair.guide, pair.x, 2000, seed=0)
    annealed = annealed_evidence(pair.model, pair.guide, pair.x, 50, 60, seed=0)
    assert (drawn.pareto_k > 0.7).all()
    assert (annealed.log_evidence - pair.truth).abs().max() < 0.1
    assert annealed.standard_error.max() < 0.1


def test_the_elbo_is_the_guides() -> None:
    pair = pairs.build("linear_wide")
    evidence = annealed_evidence(pair.model, pair.guide, pair.x, 25, 10, seed=0)
    assert ((evidence.gap - pair.true_gap).abs() < 5 * evidence.gap_standard_error).all()
    assert (evidence.gap_standard_error >= evidence.elbo_standard_error).all()


def test_details_are_per_datum_and_reach_the_dataset() -> None:
    pair = pairs.build("banana")
    evidence = annealed_evidence(pair.model, pair.guide, pair.x, 25, 10, seed=0)
    assert (evidence.acceptance > 0.3).all()
    assert (evidence.acceptance <= 1).all()
    dataset = evidence.to_dataset()
    assert dataset.attrs["method"] == "annealing"
    assert dataset["path_length"].dims == ("datum",)
    assert dataset["path_length"].shape == (len(pair.x),)


def test_the_prior_is_farther_from_the_posterior_than_a_good_guide() -> None:
    pair = pairs.build("linear_wide")
    starts = [Annealing(start="guide"), Annealing(start="prior")]
    near, far = (annealed_evidence(pair.model, pair.guide, pair.x, 8, 10, annealing=a, seed=0) for a in starts)
    assert (near.path_length < far.path_length).all()


def test_a_seed_fixes_everything_and_leaves_the_generators_alone() -> None:
    pair = pairs.build("gamma_poisson")
    state = torch.get_rng_state()
    first, second = (annealed_evidence(pair.model, pair.guide, pair.x, 8, 5, seed=3) for _ in range(2))
    assert torch.equal(first.log_evidence, second.log_evidence)
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_bounds_the_rows_of_one_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small budget no evaluation holds more rows than fit, whatever the chains and the data."""
    pair = pairs.build("linear_wide").replicated(6)
    sizes: list[int] = []
    forward = annealing.forward

    def spy(density: object, tuning: object, start: object, num_chains: int, *rest: object) -> object:
        sizes.append(num_chains * density.num_units * density.bytes_each)  # type: ignore[attr-defined]
        return forward(density, tuning, start, num_chains, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(annealing, "forward", spy)
    budget = 0.2
    evidence = annealed_evidence(pair.model, pair.guide, pair.x, 60, 5, seed=0, memory_mb=budget)
    assert max(sizes) <= budget * 2**20
    assert len(sizes) > 2
    assert evidence.log_evidence.shape == (6,)
    assert evidence.num_particles == 60


# -- going on after an interruption ----------------------------------------------------------------------------------

# Mebibytes that hold the six chains of two or three data.
PIECE = 0.04


def _small(pair: pairs.Pair, path: Path | None, **changes: object) -> Evidence:
    options: dict[str, object] = {"num_chains": 6, "num_distributions": 4, "seed": 1, "memory_mb": PIECE} | changes
    return annealed_evidence(pair.model, pair.guide, pair.data, checkpoint=path, **options)  # type: ignore[arg-type]


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, path = pairs.build("linear_wide").replicated(7), tmp_path / "annealed.pt"
    whole = _small(pair, None)
    forward, calls = annealing.forward, []

    def stops_at_the_second(*args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return forward(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(annealing, "forward", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        _small(pair, path)
    resumed = _small(pair, path)
    pieces = len(calls) - 1  # the second was begun twice
    assert pieces >= 3
    assert torch.equal(resumed.log_evidence, whole.log_evidence)
    again = len(calls)
    assert torch.equal(_small(pair, path).log_evidence, whole.log_evidence)
    assert len(calls) == again  # nothing is done twice


@cache
def _a_checkpoint() -> bytes:
    """What one call leaves, made once: inside a test, in its floating-point type."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "annealed.pt"
        _small(pairs.build("linear_wide"), path)
        return path.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"num_chains": 7},
        {"seed": 2},
        {"annealing": Annealing(start="prior")},
        {"annealing": Annealing(schedule="linear")},
        {"annealing": Annealing(num_steps=2)},
        {"memory_mb": 1.0},
    ],
)
def test_a_checkpoint_of_another_call_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    pair, path = pairs.build("linear_wide"), tmp_path / "annealed.pt"
    path.write_bytes(_a_checkpoint())
    with pytest.raises(CheckpointError, match="other options"):
        _small(pair, path, **change)


def test_a_checkpoint_of_the_same_call_is_not_refused(tmp_path: Path) -> None:
    pair, path = pairs.build("linear_wide"), tmp_path / "annealed.pt"
    path.write_bytes(_a_checkpoint())
    _small(pair, path)


def test_a_checkpoint_of_other_data_or_parameters_is_refused(tmp_path: Path) -> None:
    pair, path = pairs.build("linear_gaussian"), tmp_path / "annealed.pt"
    _small(pair, path)
    with pytest.raises(CheckpointError, match="other data"):
        annealed_evidence(pair.model, pair.guide, pair.x + 1, 6, 4, seed=1, memory_mb=PIECE, checkpoint=path)
    with torch.no_grad():
        next(pair.modules[0].parameters()).add_(0.1)
    with pytest.raises(CheckpointError, match="another pair"):
        _small(pair, path)


def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "annealed.pt"
    path.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="remove it"):
        _small(pairs.build("linear_wide"), path)
    assert path.read_bytes() == b"something else"


# -- hard cases ------------------------------------------------------------------------------------------------------


def _bounded(x: Tensor) -> None:
    """z ~ U(0, 1), x ~ U(0, z): beyond 1 a datum has probability zero."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Uniform(0.0, 1.0))
        pyro.sample("x", dist.Uniform(0.0, z, validate_args=False), obs=x)


def _flat(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Uniform(torch.zeros(len(x)), 1.0))


def test_a_datum_of_probability_zero_harms_no_other() -> None:
    """log p(x) = log ∫_x^1 dz/z = log(−log x)."""
    x = torch.tensor([0.5, 2.0, 0.1])
    evidence = annealed_evidence(_bounded, _flat, x, 200, 20, seed=0)
    assert evidence.log_evidence[1] == -math.inf
    truth = torch.log(-torch.log(x[[0, 2]]))
    assert ((evidence.log_evidence[[0, 2]] - truth).abs() < 5 * evidence.standard_error[[0, 2]]).all()
    assert any("probability zero" in remark for remark in evidence.remarks())


def test_a_posterior_that_is_far_narrower_than_the_prior_in_single_precision() -> None:
    """x ~ N(z, 0.001²) far out: log weights near −1e7 at the start, and a path of length thousands."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1e-3), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))

    x = torch.tensor([0.0, 3.0], dtype=torch.float32)
    evidence = annealed_evidence(model, guide, x, 50, 100, seed=0)
    truth = dist.Normal(0.0, math.sqrt(1 + 1e-6)).log_prob(x.double())
    assert evidence.log_evidence.dtype == torch.float64
    assert ((evidence.log_evidence - truth).abs() < 5 * evidence.standard_error + 1e-3).all()


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_chains": 0}, "num_chains must be an integer of at least 1; it is 0"),
        ({"num_chains": 2.5}, "num_chains must be an integer"),
        ({"num_distributions": True}, "num_distributions must be an integer"),
        ({"annealing": "prior"}, r"annealing must be the record ppvae.inference.Annealing\(...\); it is 'prior'"),
        ({"memory_mb": 0.0}, "memory_mb must be a positive number"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        _small(pairs.build("linear_wide"), None, **change)


def test_data_that_are_not_finite_are_refused() -> None:
    pair = pairs.build("linear_wide")
    with pytest.raises(DataError, match="first in datum 1"):
        annealed_evidence(pair.model, pair.guide, pair.x.clone().index_fill(0, torch.tensor([1]), math.nan))


def test_a_discrete_latent_that_is_not_enumerated_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(torch.full((len(x),), 0.5)))

    with pytest.raises(PairError, match="'c' is discrete and has no gradient: mark it infer="):
        annealed_evidence(model, guide, torch.zeros(3))
