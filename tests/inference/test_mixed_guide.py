"""Mixed guides: their densities are densities, a missed mode and a heavy tail are mended, what came is left alone.

Truths by quadrature. Seeds are fixed; what is compared with quadrature has no Monte Carlo error but where it is said.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from ppvae.errors import PairError
from ppvae.inference import Attempts, Mended, attribute_gap, check, importance_evidence, log_weights, mend
from ppvae.inference.mending.mended import DEFENCE, MIXTURE, with_family
from ppvae.inference.mending.second_part import _elbo, missed_mass
from ppvae.inference.mending.weight_tail import moment_ratio
from ppvae.inference.pair import LastDraw, Pair, TwoPartMixture


class Square:
    """z ~ N(mean, 1), x ~ N(z², 0.3²): two modes, at ±√x. The guide is a normal at +√x, as wide as that mode."""

    def __init__(self, mean):
        self.mean = mean

    def data(self, num_data):
        generator = torch.Generator().manual_seed(0)
        z = self.mean + torch.randn(3 * num_data, generator=generator)
        z = z[z.abs() > 0.7][:num_data]
        return z**2 + 0.3 * torch.randn(num_data, generator=generator)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.mean, 1.0))
            pyro.sample("x", dist.Normal(z.square(), 0.3), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            root = x.clamp(min=0.2).sqrt()
            pyro.sample("z", dist.Normal(root, 0.3 / (2 * root)))

    def log_evidence(self, x):
        z = torch.linspace(-8, 8, 20_001)
        terms = dist.Normal(self.mean, 1.0).log_prob(z) + dist.Normal(z.square(), 0.3).log_prob(x[:, None])
        return torch.logsumexp(terms, -1) + (z[1] - z[0]).log()


class Tails:
    """z ~ t₃, x ~ N(z, 2²): the posterior has the tails of t₃, and the guide is a normal that is too narrow."""

    @staticmethod
    def data(num_data=100):
        generator = torch.Generator().manual_seed(1)
        normal = torch.randn(5, num_data, generator=generator)
        return normal[0] / (normal[1:4].square().mean(0)).sqrt() + 2 * normal[4]

    @staticmethod
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.StudentT(3.0, 0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 2.0), obs=x)

    @staticmethod
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.35 * x, 0.6))

    @staticmethod
    def log_evidence(x):
        z = torch.linspace(-80, 80, 80_001)
        terms = dist.StudentT(3.0, 0.0, 1.0).log_prob(z) + dist.Normal(z, 2.0).log_prob(x[:, None])
        return torch.logsumexp(terms, -1) + (z[1] - z[0]).log()


class TwoSites:
    """Two latents of a datum, the second of the guide's given the first."""

    @staticmethod
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    @staticmethod
    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x / 3, 0.7))
            pyro.sample("b", dist.Normal(x / 3 - 0.4 * a, 0.7))


X = torch.tensor([-1.0, 0.3, 2.0, 0.5])


def made(pair, family, x, change=0.0):
    """The guide mixed, with the maps of the second part changed at random."""
    pyro.clear_param_store()
    torch.manual_seed(3)
    guide = with_family(pair.model, pair.guide, (x,), family, "mended")
    with torch.no_grad():
        for parameter in guide.networks.parameters():
            if change and not parameter.any():
                parameter.normal_(0, change)
        for name, buffer in guide.networks.named_buffers():
            if change and name.startswith("gate"):
                buffer.normal_(0, 1)
    return guide


def log_q(pair, guide, x, values):
    with torch.no_grad(), Pair.on(pair.model, guide, (x,)) as found:
        return found.log_guide(values, len(next(iter(values.values()))))


