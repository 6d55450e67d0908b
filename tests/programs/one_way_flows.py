"""Flows whose density is known at their own draws only, and points at a function of other points."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.distributions as td
from pyro.distributions import transforms
from pyro.infer.autoguide import AutoNormalizingFlow
from torch.distributions import constraints

from .program import REFUSED, Program
from .quadrature import hermite_plane

NOISE = 0.7


def _pairs():
    return torch.tensor([[0.3, -0.1], [1.5, 0.2], [-0.8, 1.1]])


def _model(x):
    """z ~ N(0, I₂), x ~ N(z, 0.7² I₂)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=x)


def _by_flow(flow, **known) -> Program:
    """The flow follows a normal that is wider than the posterior."""
    x, shrink = _pairs(), 1 / (1 + NOISE**2)

    def guide(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(shrink * x, 0.8).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, flow))

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z).sum(-1) + td.Normal(z, NOISE).log_prob(x).sum(-1)

    return Program(
        _model,
        guide,
        x,
        td.Normal(0.0, math.sqrt(1 + NOISE**2)).log_prob(x).sum(-1),
        lambda: hermite_plane(joint, shrink * x, 0.4 * torch.eye(2)),
        **{"num_particles": 6000, "tolerance": 0.05} | known,
    )


def planar_flow() -> Program:
    """A planar flow, which has no inverse."""
    torch.manual_seed(3)
    return _by_flow([transforms.Planar(2)], num_particles=20_000)


def radial_flow_among_others() -> Program:
    """A radial flow, which has no inverse, between two maps that have one."""
    torch.manual_seed(3)
    turn = torch.tensor([1, 0])
    shift = transforms.AffineTransform(torch.tensor([0.05, 0.0]), 1.1, event_dim=1)
    return _by_flow([shift, transforms.Radial(2), transforms.Permute(turn), transforms.Permute(turn)])


class _Stretch(td.Transform):
    """Twice its argument, without an inverse, and with a determinant that is stated as if it did nothing."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__

    def _call(self, a):
        return 2 * a

    def log_abs_det_jacobian(self, a, z):
        return torch.zeros(a.shape[:-1])


def flow_with_a_wrong_determinant() -> Program:
    """A flow without an inverse that doubles its argument and states a determinant of one."""
    known = _by_flow([_Stretch(cache_size=1)])
    return Program(known.model, known.guide, known.x, REFUSED)


def point_at_a_function_of_a_point() -> Program:
    """a ~ N, b = 2a as an auxiliary point, z = b/2 + m as a point: the exact posterior, so that each weight is p(x)."""
    known, shrink = _by_flow([]), 1 / (1 + NOISE**2)
    scale, auxiliary = NOISE * math.sqrt(shrink), {"is_auxiliary": True}

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(2), scale).to_event(1), infer=auxiliary)
            log_det = 2 * math.log(2) * torch.ones(len(x))
            b = pyro.sample("b", dist.Delta(2 * a, -log_det, event_dim=1), infer=auxiliary)
            pyro.sample("z", dist.Delta(b / 2 + shrink * x, log_det, event_dim=1))

    return Program(_model, guide, known.x, known.truth, known.again, num_particles=50, tolerance=1e-5)


def automatic_flow_without_an_inverse() -> Program:
    """An automatic guide of all latents by a planar flow."""
    x = torch.tensor([0.3, -0.4, 0.9])

    def model(x):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(a + b, 2.0), obs=x)

    torch.manual_seed(3)
    guide = AutoNormalizingFlow(model, transforms.planar)

    def joint(z):
        return td.Normal(0.0, 1.0).log_prob(z).sum(-1) + td.Normal(z.sum(-1, keepdim=True), 2.0).log_prob(x).sum(-1)

    def again():
        return hermite_plane(lambda z: joint(z), torch.zeros(1, 2), torch.eye(2))

    truth = td.MultivariateNormal(torch.zeros(3), 2 * torch.ones(3, 3) + 4 * torch.eye(3)).log_prob(x)[None]
    return Program(model, guide, x, truth, again, unit="data set", num_particles=10_000, tolerance=0.05, train=150)


PROGRAMS = (
    planar_flow,
    radial_flow_among_others,
    flow_with_a_wrong_determinant,
    point_at_a_function_of_a_point,
    automatic_flow_without_an_inverse,
)
