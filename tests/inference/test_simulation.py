"""Data drawn from a model: where the draws are put, that z* is a posterior draw of x*, and which models are refused."""

import math

import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from gate import slow_those

from ppvae.errors import PairError
from ppvae.inference import calibrate, certify
from ppvae.inference.calibration.simulation import simulate
from ppvae.inference.pair import Pair, entries


def guide(x, *context):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.0, 1.0))


def shown_as(observe):
    """A model of one latent whose observed sites are what ``observe(x, z)`` does inside the plate."""

    def model(x, *context):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            observe(x, z, *context)

    return model


@pytest.mark.parametrize("name", slow_those(pairs.OTHER_NUMBERS, sorted(set(pairs.BUILDERS) - {"autoencoder"})))
def test_every_pair_draws_in_the_shape_of_its_data(name):
    pair = pairs.build(name)
    drawn = simulate(pair.model, pair.guide, pair.data, seed=0)
    assert drawn.batch[0].shape == pair.x.shape
    assert drawn.batch[0].dtype == pair.x.dtype
    assert all(torch.equal(ours, given) for ours, given in zip(drawn.batch[1:], pair.context, strict=True))
    assert not torch.equal(drawn.batch[0], pair.x)
    with Pair.on(pair.model, pair.guide, drawn.batch, start="guide") as density:
        u = density.unconstrained(drawn.latents, 1)
        assert u.shape == (1, len(pair.x), density.dim)
        # The latents went where they were asked to: they come back as they are.
        for site, value in density.constrained(u).items():
            torch.testing.assert_close(value, drawn.latents[site])


def test_latents_are_exact_posterior_draws():
    """Whitened by p(z | x*), z* is N(0, I) and independent of x*: each moment within 4.5 sd of 20 000 draws."""
    pair = pairs.build("linear_wide").replicated(20_000)
    drawn = simulate(pair.model, pair.guide, pair.x, seed=1)
    x, z = drawn.batch[0], drawn.latents["z"][0]
    weight = torch.tensor([[1.2, 0.0], [0.6, -0.5], [-0.4, 0.4], [1.0, 0.3], [0.2, -0.4]])
    bias = torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5])
    numbers = (weight, bias, 0.49 * torch.eye(5), torch.zeros(2), torch.eye(2))
    loc, cov = truths.gaussian_posterior(x, *numbers)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (z - loc).T, upper=False).T
    marginal = weight @ weight.T + 0.49 * torch.eye(5)
    x_white = torch.linalg.solve_triangular(torch.linalg.cholesky(marginal), (x - bias).T, upper=False).T
    every = torch.cat([white, x_white], -1)
    limit = truths.Z_LIMIT / len(x) ** 0.5
    assert every.mean(0).abs().max() < limit
    assert (every.T @ every / len(x) - torch.eye(7)).abs().max() < 1.5 * limit  # sd √2 on the diagonal


def columns(x, z):
    for j in (2, 0, 1):
        pyro.sample(f"x{j}", dist.Normal(10.0 * j + z, 0.1), obs=x[:, j])


def two_sites(x, z):
    pyro.sample("a", dist.Normal(torch.stack([10 + z, z], -1), 0.1).to_event(1), obs=x[:, [1, 0]])
    pyro.sample("b", dist.Normal(20 + z, 0.1), obs=x[..., 2])


def transposed(x, z):
    with pyro.plate("features", 3, dim=-2):
        pyro.sample("x", dist.Normal(10.0 * torch.arange(3.0)[:, None] + z, 0.1), obs=x.T)


def as_matrix(x, z):
    loc = torch.stack([z, 10 + z, 20 + z], -1)[..., None]
    pyro.sample("x", dist.Normal(loc, 0.1).to_event(2), obs=x.unsqueeze(-1))


@pytest.mark.parametrize("observe", [columns, two_sites, transposed, as_matrix])
def test_draws_go_where_the_model_observes(observe):
    """Column j lies near 10 j + z of its own datum, however the columns are shown."""
    drawn = simulate(shown_as(observe), guide, torch.zeros(50, 3), seed=0)
    z = drawn.latents["z"].flatten()
    expected = 10 * torch.arange(3.0) + z[:, None]
    assert (drawn.batch[0] - expected).abs().max() < 0.5
    assert (drawn.batch[0] - expected).std() > 0.05


def test_data_of_several_dimensions():
    def observe(x, z):
        loc = torch.arange(6.0).reshape(2, 3) * 10 + z[..., None, None]
        pyro.sample("x", dist.Normal(loc.transpose(-1, -2), 0.1).to_event(2), obs=x.transpose(-1, -2))

    drawn = simulate(shown_as(observe), guide, torch.zeros(20, 2, 3), seed=0)
    rest = drawn.batch[0] - drawn.latents["z"].reshape(-1, 1, 1)
    assert (rest - 10 * torch.arange(6.0).reshape(2, 3)).abs().max() < 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.float16])
