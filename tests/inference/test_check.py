"""Each published way to break a pair is found by name, and sound pairs raise no alarm."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppvae.errors import DataError
from ppvae.inference import Finding, check

X = torch.tensor(
    [[0.3, -1.2, 0.8], [1.4, 0.1, -0.5], [-0.7, 0.2, 2.0], [0.6, -0.9, 1.1], [2.1, 1.7, 0.4], [-1.5, 0.9, -0.2]],
    dtype=torch.float64,
)


def likelihood(z, noise=1.0):
    return dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), noise).to_event(1)


def standard(size=2):
    return dist.Normal(torch.zeros(size), 1.0).to_event(1)


def model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", likelihood(pyro.sample("z", standard())), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).to_event(1))


def without_plate(x):
    pyro.sample("x", dist.Normal(pyro.sample("z", standard()).sum(), 1.0).expand(x.shape).to_event(2), obs=x)


def guide_without_plate(x):
    pyro.sample("z", standard())


def with_global_latent(x):
    t = pyro.sample("t", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", likelihood(pyro.sample("z", standard()) + t.unsqueeze(-1)), obs=x)


def guide_with_global_latent(x):
    pyro.sample("t", dist.Normal(0.0, 1.0))
    guide(x)


def guide_with_a_stranger(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", standard())
        pyro.sample("w", dist.Normal(0.0, 1.0))


def guide_that_observes(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", standard())
        pyro.sample("x", dist.Normal(x, 1.0).to_event(1))


def empty_guide(x):
    pass


def positive_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))


def positive_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", likelihood(z), obs=x)


def short_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Uniform(torch.zeros(2), 0.5).to_event(1))


def unit_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Uniform(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", likelihood(z), obs=x)


def grey_pixels(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", standard())
        logits = z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3)
        pyro.sample("x", dist.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=x.sigmoid())


def flattens_draws(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", standard())
        pyro.sample("x", likelihood(z.reshape(len(x), -1)), obs=x)


def averages_data(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", standard())
        pyro.sample("x", likelihood(z - z.mean(0, keepdim=True)), obs=x)


def fixed_latent_shape(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", standard())
        mean = torch.einsum("ni,i->n", z, torch.ones(2))  # knows one batch dimension only
        pyro.sample("x", likelihood(mean.unsqueeze(-1)), obs=x)


def batch_mean_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.mean(0)[:2], 1.0).to_event(1))


def subsampled(x):
    with pyro.plate("data", 100, subsample=x):
        pyro.sample("x", likelihood(pyro.sample("z", standard())), obs=x)


def subsampled_guide(x):
    with pyro.plate("data", 100, subsample=x):
        pyro.sample("z", standard())


def not_a_number(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", likelihood(pyro.sample("z", standard()) * torch.inf), obs=x)


def hidden_noise(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", likelihood(pyro.sample("z", standard()) + torch.rand(())), obs=x)


def unsummed_mixture(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(torch.ones(3)))
        pyro.sample("x", likelihood(c.double().unsqueeze(-1)), obs=x)


def raises(x):
    raise ZeroDivisionError("on purpose")


def missing_to_event(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0))


class Encoder(nn.Module):
    """A guide with a network; its parts are replaced to plant faults."""

    def __init__(self, *, norm=None, spare=None, detached=False):
        super().__init__()
        self.norm = norm or nn.Identity()
        self.affine = nn.Linear(3, 2)
        self.spare = spare
        self.detached = detached

    def model(self, x):
        model(x)

    def guide(self, x):
        pyro.module("encoder", self)
        loc = self.affine(self.norm(x))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc.detach() if self.detached else loc, 1.0).to_event(1))


def network(**parts):
    pair = Encoder(**parts)
    return pair.model, pair.guide


BROKEN = {
    "a site of the guide alone": (model, guide_with_a_stranger, "only-in-guide", "w"),
    "a guide for the data": (model, guide_that_observes, "observed", "x"),
    "a latent without a proposal": (model, empty_guide, "only-in-model", "z"),
    "a guide that covers half the line": (model, positive_guide, "support", "z"),
    "a guide that leaves the prior": (positive_model, guide, "support", "z"),
    "a guide shorter than the prior": (unit_model, short_guide, "support", "z"),
    "grey pixels": (grey_pixels, guide, "support-of-data", "x"),
    "data averaged": (averages_data, guide, "batch-coupled", ""),
    "a batch statistic": (model, batch_mean_guide, "batch-coupled", ""),
    "a subsampling plate": (subsampled, subsampled_guide, "scale", "x"),
    "not a number": (not_a_number, guide, "non-finite", "x"),
    "randomness outside sample sites": (hidden_noise, guide, "random", ""),
    "a discrete latent not summed out": (unsummed_mixture, empty_guide, "only-in-model", "c"),
    "an error": (raises, guide, "fails", ""),
    "a missing to_event": (model, missing_to_event, "fails", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_finds_the_planted_fault(name):
    broken_model, broken_guide, code, site = BROKEN[name]
    found = check(broken_model, broken_guide, X)
    assert (code, site) in {(finding.code, finding.site) for finding in found}, [str(f) for f in found]


ADAPTED = {
    "no data plate": (without_plate, guide_without_plate, "data set", "vectorised"),
    "a global latent": (with_global_latent, guide_with_global_latent, "data set", "broadcast"),
    "draws flattened into features": (flattens_draws, guide, "datum", "fold"),
    "one batch dimension only": (fixed_latent_shape, guide, "datum", "fold"),
}


@pytest.mark.parametrize("name", ADAPTED)
def test_what_is_adapted_to_is_no_fault(name):
    adapted_model, adapted_guide, unit, layout = ADAPTED[name]
    found = check(adapted_model, adapted_guide, X)
    assert found == [], [str(f) for f in found]
    assert found.pair is not None
    assert (found.pair.unit, found.pair.model_layout) == (unit, layout)


def test_finds_batch_norm_unused_and_detached_parameters():
    assert [f.code for f in check(*network(norm=nn.BatchNorm1d(3)), X)] == ["batch-coupled"]
    assert {f.site for f in check(*network(spare=nn.Linear(3, 2)), X)} == {
        "encoder$$$spare.weight",
        "encoder$$$spare.bias",
    }
    assert {f.code for f in check(*network(detached=True), X)} == {"no-gradient"}


def test_sound_pairs_raise_no_alarm():
    assert check(model, guide, X) == []
    assert check(*network(), X) == []
    assert check(*network(norm=nn.LayerNorm(3)), X) == []
    assert check(*network(norm=nn.Dropout(0.5)), X) == []  # random in training, still in evaluation
    assert check(model, guide, X[:1]) == []


def test_a_distribution_that_cannot_be_drawn_from_as_pyros_can_is_none_of_its_findings():
    no_dims = torch.Size()

    class SizesOnly(dist.Normal):  # as GPyTorch's distributions, which want a torch.Size
        def sample(self, sample_shape=no_dims):
            assert sample_shape.numel() > 0
            return super().sample(sample_shape)

        rsample = sample

        def expand(self, batch_shape, _instance=None):
            return super().expand(batch_shape, self._get_checked_instance(SizesOnly, _instance))

    def model_of_sizes(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", SizesOnly(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x)

    def guide_of_sizes(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    assert check(model_of_sizes, guide_of_sizes, X) == []


def test_a_likelihood_that_reads_the_guides_parameters_and_not_its_draws_is_found():
    def model_of_means(x):  # as a Gaussian process whose likelihood integrates over q(f)
        loc = pyro.param("loc", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("f", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(loc, 1.0).expand([3]).to_event(1), obs=x)

    def guide_of_means(x):
        with pyro.plate("data", len(x)):
            pyro.sample("f", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))

    (finding,) = check(model_of_means, guide_of_means, X)
    assert finding.code == "no-effect"
    assert not finding.fatal


def test_leaves_no_trace():
    pair = Encoder(norm=nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    generator = torch.get_rng_state()
    check(pair.model, pair.guide, X)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())
    assert len(pyro.get_param_store()) == 0


def test_only_what_falsifies_evidence_is_fatal():
    assert not any(f.fatal for f in check(subsampled, subsampled_guide, X))
    assert all(f.fatal for f in check(grey_pixels, guide, X))


def test_a_finding_reads_as_a_sentence():
    finding = Finding("support", "z", "the guide proposes too much", "use less")
    assert str(finding) == "[support] z: the guide proposes too much; use less."


def test_missing_values_that_reach_a_density_are_found():
    (finding,) = check(model, guide, X.clone().fill_(torch.nan))
    assert "NaN" in finding.message
    assert finding.fatal


@pytest.mark.parametrize("x", [torch.empty(0, 3), torch.tensor(1.0), {1.0, 2.0}, X.clone().fill_(torch.inf)])
def test_refuses_what_is_no_data(x):
    with pytest.raises(DataError):
        check(model, guide, x)
