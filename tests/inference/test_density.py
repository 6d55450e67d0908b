"""`density_of`: a pair as a function of unconstrained latents. What it refuses: test_density_refusals.py.

The truth is written out from the formulas (`FORMS`), or is Pyro's own: one chain at a time, without particles, and
with a run for every assignment of the enumerated sites (`brute_force`).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
import truths_inference as truths
from gate import slow_those
from pyro import poutine
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import AffineTransform

from ppvae.inference.pair import Pair
from ppvae.inference.pair.traces import latents, plain_traces, sample_sites
from ppvae.inference.pair.unconstrained import evaluate

PARALLEL: Any = {"enumerate": "parallel"}
# A Kolmogorov-Smirnov test fails by chance once in a million.
ALARM = 1e-6
DENSE = [name for name in pairs.BUILDERS if name not in {"autoencoder", "mixture", "nested", "chain", "feed_forward"}]
BUILDABLE = [name for name in pairs.BUILDERS if name != "autoencoder"]
SUMMED = [*BUILDABLE, *(pytest.param(name, marks=pytest.mark.slow) for name in pairs.OF_MODELS)]
STARTS: list[Any] = ["guide", "prior"]


# --- densities by hand -------------------------------------------------------------------------------------------


def normal(x: Tensor, loc: Any, scale: Any) -> Tensor:
    return -(((x - loc) / scale) ** 2) / 2 - torch.as_tensor(scale).log() - math.log(2 * math.pi) / 2


def log_gamma(u: Tensor, shape: Any, rate: Any) -> Tensor:
    """z = eᵘ ~ Gamma(a, b): u has density bᵃ/Γ(a) exp(a u − b eᵘ)."""
    shape, rate = torch.as_tensor(shape), torch.as_tensor(rate)
    return shape * rate.log() - torch.lgamma(shape) + shape * u - rate * u.exp()


def logit_beta(u: Tensor, a: Any, b: Any) -> Tensor:
    """z = σ(u) ~ Beta(a, b): u has density σ(u)ᵃ σ(−u)ᵇ / B(a, b)."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    log_norm = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    return -a * torch.log1p((-u).exp()) - b * torch.log1p(u.exp()) - log_norm


def sticks(u: Tensor) -> tuple[Tensor, Tensor]:
    """z_k = v_k Π_{j<k} (1 − v_j), v_k = σ(u_k − log(K − k)); and log |∂z/∂u| = Σ log (1 − v_k) z_k."""
    K = u.shape[-1] + 1
    left, z, log_jacobian = torch.ones_like(u[..., 0]), [], torch.zeros_like(u[..., 0])
    for k in range(1, K):
        v = torch.sigmoid(u[..., k - 1] - math.log(K - k))
        z.append(v * left)
        log_jacobian = log_jacobian + torch.log(v * (1 - v) * left)
        left = left * (1 - v)
    return torch.stack([*z, left], -1), log_jacobian


def dirichlet(z: Tensor, alpha: Tensor) -> Tensor:
    log_norm = torch.lgamma(alpha).sum(-1) - torch.lgamma(alpha.sum(-1))
    return ((alpha - 1) * z.log()).sum(-1) - log_norm


@dataclass(frozen=True)
class Form:
    """A pair, how many numbers its latents are, and log p(x, u), log p(u), log q(u|x) by hand."""

    model: Callable[..., object]
    guide: Callable[..., object]
    x: Tensor
    dim: int
    by_hand: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def vector() -> Form:
    weight = torch.tensor([0.8, -0.5])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor([0.3, 0.0]), torch.tensor([1.0, 2.0])).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, 0.7), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.stack([x / 2, -x], -1), torch.tensor([0.6, 1.5])).to_event(1))

    def by_hand(u, x):
        prior = normal(u[..., 0], 0.3, 1.0) + normal(u[..., 1], 0.0, 2.0)
        guide = normal(u[..., 0], x / 2, 0.6) + normal(u[..., 1], -x, 1.5)
        return prior + normal(x, 0.8 * u[..., 0] - 0.5 * u[..., 1], 0.7), prior, guide

    return Form(model, guide, torch.tensor([0.4, -1.1, 2.0]), 2, by_hand)


def gamma() -> Form:
    pair = pairs.build("gamma_poisson")

    def by_hand(u, x):
        u = u[..., 0]
        prior = log_gamma(u, 2.5, 0.7)
        return prior + x * u - u.exp() - torch.lgamma(x + 1), prior, log_gamma(u, 0.8 * (2.5 + x), 0.8 * 1.7)

    return Form(pair.model, pair.guide, pair.x, 1, by_hand)


def beta() -> Form:
    pair = pairs.build("beta_binomial")

    def by_hand(u, x):
        u = u[..., 0]
        prior = logit_beta(u, 2.0, 3.0)
        log_choose = math.lgamma(11) - torch.lgamma(x + 1) - torch.lgamma(11 - x)
        likelihood = log_choose + x * torch.sigmoid(u).log() + (10 - x) * torch.sigmoid(-u).log()
        return prior + likelihood, prior, logit_beta(u, 0.8 * (2 + x), 0.8 * (13 - x))

    return Form(pair.model, pair.guide, pair.x, 1, by_hand)


