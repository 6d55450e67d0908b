"""log |det ∂f/∂a| of a user's transforms, beside what they state: right ones pass, wrong ones are found."""

import math

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from torch.distributions import constraints
from torch.distributions.transforms import SigmoidTransform, Transform

from ppvae.errors import PairError
from ppvae.inference import check, fit, importance_evidence
from ppvae.inference.pair.jacobians import log_dets


class Sinh(Transform):
    """y = a sinh(x), element by element."""

    domain = codomain = constraints.real
    bijective = True

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def _call(self, x):
        return self.scale * x.sinh()

    def _inverse(self, y):
        return (y / self.scale).asinh()

    def log_abs_det_jacobian(self, x, y):
        return x.cosh().log() + math.log(self.scale)


class ForgetsItsScale(Sinh):
    def log_abs_det_jacobian(self, x, y):
        return x.cosh().log()


class OfTheInverse(Sinh):
    def log_abs_det_jacobian(self, x, y):
        return -super().log_abs_det_jacobian(x, y)


class CumulativeSum(Transform):
    """y_i = Σ_{j≤i} x_j: its Jacobian is triangular with ones, whether its event is said to be a vector or a number."""

    bijective = True

    def __init__(self, event_dim, slope=1.0):
        super().__init__()
        self.domain = self.codomain = constraints.real_vector if event_dim else constraints.real
        self.slope = slope

    def _call(self, x):
        return self.slope * x.cumsum(-1)

    def _inverse(self, y):
        y = y / self.slope
        return torch.cat([y[..., :1], y[..., 1:] - y[..., :-1]], -1)

    def log_abs_det_jacobian(self, x, y):
        zero = torch.zeros_like(x) + math.log(abs(self.slope))
        return zero.sum(-1) if self.domain.event_dim else zero


class CountsOneNumberOnly(CumulativeSum):
    def log_abs_det_jacobian(self, x, y):
        return super().log_abs_det_jacobian(x, y) / x.shape[-1]


class SteepBelowNought(Transform):
    """y = x for x > 0, else 4 x; the density is wrong on one side only."""

    domain = codomain = constraints.real
    bijective = True

    def _call(self, x):
        return torch.where(x > 0, x, 4 * x)

    def _inverse(self, y):
        return torch.where(y > 0, y, y / 4)

    def log_abs_det_jacobian(self, x, y):
        return torch.zeros_like(x)


X = torch.linspace(-1.0, 1.0, 12).reshape(4, 3)
RIGHT = {
    "by element": lambda: dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([3]), Sinh(2.0)).to_event(1),
    "among others": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0),
        [T.AffineTransform(1.0, 2.0), Sinh(), SigmoidTransform(), SigmoidTransform().inv],
    ).to_event(1),
    "composed": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0), T.ComposeTransform([Sinh(3.0), T.AffineTransform(0.0, 0.5)])
    ).to_event(1),
    "inverted": lambda: dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0), Sinh(2.0).inv).to_event(1),
    "a vector": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0).to_event(1), CumulativeSum(1, 2.0)
    ),
    "a vector said to be numbers": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0), CumulativeSum(0, -2.0)
    ).to_event(1),
    "saturated": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 8.0), [SigmoidTransform(), SigmoidTransform().inv, Sinh()]
    ).to_event(1),
}
WRONG = {
    "a scale is forgotten": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0), ForgetsItsScale(2.0)
    ).to_event(1),
    "that of the inverse": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0), [T.AffineTransform(0.0, 0.5), OfTheInverse(2.0)]
    ).to_event(1),
    "inside another": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0), T.ComposeTransform([ForgetsItsScale(3.0).inv, T.AffineTransform(0.0, 0.5)])
    ).to_event(1),
    "one number of three": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0).to_event(1), CountsOneNumberOnly(1, 2.0)
    ),
    "on one side": lambda: dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0), SteepBelowNought()).to_event(
        1
    ),
}


