"""Densities: of the data, of the latents, and terms that are no densities."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints, kl_divergence

from .bug import Bug, Programs, counts, data, encoder_guide, likelihood, linear, model, standard


def decoded(z, num_features: int = 3):
    """(Σz, …, Σz)."""
    return z.sum(-1, keepdim=True).expand(*z.shape[:-1], num_features)


def grey_pixels(mended: bool) -> Programs:
    """Grey pixels under a Bernoulli, which is no density of them."""

    def grey(x):
        with pyro.plate("data", len(x)):
            logits = decoded(pyro.sample("z", standard()))
            pyro.sample("x", dist.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=x)

    return grey, encoder_guide(), counts() if mended else data().sigmoid()


def mean_squared_error(mended: bool) -> Programs:
    """A factor of −|x − mean|² in place of a likelihood, which integrates to something else."""

    def squared(x):
        with pyro.plate("data", len(x)):
            mean = decoded(pyro.sample("z", standard()))
            if mended:
                pyro.sample("x", dist.Normal(mean, 0.5**0.5).to_event(1), obs=x)
            else:
                pyro.factor("x", -(x - mean).square().sum(-1))

    return squared, encoder_guide(), data()


def likelihood_by_two_sites(mended: bool) -> Programs:
    """Two sites observe the same data."""

    def twice(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", likelihood(z), obs=x)
            if not mended:
                pyro.sample("reconstruction", likelihood(z), obs=x)

    return twice, encoder_guide(), data()


def labels_by_two_sites(mended: bool) -> Programs:
    """Two sites observe the same labels, which are integers."""

    def twice(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Categorical(logits=z), obs=x)
            if not mended:
                pyro.sample("again", dist.Categorical(logits=z), obs=x)

    layer = torch.nn.Embedding(3, 3)

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(layer(x), 1.0).to_event(1))

    return twice, guide, torch.tensor([0, 1, 2, 2, 1, 0, 0, 1])


def likelihood_and_its_factor(mended: bool) -> Programs:
    """The log likelihood once as an observation and once as a factor."""

    def twice(x):
        with pyro.plate("data", len(x)):
            p = likelihood(pyro.sample("z", standard()))
            pyro.sample("x", p, obs=x)
            if not mended:
                pyro.factor("reconstruction", p.log_prob(x))

    return twice, encoder_guide(), data()


def kl_twice(mended: bool) -> Programs:
    """The guide adds −KL(q ‖ p), which the ELBO contains already."""
    layer = linear()

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            q = dist.Normal(layer(x), 0.5).to_event(1)
            pyro.sample("z", q)
            if not mended:
                pyro.factor("kl", kl_divergence(q, standard()), has_rsample=True)

    return model, guide, data()


def prior_as_a_factor(mended: bool) -> Programs:
    """The model adds log p(z), which its sample statement has counted."""

    def twice(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            if not mended:
                pyro.factor("prior", standard().log_prob(z))
            pyro.sample("x", likelihood(z), obs=x)

    return twice, encoder_guide(), data()


def likelihood_without_z(mended: bool) -> Programs:
    """The decoder reads something else, and the likelihood ignores z."""

    def ignorant(x):
        mean = pyro.param("mean", torch.zeros(3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", dist.Normal(mean + (decoded(z) if mended else 0), 1.0).to_event(1), obs=x)

    return ignorant, encoder_guide(), data()


def likelihood_without_one_latent(mended: bool) -> Programs:
    """Of two latents the likelihood reads one."""
    layer = linear(3, 4)

    def ignorant(x):
        with pyro.plate("data", len(x)):
            z, w = pyro.sample("z", standard()), pyro.sample("w", standard())
            pyro.sample("x", likelihood(z + w if mended else z), obs=x)

    def guide(x):
        pyro.module("encoder", layer)
        loc = layer(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[..., :2], 1.0).to_event(1))
            pyro.sample("w", dist.Normal(loc[..., 2:], 1.0).to_event(1))

    return ignorant, guide, data()


def data_in_their_own_likelihood(mended: bool) -> Programs:
    """The decoder reads the datum that it is to explain."""
    layer = linear(3, 3)

    def copies(x):
        pyro.module("decoder", layer)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard(3))
            pyro.sample("x", dist.Normal(layer(z if mended else x + z), 1.0).to_event(1), obs=x)

    encoder = linear(3, 3)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return copies, guide, data()


def rounded_in_the_model(mended: bool) -> Programs:
    """The model rounds what it observes."""

    def rounds(x):
        with pyro.plate("data", len(x)):
            rate = decoded(pyro.sample("z", standard())).exp()
            pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x if mended else x.round())

    x = 3 * data().abs()
    return rounds, encoder_guide(), x.round() if mended else x


def logits_as_probabilities(mended: bool) -> Programs:
    """Logits are passed as probabilities, and log_prob clamps them."""

    def passed(x):
        with pyro.plate("data", len(x)):
            logits = decoded(pyro.sample("z", standard()))
            p = dist.Bernoulli(logits=logits) if mended else dist.Bernoulli(logits, validate_args=False)
            pyro.sample("x", p.to_event(1), obs=x)

    return passed, encoder_guide(), counts()


def probabilities_as_logits(mended: bool) -> Programs:
    """Probabilities are passed as logits, so that none is below ½."""

    def passed(x):
        with pyro.plate("data", len(x)):
            logits = decoded(pyro.sample("z", standard()))
            pyro.sample("x", dist.Bernoulli(logits=logits if mended else logits.sigmoid()).to_event(1), obs=x)

    return passed, encoder_guide(), counts()


def softmax_as_logits(mended: bool) -> Programs:
    """The softmax of the logits is passed as logits, so that no class is e times as probable as another."""
    layer = torch.nn.Embedding(3, 3)

    def passed(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Categorical(logits=z if mended else z.softmax(-1)), obs=x)

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(layer(x), 1.0).to_event(1))

    return passed, guide, torch.tensor([0, 1, 2, 2, 1, 0, 0, 1])


def log_scale_as_scale(mended: bool) -> Programs:
    """The encoder's log scale is passed as a scale, and is negative here and there."""
    layer = linear(3, 4)

    def guide(x):
        pyro.module("encoder", layer)
        loc, log_scale = layer(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            scale = log_scale.exp() if mended else log_scale
            pyro.sample("z", dist.Normal(loc, scale, validate_args=False).to_event(1))

    return model, guide, data()


def scale_without_a_constraint(mended: bool) -> Programs:
    """A learnt scale that nothing keeps above zero."""

    def learnt(x):
        constraint = constraints.positive if mended else constraints.real
        noise = pyro.param("noise", torch.tensor(1.0), constraint=constraint)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(decoded(pyro.sample("z", standard())), noise).to_event(1), obs=x)

    return learnt, encoder_guide(), data()


