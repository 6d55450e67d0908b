"""Shapes, plates, masks and enumeration."""

import pyro
import pyro.distributions as dist
import torch

from .bug import Bug, Programs, counts, data, encoder_guide, likelihood, linear, model, standard


def missing_to_event(mended: bool) -> Programs:
    """The guide forgets `.to_event(1)` on a latent vector."""
    layer = linear()

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            normal = dist.Normal(layer(x), 1.0)
            pyro.sample("z", normal.to_event(1) if mended else normal)

    return model, guide, data()


def too_many_events(mended: bool) -> Programs:
    """`.to_event(2)` claims the data dimension too, and the plate repeats all data for each datum."""

    def summed(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            normal = dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.0)
            pyro.sample("x", normal.to_event(1 if mended else 2), obs=x)

    return summed, encoder_guide(), data()


def column_against_row(mended: bool) -> Programs:
    """x has shape (N, 1) and its mean (N,): the two broadcast to N² terms."""
    layer = linear(1, 1)

    def column(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.squeeze(-1) if mended else x)

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(layer(x).squeeze(-1), 1.0))

    return column, guide, data(12, 1)


def plate_of_another_size(mended: bool) -> Programs:
    """The plate has the size of the training set, whatever data come."""

    def sized(x):
        with pyro.plate("data", len(x) if mended else 60000):
            pyro.sample("x", likelihood(pyro.sample("z", standard())), obs=x)

    return sized, encoder_guide(), data()


def subsampling_plate(mended: bool) -> Programs:
    """A plate that subsamples scales the densities of a batch."""
    layer = linear()

    def plate(x):
        return pyro.plate("data", len(x)) if mended else pyro.plate("data", 60000, subsample=x)

    def scaled(x):
        with plate(x):
            pyro.sample("x", likelihood(pyro.sample("z", standard())), obs=x)

    def guide(x):
        pyro.module("encoder", layer)
        with plate(x):
            pyro.sample("z", dist.Normal(layer(x), 1.0).to_event(1))

    return scaled, guide, data()


def mask_of_another_shape(mended: bool) -> Programs:
    """A mask of shape (N, 1) beside densities of shape (N,) makes N² of them."""

    def masked(x):
        seen = x[:, :1] > -1.0
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            pyro.sample("x", likelihood(z).mask(seen.squeeze(-1) if mended else seen), obs=x)

    return masked, encoder_guide(), data()


def mask_the_wrong_way_round(mended: bool) -> Programs:
    """The mask keeps what is missing, and so leaves all data out."""

    def masked(x):
        seen = ~x.isnan() if mended else x.isnan()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            mean = z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3)
            pyro.sample("x", dist.Normal(mean, 1.0).mask(seen).to_event(1), obs=x)

    return masked, encoder_guide(), data()


def softmax_over_the_data(mended: bool) -> Programs:
    """`softmax(0)` normalises over the data, not over the classes."""

    def classes(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.softmax(-1 if mended else -2), 1.0).to_event(1), obs=x)

    layer = linear(3, 3)

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(layer(x), 1.0).to_event(1))

    return classes, guide, data()


def values_of_an_enumerated_site_flattened(mended: bool) -> Programs:
    """The values of an enumerated site stand in a dimension to the left, and the program flattens them."""
    locs = torch.tensor([-1.0, 0.0, 1.0])

    def mixture(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(3) / 3), infer={"enumerate": "parallel"})
            mean = locs[c] if mended else locs[c.reshape(-1)]
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x):
        pass

    return mixture, guide, data()[:, 0]


def discrete_latent_left_out(mended: bool) -> Programs:
    """The guide is silent on a discrete latent, and nobody marks it for enumeration."""
    locs = torch.tensor([-1.0, 0.0, 1.0])

    def mixture(x):
        with pyro.plate("data", len(x)):
            infer = {"enumerate": "parallel"} if mended else {}
            c = pyro.sample("c", dist.Categorical(torch.ones(3) / 3), infer=infer)
            pyro.sample("x", dist.Normal(locs[c], 1.0), obs=x)

    def guide(x):
        pass

    return mixture, guide, data()[:, 0]


def one_name_in_a_loop(mended: bool) -> Programs:
    """Every turn of a loop samples a site of the same name."""

    def loop(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            for i in range(3):
                pyro.sample(f"x{i}" if mended else "x", dist.Normal(z.sum(-1), 1.0), obs=x[..., i])

    return loop, encoder_guide(), data()


def batch_norm(mended: bool) -> Programs:
    """Batch norm in the encoder couples the data of a batch while it trains."""
    encoder = torch.nn.Sequential((torch.nn.LayerNorm if mended else torch.nn.BatchNorm1d)(3), linear())

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return model, guide, data()


def network_in_another_precision(mended: bool) -> Programs:
    """The data have another precision than the network."""
    layer = linear().to(torch.get_default_dtype() if mended else torch.float32)

    def guide(x):
        pyro.module("encoder", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(layer(x), 1.0).to_event(1))

    return model, guide, data()


def half_precision(mended: bool) -> Programs:
    """The likelihood's parameters are in half precision, and so is its density."""

    def half(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard())
            mean = z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3)
            pyro.sample("x", dist.Bernoulli(logits=mean if mended else mean.bfloat16()).to_event(1), obs=x)

    return half, encoder_guide(), counts()


BUGS = (
    Bug(missing_to_event, "fails"),
    Bug(too_many_events, "observed-twice", "x"),
    Bug(column_against_row, "refused"),
    Bug(plate_of_another_size, "measurement"),
    Bug(subsampling_plate, "scale", "x"),
    Bug(mask_of_another_shape, "observed-twice", "x"),
    Bug(mask_the_wrong_way_round, "all-masked", "x"),
    Bug(softmax_over_the_data, "batch-coupled"),
    Bug(values_of_an_enumerated_site_flattened, "measurement"),
    Bug(discrete_latent_left_out, "only-in-model", "c"),
    Bug(one_name_in_a_loop, "fails"),
    Bug(batch_norm, "batch-coupled"),
    Bug(network_in_another_precision, "fails"),
    Bug(half_precision, "precision", "x"),
)
