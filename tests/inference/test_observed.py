"""What a model observes is its data, each number once and as it is; or the reader is told."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from ppvae.errors import PairError
from ppvae.inference import check, importance_evidence

X = torch.tensor([0.3, 1.2, 0.8, 1.9])
FIRST = torch.tensor([True, False, True, False])


def model_of(observe):
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            observe(pyro.sample("z", dist.Normal(0.0, 1.0)), x)

    return model


def guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(x / 2, 0.8))


def once(z, x):
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def twice(z, x):
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    pyro.sample("again", dist.Normal(z, 2.0), obs=x)


def thrice_in_a_plate(z, x):
    with pyro.plate("raters", 3, dim=-2):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def in_two_parts(z, x):
    with poutine.mask(mask=FIRST[: len(x)]):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    with poutine.mask(mask=~FIRST[: len(x)]):
        pyro.sample("other", dist.Normal(z, 2.0), obs=x)


def logarithm(z, x):
    pyro.sample("x", dist.Normal(z, 1.0), obs=x.log())


def scaled(z, x):
    pyro.sample("x", dist.Normal(z, 1.0), obs=(x - 1) / 3)


@pytest.mark.parametrize(
    ("observe", "code"),
    [
        (once, ""),
        (twice, "observed-twice"),
        (thrice_in_a_plate, "observed-twice"),
        (logarithm, "observes-a-function"),
        (scaled, "observes-a-function"),
    ],
)
def test_what_is_not_the_data_itself_is_told(observe, code):
    codes = [finding.code for finding in check(model_of(observe), guide, X)]
    assert codes == ([code] if code else [])
    assert not any(finding.fatal for finding in check(model_of(observe), guide, X))
    remarks = importance_evidence(model_of(observe), guide, X, 200, seed=0).remarks()
    assert bool(code) == any("the model" in remark for remark in remarks)


def test_a_number_that_is_masked_at_one_of_two_sites_is_observed_once():
    assert not [f for f in check(model_of(in_two_parts), guide, X) if f.code.startswith("observe")]


def reason(z, x):
    pyro.sample("missing", dist.Bernoulli(torch.tensor(0.3)).expand(x.shape), obs=x.isnan().to(x))


def values_and_reason(z, x):
    pyro.sample("x", dist.Normal(z, 1.0).mask(~x.isnan()), obs=x.nan_to_num())
    reason(z, x)


@pytest.mark.parametrize(("observe", "codes"), [(values_and_reason, []), (reason, ["observes-a-function"])])
def test_which_values_are_missing_is_part_of_the_data_beside_those_that_are_there(observe, codes):
    x = X.clone()
    x[1] = torch.nan
    found = [finding.code for finding in check(model_of(observe), guide, x)]
    assert [code for code in found if code.startswith("observe")] == codes


def penalised(z, x):
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    pyro.sample("penalty", dist.Delta(torch.zeros(len(x)), log_density=-(z**2)), obs=torch.zeros(len(x)))


def test_a_point_mass_with_a_density_of_its_own_is_a_factor():
    findings = check(model_of(penalised), guide, X)
    assert [(finding.code, finding.site) for finding in findings] == [("unnormalised", "penalty")]
    assert importance_evidence(model_of(penalised), guide, X, 200, seed=0).remarks()


def test_a_column_under_a_row_is_refused_in_a_sentence():
    design = torch.tensor([[1.0], [0.5], [-1.0]])

    def model(a, y):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(a)):
            pyro.sample("y", dist.Normal(a[:, 0] * b, 0.5), obs=y)

    def proposal(a, y):
        pyro.sample("b", dist.Normal(0.0, 1.0))

    y = torch.zeros(3, 1)
    with pytest.raises(PairError, match="give values the shape of their distribution"):
        importance_evidence(model, proposal, (design, y), 1000, seed=0)
    assert check(model, proposal, (design, y))