def absolute_scale(mended: bool) -> Programs:
    """|s| where exp(s) was meant."""
    layer = linear(3, 4)

    def guide(x):
        pyro.module("encoder", layer)
        loc, s = layer(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, s.exp() if mended else s.abs()).to_event(1))

    return model, guide, data()


def exponential_twice(mended: bool) -> Programs:
    """The exponential of a scale that is positive already, which is never below one."""

    def learnt(x):
        noise = pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", dist.Normal(decoded(z), noise if mended else noise.exp()).to_event(1), obs=x)

    return learnt, encoder_guide(), data()


def support_of_the_guide(mended: bool) -> Programs:
    """The guide proposes positive numbers alone for a latent that may be negative."""
    layer = linear()

    def guide(x):
        pyro.module("encoder", layer)
        family = dist.Normal if mended else dist.LogNormal
        with pyro.plate("data", len(x)):
            pyro.sample("z", family(layer(x), 1.0).to_event(1))

    return model, guide, data()


BUGS = (
    Bug(grey_pixels, "support-of-data", "x"),
    Bug(mean_squared_error, "unnormalised", "x"),
    Bug(likelihood_by_two_sites, "observed-twice"),
    Bug(labels_by_two_sites, "observed-twice", "again"),
    Bug(likelihood_and_its_factor, "counted-twice", "reconstruction"),
    Bug(kl_twice, "counted-twice", "kl"),
    Bug(prior_as_a_factor, "counted-twice", "prior"),
    Bug(likelihood_without_z, "no-effect"),
    Bug(likelihood_without_one_latent, "no-effect", "w"),
    Bug(data_in_their_own_likelihood, "reads-its-data", "x"),
    Bug(rounded_in_the_model, "observes-a-function", "x"),
    Bug(logits_as_probabilities, "parameter", "x"),
    Bug(probabilities_as_logits, "logits", "x"),
    Bug(softmax_as_logits, "logits", "x"),
    Bug(log_scale_as_scale, "parameter", "z"),
    Bug(scale_without_a_constraint, "scale-sign", "x"),
    Bug(absolute_scale, "scale-sign", "z"),
    Bug(exponential_twice, "scale-sign", "x"),
    Bug(support_of_the_guide, "support", "z"),
)
