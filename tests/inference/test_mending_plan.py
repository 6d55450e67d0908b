"""The order of the steps of mending: that of the causes that the attribution of the gap names."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppvae.inference import mend
from ppvae.inference.mending.mending_plan import PlannedStep, as_asked, ordered


def parts(errors=0.001, **values):
    found = {"amortisation": 0.0, "covariance": 0.0, "flow": 0.0, "rest": 0.0} | values
    return found | {f"{name}_standard_error": errors for name in list(found)}


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ({"amortisation": 3.0}, ["more steps", "correction", "gradient steps"]),
        ({"covariance": 3.0, "amortisation": 1.0}, ["full covariance", "more steps", "correction", "gradient steps"]),
        ({"flow": 0.5, "covariance": 0.2}, ["flow", "full covariance", "more steps"]),
        ({"rest": 0.7}, ["mixture", "more steps"]),
        ({}, ["more steps"]),
    ],
)
def test_steps_come_in_the_order_of_the_parts(values, first):
    assert [step.name for step in ordered(parts(**values), True)] == first


def test_a_part_whose_error_is_large_is_not_left_out():
    names = [step.name for step in ordered(parts(errors=0.01, amortisation=1.0), False)]
    assert names == ["more steps", "correction", "full covariance", "flow", "mixture"]  # and no gradient steps


@pytest.mark.parametrize(
    ("family", "names"), [(0.0, ["more steps"]), (2.0, ["full covariance", "flow", "mixture", "more steps"])]
)
def test_a_familys_part_that_is_not_split_has_the_steps_of_all_three(family, names):
    found = {"amortisation": 0.0, "family": family}
    found |= {f"{name}_standard_error": 0.001 for name in list(found)}
    assert [step.name for step in ordered(found, True)] == names


def test_what_was_asked_for_comes_as_it_was_asked_for():
    plan = as_asked(("flow", "correction"), True, [])
    assert [(step.name, step.reason) for step in plan] == [
        ("warm-up", "the model may be trained"),
        ("flow", "asked for"),
        ("correction", "asked for"),
    ]
    assert as_asked(None, False, [PlannedStep("flow", "why")]) == [PlannedStep("flow", "why")]


def curved(x):
    """z ~ N(0, I), x₁ ~ N(z₁/2, 0.5²), x₂ ~ N(z₂ + z₁², 0.5²): a posterior that is bent."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        mean = torch.stack([z[..., 0] / 2, z[..., 1] + z[..., 0].square()], -1)
        pyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)


def curved_evidence(x):
    """By quadrature over z₁; z₂ is integrated out in closed form."""
    z = torch.linspace(-6, 6, 4001)
    terms = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z / 2, 0.5).log_prob(x[:, :1])
    terms = terms + dist.Normal(z.square(), math.sqrt(1.25)).log_prob(x[:, 1:])
    return torch.logsumexp(terms, -1) + (z[1] - z[0]).log()


@pytest.mark.slow
def test_each_step_of_a_bent_posterior_says_why_it_was_tried_and_the_family_is_won_back():
    """The guide is the prior and has no parameters: amortisation, covariance and the flow's part are all planted."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, 2, generator=generator)
    x = torch.stack([z[:, 0] / 2, z[:, 1] + z[:, 0].square()], -1) + 0.5 * torch.randn(300, 2, generator=generator)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    mended = mend(curved, guide, x, steps=600, learning_rate=0.01, seed=0)
    truth = curved_evidence(x[::5])
    before, after = (float((truth - elbo).mean()) for elbo in (mended.elbo_before, mended.elbo))
    assert before > 1
    assert 1 - after / before > 0.8
    assert mended.steps[0].reason.startswith("amortisation +")  # the largest part
    causes = {step.reason.partition(" ")[0] for step in mended.steps}
    assert causes <= {"amortisation", "covariance", "flow", "rest", "the"}
    assert "amortisation" in repr(mended)