def simplex() -> Form:
    alpha = torch.tensor([1.5, 2.0, 0.7, 3.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(alpha))
            pyro.sample("x", dist.Multinomial(6, z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet(alpha + 0.5 * x))

    def by_hand(u, x):
        z, log_jacobian = sticks(u)
        prior = dirichlet(z, alpha) + log_jacobian
        likelihood = math.lgamma(7) - torch.lgamma(x + 1).sum(-1) + (x * z.log()).sum(-1)
        return prior + likelihood, prior, dirichlet(z, alpha + 0.5 * x) + log_jacobian

    return Form(model, guide, torch.tensor([[1.0, 2, 0, 3], [6, 0, 0, 0], [0, 1, 4, 1]]), 3, by_hand)


def lognormal() -> Form:
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(0.2, 0.5))
            pyro.sample("x", dist.Normal(z, 0.9), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(x / 4, 0.6))

    def by_hand(u, x):
        prior = normal(u[..., 0], 0.2, 0.5)
        return prior + normal(x, u[..., 0].exp(), 0.9), prior, normal(u[..., 0], x / 4, 0.6)

    return Form(model, guide, torch.tensor([0.4, 1.9]), 1, by_hand)


def two_sites() -> Form:
    """The spread of z1 is a latent above it; the guide draws them in the opposite order."""

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Gamma(2.0, 1.5))
            z1 = pyro.sample("z1", dist.Normal(0.0, z2))
            pyro.sample("x", dist.Normal(z1, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x / 2, 0.7))
            pyro.sample("z2", dist.Gamma(2.0, 1 + z1**2))

    def by_hand(u, x):
        u2, z1 = u[..., 0], u[..., 1]
        prior = log_gamma(u2, 2.0, 1.5) + normal(z1, 0.0, u2.exp())
        return prior + normal(x, z1, 0.5), prior, normal(z1, x / 2, 0.7) + log_gamma(u2, 2.0, 1 + z1**2)

    return Form(model, guide, torch.tensor([0.4, -1.9, 0.0]), 2, by_hand)


def moving_support() -> Form:
    """z2 lies in (0, z1): 1/z1, the uniform density, cancels against ∂z2/∂u2 = z1 σ(u2) σ(−u2)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.LogNormal(0.1, 0.5))
            z2 = pyro.sample("z2", dist.Uniform(0.0, z1))
            pyro.sample("x", dist.Normal(z2, 0.4), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.LogNormal(0.1 * x, 0.6))
            share = dist.Beta(torch.full_like(z1, 2.0), torch.full_like(z1, 1.5))
            pyro.sample("z2", dist.TransformedDistribution(share, AffineTransform(0.0, z1)))

    def by_hand(u, x):
        u1, u2 = u[..., 0], u[..., 1]
        prior = normal(u1, 0.1, 0.5) + logit_beta(u2, 1.0, 1.0)
        z2 = u1.exp() * torch.sigmoid(u2)
        return prior + normal(x, z2, 0.4), prior, normal(u1, 0.1 * x, 0.6) + logit_beta(u2, 2.0, 1.5)

    return Form(model, guide, torch.tensor([0.4, 1.1, 0.2]), 2, by_hand)


def plates() -> Form:
    """Per datum: z0; three compositions a_j of three shares; 2 × 3 spreads b_kj. x has shape (num_data, 2, 3)."""
    alpha, weight = torch.tensor([2.0, 1.0, 3.0]), torch.tensor([-1.0, 0.5, 2.0])

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z0 = pyro.sample("z0", dist.Normal(0.0, 1.2))
            with pyro.plate("parts", 3, dim=-2):
                a = pyro.sample("a", dist.Dirichlet(alpha))
                with pyro.plate("groups", 2, dim=-3):
                    b = pyro.sample("b", dist.Gamma(2.0, 1.5))
                    pyro.sample("x", dist.Normal(z0 + a @ weight, b), obs=x.permute(1, 2, 0))

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z0", dist.Normal(x.mean((1, 2)), 0.5))
            with pyro.plate("parts", 3, dim=-2):
                with pyro.plate("groups", 2, dim=-3):
                    pyro.sample("b", dist.Gamma(3.0, 1 + x.permute(1, 2, 0) ** 2))
                pyro.sample("a", dist.Dirichlet(torch.ones(3)))

    def by_hand(u, x):
        z0, ua, ub = u[..., 0], u[..., 1:7].unflatten(-1, (3, 2)), u[..., 7:].unflatten(-1, (2, 3))
        a, log_jacobian = sticks(ua)
        prior = normal(z0, 0.0, 1.2) + (dirichlet(a, alpha) + log_jacobian).sum(-1)
        prior = prior + log_gamma(ub, 2.0, 1.5).sum((-1, -2))
        loc = z0[..., None] + a @ weight
        likelihood = normal(x, loc[..., None, :], ub.exp()).sum((-1, -2))
        guide = normal(z0, x.mean((1, 2)), 0.5) + (math.log(2) + log_jacobian).sum(-1)
        return prior + likelihood, prior, guide + log_gamma(ub, 3.0, 1 + x**2).sum((-1, -2))

    return Form(model, guide, torch.linspace(-2, 2, 24).reshape(4, 2, 3), 13, by_hand)


def classes() -> Form:
    """Enumerated in both: c moves the prior of z; the guide's class, of its own name and odds, moves q(z)."""
    odds, mean, std = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0.5, 1.0, 0.7])
    shift = torch.tensor([-0.4, 0.6])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(odds), infer=PARALLEL)
            z = pyro.sample("z", dist.Normal(mean[c], std[c]))
            pyro.sample("x", dist.Normal(z + shift[(c > 0).long()], 0.8), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            d = pyro.sample("d", dist.Categorical(torch.tensor([0.3, 0.7])), infer={**PARALLEL, "is_auxiliary": True})
            pyro.sample("z", dist.Normal(x / 2 + shift[d], 0.9))

    def by_hand(u, x):
        z = u[..., 0]
        prior = [odds[c].log() + normal(z, mean[c], std[c]) for c in range(3)]
        joint = [prior[c] + normal(x, z + shift[min(c, 1)], 0.8) for c in range(3)]
        guide = [math.log(share) + normal(z, x / 2 + shift[d], 0.9) for d, share in enumerate((0.3, 0.7))]
        return tuple(torch.logsumexp(torch.stack(terms), 0) for terms in (joint, prior, guide))

    return Form(model, guide, torch.tensor([0.4, 1.1, -2.0]), 1, by_hand)


def factors() -> Form:
    """A mixture of factor analysers; q(z) = Σ_c q(c) N(z; m_c, s_c²) with the moments of p(z | c, x)."""
    pair = pairs.build("mixture_conditional")
    share, odds = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.6, 0.3, 0.1])
    slope = torch.tensor([[1.0, 0.0], [0.5, -0.8], [-0.3, 0.9]])
    offset = torch.tensor([[0.0, 1.0], [0.5, -0.5], [-1.0, 0.0]])

    def by_hand(u, x):
        z = u[..., 0]
        joint, guide = [], []
        for c in range(3):
            likelihood = normal(x, slope[c] * z[..., None] + offset[c], 0.6).sum(-1)
            joint.append(share[c].log() + normal(z, 0.0, 1.0) + likelihood)
            precision = 1 + (slope[c] ** 2).sum() / 0.36
            loc = (x - offset[c]) @ slope[c] / 0.36 / precision
            guide.append(odds[c].log() + normal(z, loc, precision.rsqrt()))
        return torch.logsumexp(torch.stack(joint), 0), normal(z, 0.0, 1.0), torch.logsumexp(torch.stack(guide), 0)

    return Form(pair.model, pair.guide, pair.x, 1, by_hand)


