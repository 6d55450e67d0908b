"""Right pairs that look like one of the bugs, of which `check` must say nothing: `UNUSUAL[name]()`."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import constraints

from .bug import Programs, counts, data, encoder_guide, likelihood, linear, model, standard


def guide_of(propose, size: int = 2, layer=None):
    """A guide with a registered layer: `propose(layer, x)` is the distribution of z."""
    layer = layer or linear(3, size)

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", propose(layer, x))

    return guide


def model_of(observe, prior=standard):
    """A model whose likelihood is `observe(z)`."""

    def one(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", observe(pyro.sample("z", prior())), obs=x)

    return one


def mean(z):
    """(Σz, Σz, Σz)."""
    return z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3)


def normal(loc, scale=1.0):
    """N(loc, scale²) of a vector."""
    return dist.Normal(loc, scale).to_event(1)


def last_layer_at_zero() -> Programs:
    """The encoder's last layer starts at zero, so that the guide starts the same for every datum."""
    layer = linear()
    nn.init.zeros_(layer.weight)
    return model, guide_of(lambda one, x: normal(one(x)), layer=layer), data()


def parameters_for_each_datum() -> Programs:
    """Parameters for each datum, which start the same and do not read x."""

    def guide(x):
        loc = pyro.param("loc", torch.zeros(len(x), 2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc))

    return model, guide, data()


def constant_proposal() -> Programs:
    """A proposal that is the prior, without a parameter."""
    return model, model_without_data, data()


def model_without_data(x):
    """z ~ N(0, I₂), the same for all."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", standard())


def one_datum() -> Programs:
    """One datum, of which a constant guide is right."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(pyro.param("loc", torch.zeros(2))))

    return model, guide, data(1)


def frozen_decoder() -> Programs:
    """A network that is fixed on purpose, and says so."""
    fixed = linear(2, 3).requires_grad_(False)
    return model_of(lambda z: normal(fixed(z))), encoder_guide(), data()


def absolute_value_and_a_floor() -> Programs:
    """|s| + 0.1 is never zero."""
    return model, guide_of(lambda one, x: normal(one(x), one(x).abs() + 0.1)), data()


def noise_from_a_latent() -> Programs:
    """The absolute value of a latent is a scale: |w| of a normal w is half-normal."""
    layer = linear(3, 3)

    def half_normal(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard(3))
            pyro.sample("x", normal(mean(z[..., :2]), z[..., 2:].abs()), obs=x)

    return half_normal, guide_of(lambda one, x: normal(one(x)), layer=layer), data()


def exponential_of_an_exponential_below_one() -> Programs:
    """exp(−exp(s)) lies between 0 and 1."""
    return model, guide_of(lambda one, x: normal(one(x), (-one(x).exp()).exp())), data()


def squared_scale() -> Programs:
    """A variance is squared root by root: sqrt(exp(s))."""
    return model, guide_of(lambda one, x: normal(one(x), one(x).exp().sqrt())), data()


def logits_between_zero_and_one() -> Programs:
    """Logits that lie between 0 and 1 because they are bounded and shifted."""
    return model_of(lambda z: dist.Bernoulli(logits=2 * mean(z).sigmoid() - 1).to_event(1)), encoder_guide(), counts()


def log_softmax_as_logits() -> Programs:
    """Normalised logits are logits."""
    table = nn.Embedding(3, 3)
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0, 1])
    classes = model_of(lambda z: dist.Categorical(logits=z.log_softmax(-1)), lambda: standard(3))
    return classes, guide_of(lambda one, x: normal(one(x)), layer=table), labels


def sigmoid_as_probabilities() -> Programs:
    """Probabilities are passed as probabilities."""
    return model_of(lambda z: dist.Bernoulli(mean(z).sigmoid()).to_event(1)), encoder_guide(), counts()


def autoregressive() -> Programs:
    """Each number of a datum is given those before it."""

    def chain(x):
        before = torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], -1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", normal(mean(z) + 0.5 * before), obs=x)

    return chain, encoder_guide(), data()


def conditioned_on_part_of_x() -> Programs:
    """The last column of x is a covariate, and is not observed."""

    def regression(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("y", normal(mean(z)[..., :2] * x[..., 2:]), obs=x[..., :2])

    return regression, encoder_guide(), data()


def observed_in_pieces() -> Programs:
    """Two sites observe a part of the data each."""

    def pieces(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("first", normal(mean(z)[..., :1]), obs=x[..., :1])
            pyro.sample("second", normal(mean(z)[..., 1:]), obs=x[..., 1:])

    return pieces, encoder_guide(), data()


def two_sites_of_equal_labels() -> Programs:
    """Two raters give labels that happen to be the same, in two columns."""
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0, 1])
    table = nn.Embedding(3, 3)

    def raters(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard(3))
            pyro.sample("one", dist.Categorical(logits=z), obs=x[..., 0])
            pyro.sample("two", dist.Categorical(logits=z), obs=x[..., 1])

    return raters, guide_of(lambda one, x: normal(one(x[..., 0])), layer=table), torch.stack([labels, labels], -1)