@pytest.mark.parametrize("family", [MIXTURE, DEFENCE])
def test_the_density_of_two_sites_is_the_mixture_of_the_joint_densities(family):
    """Exact: at any point q' is (1 − a) q(a, b) + a r(a, b), from each part by itself; and it integrates to one."""
    x = X.to(torch.get_default_dtype())
    guide = made(TwoSites, family, x, change=0.2)
    grid = torch.linspace(-9, 9, 181)
    a, b = (v.reshape(-1, 1).expand(-1, len(x)) for v in torch.meshgrid(grid, grid, indexing="ij"))
    whole, *parts = (log_q(TwoSites, program, x, {"a": a, "b": b}) for program in (guide, guide.only(0), guide.only(1)))
    with torch.no_grad():
        logit = torch.full((len(x),), math.log(1 / 9)) if family == DEFENCE else guide.networks["gate"](
            guide.hidden(guide.networks, (x,)))  # fmt: skip
    share = torch.sigmoid(logit)
    expected = torch.logaddexp((1 - share).log() + parts[0], share.log() + parts[1])
    torch.testing.assert_close(whole, expected.double(), atol=1e-4, rtol=1e-4)
    mass = torch.trapezoid(torch.trapezoid(whole.exp().reshape(181, 181, -1), grid, dim=0), grid, dim=0)
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=2e-3, rtol=0)
    assert not check(TwoSites.model, guide, x)


def test_draws_of_two_sites_have_that_density():
    """E[p/q'] = p(x): 4 estimates within 5 of their standard errors, a false alarm at a rate of 3e-6."""
    x = X.to(torch.get_default_dtype())
    found = importance_evidence(TwoSites.model, made(TwoSites, MIXTURE, x, change=0.2), x, 4000, seed=1)
    truth = dist.Normal(0.0, math.sqrt(3.0)).log_prob(x)
    assert bool(((found.log_evidence - truth).abs() < 5 * found.standard_error).all())


def test_a_draw_follows_the_weights_and_its_part_is_kept():
    """100 000 draws: the mean within 5 standard errors, a false alarm at a rate of 6e-7."""
    torch.manual_seed(0)
    last = LastDraw()
    mixture = TwoPartMixture(dist.Normal(0.0, 1.0), dist.Normal(3.0, 0.5), torch.tensor([0.7, 0.3]).log(), last)
    z = mixture.expand([100_000]).sample()
    assert float(z.mean()) == pytest.approx(0.9, abs=5 * float(mixture.variance) ** 0.5 / math.sqrt(100_000))
    assert float(mixture.mean) == pytest.approx(0.9)
    assert float(mixture.variance) == pytest.approx(0.7 * 1 + 0.3 * (0.25 + 9) - 0.81)
    assert bool((z[last.part] > 0).all())
    torch.testing.assert_close(
        mixture.log_prob(torch.tensor(1.0)),
        (0.7 * dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0)).exp()
         + 0.3 * dist.Normal(3.0, 0.5).log_prob(torch.tensor(1.0)).exp()).log(),
    )  # fmt: skip


def test_the_gradient_along_the_path_is_that_of_the_expectation():
    """∂/∂m E[z²] of 0.7 N(0, 1) + 0.3 N(m, 1) is 0.6 m; 200 000 draws, within 5 standard errors."""
    torch.manual_seed(0)
    m = torch.tensor(1.5, requires_grad=True)
    mixture = TwoPartMixture(dist.Normal(0.0, 1.0), dist.Normal(m, 1.0), torch.tensor([0.7, 0.3]).log(), LastDraw())
    z = mixture.expand([200_000]).rsample()
    (slope,) = torch.autograd.grad(z.square().mean(), m)
    spread = math.sqrt(0.3 * 4 * (1 + 1.5**2) - 0.9**2)
    assert float(slope) == pytest.approx(0.9, abs=5 * spread / math.sqrt(200_000))


def test_missed_mass_and_the_elbo_of_weights_are_what_the_formulas_say():
    log_p = torch.tensor([[-1.0], [-2.0]]).double()
    log_prior = torch.zeros(2, 1).double()
    weights = log_p.exp() / log_p.exp().sum()
    evidence = log_p.exp().mean()
    log_q = torch.tensor([[-1.5], [0.5]]).double()
    expected = weights * (1 - log_q.exp() * evidence / log_p.exp()).clamp(min=0)
    torch.testing.assert_close(missed_mass(log_p, log_q, log_prior), expected)
    # Equal parts cost nothing to be mixed, whatever the weights.
    same = torch.full((2, 2, 3, 1), -1.0).double()
    assert float(_elbo(torch.tensor([0.4]).double(), torch.zeros(2, 3, 1).double(), same)) == pytest.approx(1.0)