def classes_in_plates() -> Form:
    """Three parts, each with a class c_j that z_j follows: the sum over c_j comes before the product over j."""
    odds, mean = torch.tensor([0.25, 0.75]), torch.tensor([-1.0, 1.5])

    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 3, dim=-2):
            c = pyro.sample("c", dist.Categorical(odds), infer=PARALLEL)
            z = pyro.sample("z", dist.Normal(mean[c], 0.6))
            pyro.sample("x", dist.Normal(z * (1 + c), 0.8), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 3, dim=-2):
            pyro.sample("z", dist.Normal(x.T / 2, 1.1))

    def by_hand(u, x):
        prior = [odds[c].log() + normal(u, mean[c], 0.6) for c in range(2)]
        joint = [prior[c] + normal(x, u * (1 + c), 0.8) for c in range(2)]
        log_prior, log_joint = (torch.logsumexp(torch.stack(terms), 0).sum(-1) for terms in (prior, joint))
        return log_joint, log_prior, normal(u, x / 2, 1.1).sum(-1)

    return Form(model, guide, torch.tensor([[0.3, -1.0, 2.0], [0.0, 1.0, 1.5]]), 3, by_hand)


BUILDERS = (vector, gamma, beta, simplex, lognormal, two_sites, moving_support, plates)
FORMS = {build.__name__: build for build in (*BUILDERS, classes, factors, classes_in_plates)}


