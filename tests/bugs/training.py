"""Parameters that are not trained, guides that see no data, and runs that differ from one another."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import constraints

from .bug import Bug, Programs, data, encoder_guide, likelihood, linear, model, standard


def guide_without_x(mended: bool) -> Programs:
    """The guide proposes the same for every datum."""
    layer = linear()

    def guide(x):
        pyro.module("encoder", layer)
        loc = layer(x) if mended else layer(torch.ones_like(x))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    return model, guide, data()


def decoder_that_nobody_registers(mended: bool) -> Programs:
    """The model uses a network and no `pyro.module`."""
    layer = linear(2, 3)

    def decodes(x):
        if mended:
            pyro.module("decoder", layer)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", dist.Normal(layer(z), 1.0).to_event(1), obs=x)

    return decodes, encoder_guide(), data()


def tensor_that_nobody_registers(mended: bool) -> Programs:
    """The model uses a tensor that requires its gradient, and no `pyro.param`."""
    weight = torch.ones(3, requires_grad=True)

    def decodes(x):
        used = pyro.param("weight", torch.ones(3)) if mended else weight
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True) * used, 1.0).to_event(1), obs=x)

    return decodes, encoder_guide(), data()


def network_made_at_each_run(mended: bool) -> Programs:
    """The decoder is made inside the model, anew at every run."""
    kept = linear(2, 3)

    def decodes(x):
        layer = kept if mended else nn.Linear(2, 3)
        pyro.module("decoder", layer)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", dist.Normal(layer(z), 1.0).to_event(1), obs=x)

    return decodes, encoder_guide(), data()


def two_modules_of_one_name(mended: bool) -> Programs:
    """Two networks are registered under one name, so that the second is never trained."""
    encoder, decoder = linear(3, 3), linear(3, 3)

    def decodes(x):
        pyro.module("decoder" if mended else "net", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard(3))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder" if mended else "net", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return decodes, guide, data()


def detached(mended: bool) -> Programs:
    """A `detach()` on the way to the guide's mean."""
    layer = linear()

    def guide(x):
        pyro.module("encoder", layer)
        loc = layer(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc if mended else loc.detach(), 1.0).to_event(1))

    return model, guide, data()


def prior_learnt_to_a_point(mended: bool) -> Programs:
    """The scale of a prior has been learnt to zero, so that no latent varies."""
    scale = torch.tensor(1.0 if mended else 1e-7)
    layer = linear()

    def learnt(x):
        width = pyro.param("width", scale.clone(), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), width).to_event(1))
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        pyro.module("encoder", layer)
        width = pyro.param("width", scale.clone(), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(width * layer(x), width).to_event(1))

    return learnt, guide, data()


def prior_learnt_about_a_point(mended: bool) -> Programs:
    """A point estimate of z beside a prior whose scale is learnt: the density grows without bound."""
    layer = linear()

    def learnt(x):
        width = torch.ones(2) if mended else pyro.param("width", torch.ones(2), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), width).to_event(1))
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(layer(x)).to_event(1))

    return learnt, guide, data()


def noise_outside_sample_statements(mended: bool) -> Programs:
    """Noise is drawn by torch, and not by `pyro.sample`."""

    def noisy(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", likelihood(z if mended else z + 0.1 * torch.randn_like(z)), obs=x)

    return noisy, encoder_guide(), data()


def mean_of_the_batch(mended: bool) -> Programs:
    """The guide subtracts the mean of the batch."""
    layer = linear()

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(layer(x if mended else x - x.mean(0)), 1.0).to_event(1))

    return model, guide, data()


def overflow(mended: bool) -> Programs:
    """The exponential of a large number is infinite."""

    def large(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            rate = (z.sum(-1, keepdim=True) + (0.0 if mended else 1000.0)).exp().expand(*z.shape[:-1], 3)
            pyro.sample("x", dist.Normal(0.0, rate).to_event(1), obs=x)

    return large, encoder_guide(), data()


def forgotten_observation(mended: bool) -> Programs:
    """`obs=x` is forgotten."""

    def forgets(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", likelihood(z), obs=x if mended else None)

    return forgets, encoder_guide(), data()


BUGS = (
    Bug(guide_without_x, "ignores-x"),
    Bug(decoder_that_nobody_registers, "not-trained"),
    Bug(tensor_that_nobody_registers, "not-trained"),
    Bug(network_made_at_each_run, "random"),
    Bug(two_modules_of_one_name, "not-trained"),
    Bug(detached, "no-gradient", "encoder$$$weight"),
    Bug(prior_learnt_to_a_point, "prior-scale", "z"),
    Bug(prior_learnt_about_a_point, "prior-scale", "z"),
    Bug(noise_outside_sample_statements, "random"),
    Bug(mean_of_the_batch, "batch-coupled"),
    Bug(overflow, "non-finite", "x"),
    Bug(forgotten_observation, "no-observation"),
)