def test_a_prior_that_depends_on_other_latents_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    with pytest.raises(PairError, match="depends on other latents"):
        with_family(model, TwoSites.guide, (X.to(torch.get_default_dtype()),), MIXTURE, "mended")


def test_a_defence_is_kept_for_the_tail_and_wins_the_error_back(tmp_path):
    """The mean square error of log p(x) from 1000 draws falls by 80 % or more: E_q[w²] is infinite, E_q'[w'²] not."""
    x = Tails.data()
    mended = mend(Tails.model, Tails.guide, x, steps=1, seed=0, attempts=Attempts(only=("defence",)))
    (step,) = mended.steps
    assert step.kept
    assert "mean square" in step.reason
    assert step.gain > -max(2 * step.standard_error, 0.01)
    truth = Tails.log_evidence(x)
    one, other = (
        torch.stack([importance_evidence(Tails.model, guide, x, 1000, seed=i).log_evidence - truth for i in range(4)])
        for guide in (Tails.guide, mended.guide)
    )
    assert 1 - float(other.square().mean() / one.square().mean()) > 0.8
    mended.save(tmp_path / "mended.pt")
    again = Mended.load(tmp_path / "mended.pt", Tails.model, Tails.guide, x[:10])
    assert torch.equal(*(log_weights(m.model, m.guide, x[:10], 5, seed=0) for m in (mended, again)))


def test_a_defence_of_an_exact_guide_is_not_kept():
    """q is the posterior: every defence makes its weights vary."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    x = torch.randn(40, generator=torch.Generator().manual_seed(0))
    mended = mend(model, guide, x, steps=1, seed=0, attempts=Attempts(only=("defence",)))
    assert not mended.steps[0].kept
    defended = with_family(model, guide, (x,), DEFENCE, "mended")
    ratio, error = moment_ratio(model, guide, defended, (x,), seed=0)
    assert ratio < -2 * error


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_a_missed_mode_is_won_back_by_a_mixture(mean, tmp_path):
    """At ±√x, as likely as each other or not; what the mode costs is in the gap, by quadrature."""
    pair = Square(mean)
    x = pair.data(400)
    mended = mend(
        pair.model, pair.guide, x, steps=400, learning_rate=0.01, seed=0, attempts=Attempts(only=("mixture",))
    )
    truth = pair.log_evidence(x[::5])
    before, after = (float((truth - elbo).mean()) for elbo in (mended.elbo_before, mended.elbo))
    assert before > 0.4
    assert 1 - after / before > 0.8
    assert mended.steps[0].kept
    found = importance_evidence(mended.model, mended.guide, x[::5], 4000, seed=1)
    # 80 data within 5 standard errors: a false alarm at a rate of 5e-5.
    trusted = found.trusted  # an ELBO asks for narrow parts, so that some of the data have a large k-hat
    assert int(trusted.sum()) > 20
    assert bool(((found.log_evidence - truth).abs() < 5 * found.standard_error + 1e-3)[trusted].all())
    mended.save(tmp_path / "mended.pt")
    again = Mended.load(tmp_path / "mended.pt", pair.model, pair.guide, x[:10])
    assert torch.equal(*(log_weights(m.model, m.guide, x[:10], 5, seed=0) for m in (mended, again)))
    gap = attribute_gap(mended.model, mended.guide, x[:5], seed=0)  # the family of a mixture is that of its first part
    assert bool(torch.isfinite(gap.total).all())


@pytest.mark.slow
def test_a_mixture_gains_nothing_where_no_mode_is_missed():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(0.5).sqrt(), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, scale))

    x = math.sqrt(2) * torch.randn(200, generator=torch.Generator().manual_seed(0))
    mended = mend(model, guide, x, steps=200, learning_rate=0.01, seed=0, attempts=Attempts(only=("mixture",)))
    assert not any(step.kept for step in mended.steps)