def unconstrained_of(x: Tensor, dim: int, num_chains: int = 5, seed: int = 0) -> Tensor:
    return 1.3 * torch.randn(num_chains, len(x), dim, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


@pytest.mark.parametrize("name", FORMS)
def test_densities_and_gradients_are_those_written_by_hand(name):
    form = FORMS[name]()
    u = unconstrained_of(form.x, form.dim)
    exact = u.clone().requires_grad_()
    truth = form.by_hand(exact, form.x)
    slopes = [torch.autograd.grad(value.sum(), exact, retain_graph=True)[0] for value in truth]
    for start in STARTS:
        with Pair.on(form.model, form.guide, (form.x,), start=start) as density:
            assert density.dim == form.dim
            assert density.num_units == len(form.x)
            point = evaluate(density.path(start), u)
            joint = evaluate(density.joint, u)
        begin = 1 if start == "prior" else 2
        assert point.values.shape == (2, *u.shape[:2])
        assert point.gradients.shape == (2, *u.shape)
        torch.testing.assert_close(point.values, torch.stack([truth[begin], truth[0]]).detach(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(point.gradients, torch.stack([slopes[begin], slopes[0]]), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(joint.values[0], point.values[1], rtol=0, atol=1e-12)
        torch.testing.assert_close(joint.gradients[0], point.gradients[1], rtol=0, atol=1e-12)


def test_the_stick_breaking_jacobian_of_this_file_is_the_determinant():
    u = torch.tensor([0.3, -1.2, 0.8])
    jacobian = torch.autograd.functional.jacobian(lambda u: sticks(u)[0][:-1], u)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], sticks(u)[1])


def test_gradients_derived_by_hand():
    """Gamma-Poisson: ∂/∂u log p(u) = a − b eᵘ, log p(x, u): a + x − (b + 1) eᵘ, log q(u|x): 0.8 times that."""
    form = gamma()
    u = unconstrained_of(form.x, 1)
    with Pair.on(form.model, form.guide, (form.x,), start="guide") as density:
        to_guide, to_prior = (evaluate(density.path(start), u).gradients[..., 0] for start in STARTS)
    z = u[..., 0].exp()
    joint = 2.5 + form.x - 1.7 * z
    torch.testing.assert_close(to_prior, torch.stack([2.5 - 0.7 * z, joint]))
    torch.testing.assert_close(to_guide, torch.stack([0.8 * joint, joint]))


@pytest.mark.parametrize("name", ["hierarchy", "plated", "mixture_conditional", "parts", "vae_binomial", "banana"])
def test_gradients_are_finite_differences(name):
    pair = pairs.build(name).rows(slice(0, 2))
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        u = unconstrained_of(pair.x, density.dim, 2)
        for start in STARTS:
            terms = density.path(start)
            torch.autograd.gradcheck(terms, (u.clone().requires_grad_(),), atol=1e-6)
            values = terms(u.requires_grad_())
            slopes = [torch.autograd.grad(value.sum(), u, retain_graph=True)[0] for value in values]
            point = evaluate(terms, u)
            torch.testing.assert_close(point.gradients, torch.stack(slopes), rtol=0, atol=0)
            torch.testing.assert_close(point.values, torch.stack(values).detach(), rtol=0, atol=0)
            u = u.detach()


def test_gradients_that_are_not_finite_are_zero():
    """log u, √u and a constant, at −1, 0 and 4; u has a second coordinate on which nothing depends."""
    u = torch.tensor([[[-1.0, 3.0]], [[0.0, 3.0]], [[4.0, 3.0]]])
    for term, values, slopes in (
        (torch.log, [math.nan, -math.inf, math.log(4)], [-1.0, 0.0, 0.25]),
        (torch.sqrt, [math.nan, 0.0, 2.0], [0.0, 0.0, 0.25]),
        (torch.zeros_like, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ):
        point = evaluate(lambda u, term=term: term(u[..., 0])[None], u)
        assert not point.u.requires_grad
        torch.testing.assert_close(point.values[0, :, 0], torch.tensor(values), rtol=0, atol=1e-12, equal_nan=True)
        torch.testing.assert_close(point.gradients[0, :, 0, 0], torch.tensor(slopes), rtol=0, atol=0)
        assert (point.gradients[..., 1] == 0).all()


# --- Pyro's own densities, chain by chain and assignment by assignment -------------------------------------------


def per_datum(program: Any, batch: Any, values: dict[str, Tensor], observed: bool) -> Tensor:
    """Pyro's log densities of one run with these values, summed to (num_data,)."""
    trace = poutine.trace(poutine.condition(program, values)).get_trace(*batch)
    trace.compute_log_prob()
    total = torch.zeros(len(batch[0]))
    for name, site in sample_sites(trace):
        if observed or name in values:
            total = total + site["log_prob"].reshape(-1, len(batch[0])).sum(0)
    return total.detach()


def assignments(program: Any, batch: Any, summed: frozenset[str]):
    """Every assignment of the discrete sites of a program, the same for each datum."""
    trace: Any = poutine.trace(program).get_trace(*batch)
    sites = [(name, trace.nodes[name]["fn"]) for name in sorted(summed) if name in trace.nodes]
    sizes = [fn.shape()[:-1].numel() for _, fn in sites]
    counts = [fn.enumerate_support(False).shape[0] for _, fn in sites]
    each = [itertools.product(range(count), repeat=size) for count, size in zip(counts, sizes, strict=True)]
    for choice in itertools.product(*each):
        yield {
            name: torch.tensor(value).reshape(*fn.shape()[:-1], 1).expand(fn.shape())
            for (name, fn), value in zip(sites, choice, strict=True)
        }


def brute_force(program: Any, batch: Any, z: dict[str, Tensor], summed: frozenset[str], observed: bool) -> Tensor:
    """log Σ_d of the program's density at each chain's z, (num_chains, num_data)."""
    num_chains = len(next(iter(z.values()))) if z else 1
    choices = list(assignments(program, batch, summed))
    rows = []
    for chain in range(num_chains):
        one = {name: value[chain] for name, value in z.items()}
        terms = [per_datum(program, batch, {**one, **d}, observed) for d in choices]
        rows.append(torch.logsumexp(torch.stack(terms), 0))
    return torch.stack(rows)


def by_program(pair: Pair, site: str, value: Tensor) -> Tensor:
    """A value by datum in the shape that the programs give it under a plate of draws."""
    for axis, dim in enumerate(pair.structure.plates.inside, start=2):
        if dim not in pair.sites[site].plates:
            value = value.unsqueeze(axis)
    return value.movedim(1, pair.structure.plates.nesting)


@pytest.mark.parametrize("name", slow_those(pairs.OTHER_NUMBERS, SUMMED))
def test_densities_are_pyros_own_summed_over_every_assignment(name):
    """Most of these latents are real, so that u = z; the others' Jacobians are d/du eᵘ and σ(u) σ(−u)."""
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        assert set(density.sites) == set(pair.latents)
        u = unconstrained_of(pair.x, density.dim, 2)
        values = {start: torch.stack(density.path(start)(u)).detach() for start in STARTS}
        torch.testing.assert_close(density.ends(u).detach(), torch.stack([values["guide"][0], *values["prior"]]))
        inner = density.constrained(u)
    # As programs shape them under a plate of draws: the data last but for the event, dims of the plates left of it.
    z = {site: by_program(density, site, value) for site, value in inner.items()}
    log_jacobian = torch.zeros(u.shape[:2])
    if name.startswith("gamma"):
        log_jacobian = u[..., 0]
    elif name.startswith("beta"):
        log_jacobian = torch.log(z["z"] * (1 - z["z"]))
    elif name.startswith("counts"):
        log_jacobian = torch.log(z["library"])
    elif name.startswith("bounded"):
        log_jacobian = torch.log(z["z"] * (1 - z["z"]) if name == "bounded_beta" else z["z"]).sum(-1)
    elif name == "relaxed":  # two simplices of two corners each
        log_jacobian = (z["v1"].log() + z["v2"].log()).sum(-1)
    joint = brute_force(pair.model, pair.args, z, pair.summed, observed=True) + log_jacobian
    prior = brute_force(pair.model, pair.args, z, pair.summed, observed=False) + log_jacobian
    guide = brute_force(pair.guide, pair.args, z, pair.summed, observed=False) + log_jacobian
    torch.testing.assert_close(values["guide"], torch.stack(torch.broadcast_tensors(guide, joint)), rtol=0, atol=1e-9)
    torch.testing.assert_close(values["prior"], torch.stack(torch.broadcast_tensors(prior, joint)), rtol=0, atol=1e-9)


def test_a_site_that_the_guide_enumerates_is_summed_out_of_both():
    odds, mean = torch.tensor([0.2, 0.8]), torch.tensor([-1.0, 1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(odds))
            z = pyro.sample("z", dist.Normal(mean[c], 0.7))
            pyro.sample("x", dist.Normal(z, 0.8), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.5, 0.5])), infer=PARALLEL)
            pyro.sample("z", dist.Normal(x / 2 + mean[c], 0.9))

    x = torch.tensor([0.4, -2.0])
    u = unconstrained_of(x, 1)
    with Pair.on(model, guide, (x,), start="guide") as density:
        values = torch.stack([density.path("prior")(u)[0], *density.path("guide")(u)])
        assert density.draw("guide", 3).shape == (3, 2, 1)
    z = u[..., 0]
    prior, guided = (
        [normal(z, loc, scale) for loc in locs] for locs, scale in ((mean, 0.7), (x / 2 + mean[:, None], 0.9))
    )
    log_prior = torch.logsumexp(torch.stack([odds[c].log() + prior[c] for c in range(2)]), 0)
    log_guide = torch.logsumexp(torch.stack(guided), 0) - math.log(2)
    torch.testing.assert_close(values, torch.stack([log_prior, log_guide, log_prior + normal(x, z, 0.8)]))


@pytest.mark.parametrize("name", ["mixture", "nested", "chain", "feed_forward"])
def test_without_continuous_latents_the_joint_is_the_evidence(name):
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        u = density.draw("guide", 3)
        assert u.shape == (3, len(pair.x), 0)
        for start in STARTS:
            point = evaluate(density.path(start), u)
            torch.testing.assert_close(point.values[0], torch.zeros(u.shape[:2]), rtol=0, atol=1e-12)
            torch.testing.assert_close(point.values[1], pair.truth.expand(3, -1), rtol=0, atol=1e-10)
            assert point.gradients.shape == (2, *u.shape)


def test_scales_are_left_out_and_masks_of_the_data_count():
    present = torch.tensor([True, False, True])

    def model(x):
        with pyro.plate("data", 300, subsample=torch.arange(len(x))), poutine.scale(scale=0.1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("tilt", 0.3 * z)
            with poutine.mask(mask=present[: len(x)]):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", 300, subsample=torch.arange(len(x))):
            pyro.sample("z", dist.Normal(x / 2, 0.8))

    x = torch.tensor([0.3, math.nan, -1.0]).nan_to_num(7.0)
    u = unconstrained_of(x, 1)
    with Pair.on(model, guide, (x,), start="guide") as density:
        values = {start: torch.stack(density.path(start)(u)) for start in STARTS}
    z = u[..., 0]
    prior = normal(z, 0.0, 1.0)
    joint = prior + 0.3 * z + present * normal(x, z, 1.0)
    torch.testing.assert_close(values["prior"], torch.stack([prior, joint]))
    torch.testing.assert_close(values["guide"], torch.stack([normal(z, x / 2, 0.8), joint]))


# --- integrals ---------------------------------------------------------------------------------------------------


def log_integral(terms: Any, num_data: int, dim: int, half_width: float, points: int, centre: float = 0.0) -> Tensor:
    """log ∫ exp(terms) du by the trapezoidal rule, (num_terms, num_data)."""
    axis = torch.linspace(centre - half_width, centre + half_width, points)
    nodes = torch.cartesian_prod(*[axis] * dim).reshape(-1, 1, dim).expand(-1, num_data, -1)
    return torch.logsumexp(torch.stack(tuple(terms(nodes))).detach(), 1) + dim * torch.log(axis[1] - axis[0])


@pytest.mark.parametrize(
    ("name", "half_width", "points"),
    [
        ("line", 12, 400),
        ("gamma_poisson", 30, 3000),
        ("beta_binomial", 30, 1500),
        ("mixture_in_model", 10, 500),
        ("mixture_in_guide", 10, 500),
        ("mixture_conditional", 10, 800),
        ("parts", 10, 500),
        ("linear_turned", 8, 150),
        ("banana", 7, 250),
        ("conditional", 8, 150),
        ("vae_bernoulli", 9, 150),
    ],
)
def test_the_joint_integrates_to_the_evidence_and_guide_and_prior_to_one(name, half_width, points):
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        for start in STARTS:
            integral = log_integral(density.path(start), len(pair.x), density.dim, half_width, points)
            torch.testing.assert_close(
                integral, torch.stack([torch.zeros_like(pair.truth), pair.truth]), atol=1e-6, rtol=0
            )


def test_a_composition_integrates_to_its_evidence():
    """Dirichlet-multinomial: n!/Πx! · B(α + x)/B(α), over two dimensions of sticks."""
    alpha = torch.tensor([1.5, 2.0, 0.7])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(alpha))
            pyro.sample("x", dist.Multinomial(6, z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet(alpha + x))

    x = torch.tensor([[1.0, 2, 3], [6, 0, 0]])
    truth = torch.tensor([stats.dirichlet_multinomial.logpmf(row.numpy(), alpha.numpy(), 6) for row in x.long()])
    with Pair.on(model, guide, (x,), start="guide") as density:
        integral = log_integral(density.path("guide"), 2, 2, 35.0, 450)
    torch.testing.assert_close(integral, torch.stack([torch.zeros(2), truth]), rtol=0, atol=1e-6)


def test_a_moving_support_integrates_to_its_evidence():
    """∫∫ N(x; z2, 0.4²) U(z2; 0, z1) p(z1) in z by scipy: the inner integral is a difference of two Φ."""
    form = moving_support()

    def over_z(x: float) -> float:
        def inner(z1: float) -> float:
            mass = stats.norm.cdf((z1 - x) / 0.4) - stats.norm.cdf(-x / 0.4)
            return mass / z1 * stats.lognorm.pdf(z1, 0.5, scale=math.exp(0.1))

        return integrate.quad(inner, 0, np.inf, epsabs=1e-12)[0]

    truth = torch.tensor([over_z(float(x)) for x in form.x]).log()
    with Pair.on(form.model, form.guide, (form.x,), start="guide") as density:
        integral = log_integral(density.path("prior"), 3, 2, 30.0, 900)
    torch.testing.assert_close(integral, torch.stack([torch.zeros(3), truth]), rtol=0, atol=1e-6)


# --- draws -------------------------------------------------------------------------------------------------------


def drawn(form: Any, batch: Any, start: Any, num_chains: int = 4000) -> dict[str, Tensor]:
    with Pair.on(form.model, form.guide, batch, start=start) as density:
        u = density.draw(start, num_chains)
        assert u.shape == (num_chains, len(batch[0]), density.dim)
        assert not u.requires_grad
        return density.constrained(u)


def follows(sample: Tensor, law: Any) -> None:
    assert stats.kstest(sample.numpy(), law.cdf).pvalue > ALARM


def test_draws_of_gammas_and_betas():
    for form, prior, posterior in (
        (gamma(), stats.gamma(2.5, scale=1 / 0.7), lambda x: stats.gamma(0.8 * (2.5 + x), scale=1 / (0.8 * 1.7))),
        (beta(), stats.beta(2, 3), lambda x: stats.beta(0.8 * (2 + x), 0.8 * (13 - x))),
    ):
        z = {start: drawn(form, (form.x,), start)["z"] for start in STARTS}
        for datum, x in enumerate(form.x.tolist()):
            follows(z["prior"][:, datum], prior)
            follows(z["guide"][:, datum], posterior(x))
        # Chains and data are drawn apart: |r| < 6 sd for each pair of data, false alarm 1e-8.
        for sample in z.values():
            assert len(sample.unique()) == sample.numel()
            assert torch.corrcoef(sample.T).fill_diagonal_(0).abs().max() < 6 / math.sqrt(len(sample))


def test_draws_of_a_hierarchy_and_of_a_moving_support():
    form = two_sites()
    z = drawn(form, (form.x,), "prior")
    follows(z["z2"][:, 1], stats.gamma(2, scale=1 / 1.5))
    follows(z["z1"][:, 1] / z["z2"][:, 1], stats.norm)
    z = drawn(form, (form.x,), "guide")
    follows(z["z1"][:, 1], stats.norm(form.x[1].item() / 2, 0.7))
    follows(z["z2"][:, 1] * (1 + z["z1"][:, 1] ** 2), stats.gamma(2))
    form = moving_support()
    for start, spread, law in (("prior", 0.5, stats.uniform), ("guide", 0.6, stats.beta(2, 1.5))):
        z = drawn(form, (form.x,), start)
        follows(z["z1"][:, 0], stats.lognorm(spread, scale=math.exp(0.1 if start == "prior" else 0.1 * 0.4)))
        follows(z["z2"][:, 0] / z["z1"][:, 0], law)


def test_draws_of_a_correlated_guide():
    """The squared Mahalanobis distance of the linear pair's guide is χ²_2, and each axis has its own sign."""
    pair = pairs.build("linear_turned")
    z = drawn(pair, (pair.x,), "guide")["z"]
    trace: Any = poutine.trace(pair.guide).get_trace(pair.x)
    guide = trace.nodes["z"]["fn"]
    root = torch.linalg.cholesky(guide.covariance_matrix)
    white = torch.linalg.solve_triangular(root, (z - guide.mean)[..., None], upper=False)[..., 0]
    for datum in range(3):
        follows(white[:, datum].square().sum(-1), stats.chi2(2))
        follows(white[:, datum, 0], stats.norm)
        follows(white[:, datum, 1], stats.norm)


@dataclass(frozen=True)
class Mixture:
    odds: Any
    loc: Any
    scale: Any

    def cdf(self, z):
        return (
            np.asarray(self.odds) * stats.norm.cdf((z[:, None] - np.asarray(self.loc)) / np.asarray(self.scale))
        ).sum(-1)


def test_draws_where_a_site_is_summed_out():
    form = classes()
    for datum, x in enumerate(form.x.tolist()):
        follows(drawn(form, (form.x,), "prior")["z"][:, datum], Mixture([0.2, 0.5, 0.3], [-1, 0, 2], [0.5, 1, 0.7]))
        follows(drawn(form, (form.x,), "guide")["z"][:, datum], Mixture([0.3, 0.7], [x / 2 - 0.4, x / 2 + 0.6], 0.9))
    # Both with a class per part: each part's draws come from its own class.
    form = classes_in_plates()
    z = drawn(form, (form.x,), "prior")["z"]
    assert z.shape == (4000, 2, 3)
    for part in range(3):
        follows(z[:, 1, part], Mixture([0.25, 0.75], [-1, 1.5], 0.6))
    assert torch.corrcoef(z[:, 1].T).fill_diagonal_(0).abs().max() < 6 / math.sqrt(4000)
    z = drawn(form, (form.x,), "guide")["z"]
    for part, x in enumerate(form.x[1].tolist()):
        follows(z[:, 1, part], stats.norm(x / 2, 1.1))


def test_draws_in_nested_plates():
    form = plates()
    prior, guide = (drawn(form, (form.x,), start) for start in STARTS[::-1])
    assert prior["z0"].shape == (4000, 4)  # outside the inner plates
    assert prior["a"].shape == (4000, 4, 3, 3)
    assert prior["b"].shape == (4000, 4, 2, 3)
    for j in range(3):
        follows(prior["a"][:, 2, j, 0], stats.beta(2, 4))
        follows(guide["a"][:, 2, j, 2], stats.beta(1, 2))
        for k in range(2):
            follows(prior["b"][:, 2, k, j], stats.gamma(2, scale=1 / 1.5))
            follows(guide["b"][:, 2, k, j], stats.gamma(3, scale=1 / (1 + form.x[2, k, j].item() ** 2)))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", slow_those(pairs.OTHER_NUMBERS, DENSE))
def test_importance_weights_of_the_draws_average_to_the_evidence(name, start):
    """E[p(x, u)/π₀(u)] = p(x) with u from either start; |z| < 4.5, false alarm 7e-6 a datum."""
    pair = pairs.build(name)
    torch.manual_seed(3)
    with Pair.on(pair.model, pair.guide, pair.args, start=start) as density:
        log_start, log_joint = torch.stack(density.path(start)(density.draw(start, 3000))).detach()
    weight = (log_joint - log_start - pair.truth).exp()
    if pair.exact and start == "guide" and name not in {"mixture_conditional"}:
        torch.testing.assert_close(weight, torch.ones_like(weight), rtol=0, atol=1e-8)
    else:
        for datum in range(len(pair.x)):
            assert abs(truths.z_score(weight[:, datum], 1.0)) < truths.Z_LIMIT


# --- there and back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_there_and_back(name):
    form = FORMS[name]()
    with Pair.on(form.model, form.guide, (form.x,), start="guide") as density:
        u = unconstrained_of(form.x, form.dim)
        inner = density.constrained(u)
        torch.testing.assert_close(density.unconstrained(inner, len(u)), u, rtol=1e-9, atol=1e-9)
        for start in STARTS:
            v = density.draw(start, 4)
            torch.testing.assert_close(density.unconstrained(density.constrained(v), 4), v, rtol=1e-7, atol=1e-7)


def test_values_come_back_where_they_were_put():
    form = plates()
    torch.manual_seed(1)
    z = {
        "z0": torch.randn(5, 4),
        "a": dist.Dirichlet(torch.ones(3)).sample((5, 4, 3)),
        "b": torch.rand(5, 4, 2, 3),
    }
    with Pair.on(form.model, form.guide, (form.x,), start="guide") as density:
        u = density.unconstrained(z, 5)
        inner = density.constrained(u)
    for site, value in z.items():
        torch.testing.assert_close(inner[site], value)


def test_what_is_not_given_is_drawn_from_the_model():
    form = two_sites()
    with Pair.on(form.model, form.guide, (form.x,), start="guide") as density:
        u = density.unconstrained({"z2": torch.full((4000, 3), 2.0)}, 4000)
    torch.testing.assert_close(u[..., 0], torch.full((4000, 3), math.log(2)))
    follows(u[:, 1, 1], stats.norm(0, 2))


def test_a_draw_on_the_boundary_has_a_finite_place():
    form = beta()
    z = torch.tensor([[0.0, 1.0, 0.5, 1e-300]])
    with Pair.on(form.model, form.guide, (form.x,), start="guide") as density:
        u = density.unconstrained({"z": z}, 1)
        assert u.isfinite().all()
        torch.testing.assert_close(density.constrained(u)["z"], z, rtol=0, atol=1e-15)
    form = gamma()
    with Pair.on(form.model, form.guide, (form.x,), start="guide") as density:
        u = density.unconstrained({"z": torch.tensor([[0.0, 1.0, 1.0, 5e-324]])}, 1)
        assert u.isfinite().all()
        assert density.constrained(u)["z"][0, 0] == 0


# --- one datum is one datum --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_those(pairs.OTHER_NUMBERS, BUILDABLE))
def test_a_datum_knows_nothing_of_the_others(name):
    pair = pairs.build(name)
    n = len(pair.x)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        u = unconstrained_of(pair.x, density.dim)
        for start in STARTS:
            whole = evaluate(density.path(start), u)
            for index in ([1], [n - 1, 0], slice(0, 2)):
                some = density.rows(index)
                assert some.num_units == len(range(n)[index] if isinstance(index, slice) else index)
                part = evaluate(some.path(start), u[:, index])
                torch.testing.assert_close(part.values, whole.values[:, :, index], rtol=0, atol=1e-10)
                torch.testing.assert_close(part.gradients, whole.gradients[:, :, index], rtol=1e-10, atol=1e-10)
                assert some.draw(start, 3).shape == (3, some.num_units, density.dim)
            moved = u.clone()
            moved[:, 0] += 1.0
            moved[2, 1] -= 1.0
            other = evaluate(density.path(start), moved)
            keep = torch.ones(u.shape[:2], dtype=torch.bool)
            keep[:, 0], keep[2, 1] = False, False
            torch.testing.assert_close(other.values[:, keep], whole.values[:, keep], rtol=0, atol=1e-11)
            torch.testing.assert_close(other.gradients[:, keep], whole.gradients[:, keep], rtol=1e-11, atol=1e-11)
            if density.dim:
                assert (other.values[1, :, 0] != whole.values[1, :, 0]).all()


def test_a_pair_on_a_single_datum():
    pair = pairs.build("gamma_poisson").rows([2])
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        integral = log_integral(density.path("prior"), 1, 1, 30.0, 3000)
    torch.testing.assert_close(integral[1], pair.truth, rtol=0, atol=1e-6)


# --- precision, gradients, state ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gamma_poisson", "hierarchy", "plated", "mixture_conditional", "methods"])
def test_single_precision_pairs_keep_u_single_and_densities_double(name):
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        u = unconstrained_of(pair.x, density.dim)
        exact = {start: evaluate(density.path(start), u) for start in STARTS}
    torch.set_default_dtype(torch.float32)
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        for start in STARTS:
            assert density.draw(start, 2).dtype == torch.float32
            point = evaluate(density.path(start), u.float())
            assert (point.u.dtype, point.gradients.dtype, point.values.dtype) == (
                torch.float32,
                torch.float32,
                torch.float64,
            )
            torch.testing.assert_close(point.values, exact[start].values, rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(point.gradients.double(), exact[start].gradients, rtol=1e-3, atol=1e-3)
        assert all(value.dtype == torch.float32 for value in density.constrained(u.float()).values())


def test_sums_are_taken_in_double_precision():
    """50 000 features: a float32 sum near 9·10⁴ is a multiple of 2⁻⁷."""
    torch.set_default_dtype(torch.float32)
    x = torch.linspace(-2, 2, 50_000).expand(2, -1)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("features", x.shape[1], dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    with Pair.on(model, guide, (x,), start="guide") as density:
        u = torch.tensor([[[0.1], [0.2]], [[-0.7], [1.0]]])
        value = density.joint(u)[0]
    z = u.double()
    truth = normal(z[..., 0], 0.0, 1.0) + normal(x.double(), z, 1.0).sum(-1)
    torch.testing.assert_close(value, truth, rtol=0, atol=1e-3)


def test_jacobians_are_summed_in_double_precision():
    """50 000 positive latents: log |∂z/∂u| = Σ u ≈ 10⁵, where float32 has multiples of 2⁻⁷ only."""
    torch.set_default_dtype(torch.float32)
    u = torch.stack([torch.linspace(1.0, 3.0, 50_000), torch.linspace(1.5, 2.6, 50_000)])[:, None]

    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 50_000, dim=-2):
            pyro.sample("z", dist.HalfCauchy(1.0))
        with pyro.plate("again", len(x), dim=-1):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with Pair.on(model, pyro.poutine.block(model, hide=["x"]), (torch.zeros(1),), start="guide") as density:
        value = density.joint(u)[0] + 0.5 * math.log(2 * math.pi)
    truth = dist.HalfCauchy(1.0).log_prob(u.exp()).double().sum(-1) + u.double().sum(-1)
    torch.testing.assert_close(value, truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["stored", "methods", "pyro_modules", "linear_gaussian", "vae_binomial"])
def test_no_gradient_reaches_the_parameters(name):
    pair = pairs.build(name)
    plain_traces(pair.model, pair.guide, pair.args)
    leaves = [leaf for module in pair.modules for leaf in module.parameters()]
    leaves += [leaf.unconstrained() for leaf in pyro.get_param_store().values() if hasattr(leaf, "unconstrained")]
    assert leaves
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        for start in STARTS:
            point = evaluate(density.path(start), density.draw(start, 3))
            assert all(part.grad_fn is None for part in point)
        assert all(value.grad_fn is None for value in density.constrained(point.u).values())
    assert all(leaf.grad is None for leaf in leaves)
    assert all(leaf.requires_grad for leaf in leaves)


@pytest.mark.parametrize("name", ["mixture_conditional", "stored", "vae_binomial"])
def test_the_global_state_is_left_as_it_was(name):
    """Neither building nor evaluating draws a random number, turns validation off or gradients on."""
    pair = pairs.build(name)
    for module in pair.modules:
        module.train()
    state = torch.get_rng_state()
    with torch.no_grad(), Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        for module in pair.modules:
            assert not module.training
        u = unconstrained_of(pair.x, density.dim)
        first = evaluate(density.path("guide"), u)
        assert not torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), state)
        second = evaluate(density.path("guide"), u)
        density.draw("guide", 2)
    assert all(module.training for module in pair.modules)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first.gradients.abs().max() > 0
    with pytest.raises(ValueError):
        dist.Normal(0.0, -1.0)


@pytest.mark.parametrize("name", ["gamma_poisson", "beta_binomial", "hierarchy", "mixture_conditional"])
def test_a_place_that_is_not_a_number_is_one_for_its_datum_alone(name):
    """A trajectory that diverged; Pyro's validation must not stop the other chains."""
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
        u = unconstrained_of(pair.x, density.dim)
        broken = u.clone()
        broken[2, 1] = math.nan
        for start in STARTS:
            good, bad = (evaluate(density.path(start), place) for place in (u, broken))
            assert bad.values[1, 2, 1].isnan()
            assert (bad.gradients[:, 2, 1] == 0).all()
            bad.values[:, 2, 1], bad.gradients[:, 2, 1] = good.values[:, 2, 1], good.gradients[:, 2, 1]
            torch.testing.assert_close(bad.values, good.values, rtol=0, atol=1e-12)
            torch.testing.assert_close(bad.gradients, good.gradients, rtol=1e-12, atol=1e-12)


def test_a_place_of_zero_density_is_minus_infinity_for_its_datum_alone():
    """x uniform on (0, z): impossible where z < x."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Uniform(0.0, z, validate_args=False), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(x, 1.0))

    x = torch.tensor([0.5, 3.0])
    u = torch.tensor([[[0.3], [0.3]], [[2.0], [2.0]]])
    with Pair.on(model, guide, (x,), start="guide") as density:
        point = evaluate(density.joint, u)
    truth = normal(u[..., 0], 0.0, 1.0) - u[..., 0]
    truth[0, 1] = -math.inf
    torch.testing.assert_close(point.values[0], truth)
    assert point.gradients.isfinite().all()
    torch.testing.assert_close(point.gradients[0, 1], -u[1] - 1)


def test_the_memory_of_an_evaluation_grows_with_the_pair():
    small, large = pairs.build("line"), pairs.build("parts")
    sizes = []
    for pair in (small, large):
        with Pair.on(pair.model, pair.guide, pair.args, start="guide") as density:
            sizes.append(density.bytes_each)
    assert 0 < sizes[0] < sizes[1]
    assert latents(plain_traces(small.model, small.guide, small.args)[0])