def test_the_type_of_the_data_is_kept(dtype):
    def observe(x, z):
        pyro.sample("x", dist.Bernoulli(logits=z).mask(False), obs=x.to(z.dtype))

    drawn = simulate(shown_as(observe), guide, torch.zeros(400, dtype=dtype), seed=0)
    assert drawn.batch[0].dtype == dtype
    assert 150 < drawn.batch[0].long().sum() < 250


def test_bytes_are_drawn_in_the_default_type():
    """Whole numbers of 8 bits are taken in torch's default type, wherever x is given: densities of them overflow."""

    def observe(x, z):
        pyro.sample("x", dist.Bernoulli(logits=z).mask(False), obs=x)

    drawn = simulate(shown_as(observe), guide, torch.zeros(400, dtype=torch.uint8), seed=0)
    assert drawn.batch[0].dtype == torch.get_default_dtype()
    assert set(drawn.batch[0].tolist()) == {0.0, 1.0}


def test_more_entries_than_labels(monkeypatch):
    """Of 150 entries and 64 labels, five stand in a datum."""
    monkeypatch.setattr(entries, "_LABELS", 64)

    def observe(x, z):
        for j in range(5):
            pyro.sample(f"x{j}", dist.Normal(10.0 * j + z, 0.1), obs=x[:, j])

    drawn = simulate(shown_as(observe), guide, torch.zeros(30, 5), seed=0)
    assert (drawn.batch[0] - 10 * torch.arange(5.0) - drawn.latents["z"].T).abs().max() < 0.5


def test_an_entry_of_another_datum_is_refused():
    model = shown_as(lambda x, z: pyro.sample("x", dist.Normal(z, 1.0), obs=x.flip(0)))
    with pytest.raises(PairError, match="'x' observes something that is not an entry of x"):
        simulate(model, guide, torch.zeros(5))


ARITHMETIC = {
    "complement": lambda x: 1 - x,
    "shift": lambda x: x + 1,
    "double": lambda x: 2 * x,
    "negative": lambda x: -x,
    "half": lambda x: x + 0.5,
    "wrapped": lambda x: x - 2**24,
    "mean": lambda x: x.mean(0).expand(len(x)),
    "constant": lambda x: torch.zeros(len(x)),
    "missing": lambda x: torch.full((len(x),), torch.nan),
}


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("num_data", [1, 2, 7])
def test_arithmetic_on_x_is_refused(name, num_data):
    if (name, num_data) == ("mean", 1):
        return  # of one datum it is x itself
    model = shown_as(lambda x, z: pyro.sample("y", dist.Normal(z, 1.0), obs=ARITHMETIC[name](x)))
    said = "'y' observes something that is not an entry of x: let it observe x as it is"
    if name == "missing":  # such a pair cannot be run at all
        said = "cannot be run on the data: ValueError: Error while computing log_prob at site 'y'"
    with pytest.raises(PairError, match=said):
        simulate(model, guide, torch.zeros(num_data))


def test_entries_must_be_observed_once():
    def first(x, z):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def twice(x, z):
        pyro.sample("x", dist.Normal(z[..., None] * torch.ones(2), 1.0).to_event(1), obs=x)
        pyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 0])

    def broadcast(x, z):
        with pyro.plate("copies", 3, dim=-2):
            pyro.sample("x", dist.Normal(z[..., None], torch.ones(2)).to_event(1), obs=x)

    cases = ((first, "not at all"), (twice, "more than once"), (broadcast, "more than once"))
    for observe, how in cases:
        with pytest.raises(PairError, match=f"observes some entries of x {how}.*as context"):
            simulate(shown_as(observe), guide, torch.zeros(4, 2))
    with pytest.raises(PairError, match="the model observes nothing"):
        simulate(shown_as(lambda x, z: None), guide, torch.zeros(4, 2))


def test_a_factor_is_no_observation():
    def observe(x, z):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.factor("penalty", -(z**2))

    with pytest.raises(PairError, match=r"p\(x, z\) is no density: .*penalty: pyro.factor"):
        simulate(shown_as(observe), guide, torch.zeros(4))


def test_what_the_model_reads_from_x_is_refused():
    """An autoregressive program, and one that chooses its prior by x: neither draws from its own p(x)."""

    def autoregressive(x, z):
        pyro.sample("a", dist.Normal(z, 1.0), obs=x[:, 0])
        pyro.sample("b", dist.Normal(x[:, 0], 1.0), obs=x[:, 1])

    def chosen(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.mean(-1), 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * torch.ones(2), 1.0).to_event(1), obs=x)

    def looked_up(x, z):
        rate = torch.tensor([0.5, 2.0])[x[:, 0].long()]
        pyro.sample("x", dist.Normal(rate[:, None] * torch.ones(2), 1.0).to_event(1), obs=x)

    x = torch.zeros(4, 2)
    with pytest.raises(PairError, match="'b' depends on the values of x"):
        simulate(shown_as(autoregressive), guide, x)
    with pytest.raises(PairError, match=r"'z' depends on the values of x.*as context"):
        simulate(chosen, guide, x)
    with pytest.raises(PairError, match="it computes with x"):
        simulate(shown_as(looked_up), guide, x)