def penalty_of_the_guide() -> Programs:
    """The guide adds a penalty that is none of the ELBO's terms."""
    layer = linear()

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(layer(x)))
            pyro.factor("penalty", -0.1 * z.square().sum(-1), has_rsample=True)

    return model, guide, data()


def some_values_masked() -> Programs:
    """Missing values are masked out, and a whole datum with them."""
    x = data()
    x[0] = torch.nan
    x[3, 1] = torch.nan
    layer = linear()
    masks = lambda x, z: dist.Normal(mean(z), 1.0, validate_args=False).mask(~x.isnan()).to_event(1)  # noqa: E731

    def masked(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", masks(x, z), obs=x)

    return masked, guide_of(lambda one, x: normal(one(x.nan_to_num())), layer=layer), x


def hierarchy() -> Programs:
    """A latent that only another latent's prior reads."""
    layer = linear(3, 3)

    def levels(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", normal(top.unsqueeze(-1).expand(*top.shape, 2)))
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        pyro.module("encoder", layer)
        loc = layer(x)
        with pyro.plate("data", len(x)):
            pyro.sample("top", dist.Normal(loc[..., 0], 1.0))
            pyro.sample("z", normal(loc[..., 1:]))

    return levels, guide, data()


def learnt_prior() -> Programs:
    """The scale of the prior is learnt, and is narrow."""

    def learnt(x):
        width = pyro.param("width", torch.tensor(0.02), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), width).to_event(1))
            pyro.sample("x", likelihood(50 * z), obs=x)

    return learnt, guide_of(lambda one, x: normal(0.02 * one(x), 0.02)), data()


def shared_network() -> Programs:
    """Encoder and decoder share their weights, registered once."""
    layer = linear(3, 3)

    def tied(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard(3))
            pyro.sample("x", normal(z @ layer.weight), obs=x)

    return tied, guide_of(lambda one, x: normal(one(x)), layer=layer), data()


def scale_by_cholesky() -> Programs:
    """A full covariance by its Cholesky factor."""
    lower = torch.tensor([[1.0, 0.0], [0.5, 0.8]])
    propose = lambda one, x: dist.MultivariateNormal(one(x), scale_tril=lower)  # noqa: E731
    return model, guide_of(propose), data()


def binarised_data_as_floats() -> Programs:
    """Zeros and ones as floating-point numbers."""
    return model_of(lambda z: dist.Bernoulli(logits=mean(z)).to_event(1)), encoder_guide(), counts()


def data_of_integers() -> Programs:
    """Integers that the model observes as floating-point numbers."""

    def poisson(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", dist.Poisson(mean(z).exp()).to_event(1), obs=x.to(z.dtype))

    layer = linear()
    propose = lambda one, x: normal(one(x.to(one.weight.dtype)))  # noqa: E731
    return poisson, guide_of(propose, layer=layer), (3 * data().abs()).round().long()


def plate_of_features() -> Programs:
    """Features stand in a plate of their own instead of an event."""

    def nested(x):
        with pyro.plate("data", x.shape[-2], dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([x.shape[-2], 1]))
            with pyro.plate("features", x.shape[-1], dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    layer = linear(3, 1)

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", x.shape[-2], dim=-2):
            pyro.sample("z", dist.Normal(layer(x), 1.0))

    return nested, guide, data()


def enumerated_mixture() -> Programs:
    """A class that is summed out, and a latent given it."""

    def mixture(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(2) / 2), infer={"enumerate": "parallel"})
            z = pyro.sample("z", standard())
            shift = torch.tensor([-1.0, 1.0])[c].unsqueeze(-1)
            pyro.sample("x", normal(mean(z) + shift), obs=x)

    return mixture, encoder_guide(), data()


def fixed_tensor_of_the_user() -> Programs:
    """A constant that the program closes over."""
    weight = torch.ones(3)
    return model_of(lambda z: normal(mean(z) * weight)), encoder_guide(), data()


UNUSUAL = {
    one.__name__: one
    for one in (
        last_layer_at_zero,
        parameters_for_each_datum,
        constant_proposal,
        one_datum,
        frozen_decoder,
        absolute_value_and_a_floor,
        noise_from_a_latent,
        exponential_of_an_exponential_below_one,
        squared_scale,
        logits_between_zero_and_one,
        log_softmax_as_logits,
        sigmoid_as_probabilities,
        autoregressive,
        conditioned_on_part_of_x,
        observed_in_pieces,
        two_sites_of_equal_labels,
        penalty_of_the_guide,
        some_values_masked,
        hierarchy,
        learnt_prior,
        shared_network,
        scale_by_cholesky,
        binarised_data_as_floats,
        data_of_integers,
        plate_of_features,
        enumerated_mixture,
        fixed_tensor_of_the_user,
    )
}