def programs(make, where):
    """A pair with the distribution as its guide's, or as the prior of its model, beside Gaussians."""
    gaussian = lambda: dist.Normal(torch.zeros(3), 2.0).to_event(1)  # noqa: E731
    prior, proposal = (make, gaussian) if where == "model" else (gaussian, make)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", proposal())
            pyro.sample("spare", dist.Normal(0.0, scale), infer={"is_auxiliary": True})

    return model, guide


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("where", ["model", "guide"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_ones_pass(name, where, dtype):
    torch.set_default_dtype(dtype)
    model, guide = programs(RIGHT[name], where)
    assert "jacobian" not in [finding.code for finding in check(model, guide, X.to(dtype))]
    found = log_dets(RIGHT[name]())
    assert found is not None
    torch.testing.assert_close(found.stated, found.true, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("where", ["model", "guide"])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_are_found(name, where, dtype):
    torch.set_default_dtype(dtype)
    model, guide = programs(WRONG[name], where)
    (finding,) = [finding for finding in check(model, guide, X.to(dtype)) if finding.code == "jacobian"]
    assert (finding.site, finding.fatal) == ("z", True)
    assert "as log |det| of its Jacobian where that is" in finding.message
    with pytest.raises(PairError, match=r"\[jacobian\] z"):
        importance_evidence(model, guide, X.to(dtype), 10)


def test_numbers_of_both_sides():
    found = log_dets(WRONG["a scale is forgotten"]())
    torch.testing.assert_close(found.true - found.stated, torch.full((5,), 3 * math.log(2.0)))


def test_training_refuses_a_wrong_one():
    model, guide = programs(WRONG["a scale is forgotten"], "guide")
    with pytest.raises(PairError, match=r"\[jacobian\] z"):
        fit(model, guide, X, epochs=1, progress=False)


def test_a_likelihood_with_a_wrong_one_is_found():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            base = dist.Normal(z.unsqueeze(-1), torch.ones(3))
            pyro.sample("x", dist.TransformedDistribution(base, ForgetsItsScale(2.0)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    assert [finding.site for finding in check(model, guide, X) if finding.code == "jacobian"] == ["x"]


def test_dropout_in_a_flow_is_no_wrong_jacobian():
    class Random(Sinh):
        def log_abs_det_jacobian(self, x, y):
            return super().log_abs_det_jacobian(x, y) * torch.nn.functional.dropout(torch.ones_like(x), 0.5)

    assert log_dets(dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0), Random()).to_event(1)) is None


def test_a_large_event_is_left_alone():
    assert log_dets(dist.TransformedDistribution(dist.Normal(torch.zeros(51), 1.0), Sinh()).to_event(1)) is None


OF_THE_LIBRARIES = {
    "affine": lambda: T.AffineTransform(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, -2.0, 3.0])),
    "exp": T.ExpTransform,
    "power": lambda: T.ComposeTransform([T.ExpTransform(), T.PowerTransform(torch.tensor(0.5))]),
    "sigmoid": T.SigmoidTransform,
    "tanh": T.TanhTransform,
    "softplus": T.SoftplusTransform,
    "leaky ReLU": T.LeakyReLUTransform,
    "ELU": T.ELUTransform,
    "ordered": T.OrderedTransform,
    "permute": lambda: T.Permute(torch.tensor([2, 0, 1])),
    "spline": lambda: T.spline(3),
    "spline coupling": lambda: T.spline_coupling(3),
    "spline autoregressive": lambda: T.spline_autoregressive(3),
    "affine coupling": lambda: T.affine_coupling(3),
    "affine autoregressive": lambda: T.affine_autoregressive(3),
    "block autoregressive": lambda: T.block_autoregressive(3),
    "neural autoregressive": lambda: T.neural_autoregressive(3),
    "polynomial": lambda: T.polynomial(3),
    "planar": lambda: T.planar(3),
    "radial": lambda: T.radial(3),
    "Householder": lambda: T.householder(3),
    "Sylvester": lambda: T.sylvester(3),
    "matrix exponential": lambda: T.matrix_exponential(3),
}


@pytest.mark.parametrize("name", OF_THE_LIBRARIES)
def test_those_of_the_libraries_would_pass_too(name):
    """They are taken at their word; were they not, there would be no false alarm."""
    fn = dist.TransformedDistribution(
        dist.Normal(torch.zeros(3), 1.0).to_event(1),
        [
            OF_THE_LIBRARIES[name](),
        ],
    )
    found = log_dets(fn)
    assert found is not None
    assert len(found.true) == 5
    assert not found.differ().any()


def test_the_inverse_of_a_wrong_one_is_found_whatever_is_imported():
    """zuko gives torch's class of inverses another name."""
    import zuko  # noqa: F401

    model, guide = programs(WRONG["inside another"], "model")
    assert [finding.code for finding in check(model, guide, X) if finding.fatal] == ["jacobian"]