def test_context_is_read_freely_and_kept():
    def observe(x, z, u):
        pyro.sample("x", dist.Normal(100 * u + z, 0.1), obs=x)

    u = torch.tensor([0.0, 1.0, 2.0])
    drawn = simulate(shown_as(observe), guide, (torch.zeros(3), u), seed=0)
    assert torch.equal(drawn.batch[1], u)
    assert (drawn.batch[0] - 100 * u).abs().max() < 10


def test_deterministic_sites_and_enumerated_ones():
    def observe(x, z):
        pyro.deterministic("square", z**2)
        c = pyro.sample("c", dist.Categorical(torch.tensor([0.5, 0.5])), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(100.0 * c + z, 0.1), obs=x)

    drawn = simulate(shown_as(observe), guide, torch.zeros(100), seed=0)
    assert set(drawn.latents) == {"z", "c"}
    assert (drawn.batch[0] - (100 * drawn.latents["c"] + drawn.latents["z"])[0]).abs().max() < 0.5
    assert 30 < drawn.latents["c"].sum() < 70


def test_seeds():
    pair = pairs.build("linear_wide")
    first, same, other = (simulate(pair.model, pair.guide, pair.x, seed=seed).batch[0] for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    simulate(pair.model, pair.guide, pair.x, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    one, two = (simulate(pair.model, pair.guide, pair.x).batch[0] for _ in range(2))
    assert not torch.equal(one, two)


def test_a_model_that_does_not_broadcast():
    """x ~ N(z, 1) in two columns, by a program with one batch dim: their covariance is 1, their variance 2."""
    model = shown_as(lambda x, z: pyro.sample("x", dist.Normal(z[:, None], 1.0).expand([len(x), 2]).to_event(1), obs=x))
    x = simulate(model, guide, torch.zeros(4000, 2), seed=0).batch[0]
    expected = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    assert ((x.T @ x / 4000 - expected).abs() < truths.Z_LIMIT * 2 * math.sqrt(2 / 4000)).all()


def test_a_data_set_without_a_plate_is_one_unit():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.1).expand([3]).to_event(1), obs=x)

    drawn = simulate(model, lambda x: pyro.sample("z", dist.Normal(0.0, 1.0)), torch.zeros(3), seed=0)
    assert drawn.latents["z"].shape == (1, 1)
    assert (drawn.batch[0] - drawn.latents["z"][0]).abs().max() < 0.6  # six standard deviations


def labelled(x, y, c):
    """z ~ N(0, 1), x ~ N(z + c, 0.5²), y ~ Bernoulli(σ(2z)), given c."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + c, 0.5), obs=x)
        pyro.sample("y", dist.Bernoulli(logits=2 * z), obs=y)


def guide_of_labelled(x, y, c):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.75 * (x - c) + 0.2 * (2 * y - 1), 0.46))


def test_context_that_the_model_observes_is_drawn_and_the_rest_is_kept():
    """E[(2y − 1) z] = E[tanh(z) z] by quadrature; 5000 data, three |z| < 4.5."""
    n, c = 5000, torch.linspace(-1, 1, 5000)
    drawn = simulate(labelled, guide_of_labelled, (torch.zeros(n), torch.ones(n), c), seed=0)
    x, y, kept = drawn.batch
    z = drawn.latents["z"][0]
    assert torch.equal(kept, c)
    assert set(y.unique().tolist()) == {0.0, 1.0}
    line = torch.linspace(-8, 8, 4001)
    truth = (torch.tanh(line) * line * dist.Normal(0.0, 1.0).log_prob(line).exp()).sum() * (line[1] - line[0])
    for values, mean in (((2 * y - 1) * z, truth), (2 * y - 1, 0.0), ((x - c - z) / 0.5, 0.0)):
        assert (values.mean() - mean).abs() < truths.Z_LIMIT * values.std() / n**0.5


def test_a_certificate_and_a_calibration_take_observed_context():
    """log p(x, y|c) of data drawn from the model, by quadrature over z; the bounds hold with 95 %, seed fixed."""
    n, c = 40, torch.linspace(-1, 1, 40)
    like = (torch.zeros(n), torch.ones(n), c)
    batch = simulate(labelled, guide_of_labelled, like, seed=1).batch
    x, y, _ = batch
    line = torch.linspace(-8, 8, 4001)[:, None]
    joint = dist.Normal(0.0, 1.0).log_prob(line) + dist.Normal(line + c, 0.5).log_prob(x)
    truth = (joint + dist.Bernoulli(logits=2 * line).log_prob(y)).logsumexp(0) + (line[1] - line[0]).log()
    certificate = certify(labelled, guide_of_labelled, batch, seed=0)
    assert certificate.mean_lower <= truth.mean() <= certificate.mean_upper
    assert ((certificate.log_evidence - truth).abs() < truths.Z_LIMIT * certificate.standard_error + 1e-6).all()
    assert calibrate(labelled, guide_of_labelled, batch, num_simulations=100, seed=0).prior.gap.mean() < 0.05
