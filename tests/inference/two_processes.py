"""Train pairs on two processes and on one, by the same noise, and write how far apart the parameters are.

    python tests/inference/two_processes.py equal /tmp/found.json

Strategy ddp runs this file again in the second process. The noise of the guide is a part of the data, so that both
trainings have the same; what is left is rounding.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import constraints

from ppvae.errors import PpvaeError
from ppvae.inference import Compute, fit
from ppvae.inference.svi.launching import fabric_of
from ppvae.inference.svi.processes import Team

NUM_DATA, BATCH = 101, 20  # the last batch has one datum: the second process has none
LATENT, FEATURES = 2, 5


class Given(dist.Normal):
    """A normal distribution whose draw is made of noise that is given."""

    def __init__(self, loc, scale, noise):
        self.noise = noise
        super().__init__(loc, scale, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Given(*(part.expand(batch_shape) for part in (self.loc, self.scale, self.noise)))

    def rsample(self, sample_shape=()):
        return (self.loc + self.scale * self.noise).expand(self._extended_shape(sample_shape))


class OfModules(nn.Module):
    """Networks that are registered, in a plate of the data."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(LATENT, FEATURES), nn.Linear(FEATURES, 2 * LATENT)

    def plate(self, x):
        return pyro.plate("data", len(x))

    def model(self, x, noise):
        pyro.module("decoder", self.decoder)
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x, noise):
        pyro.module("encoder", self.encoder)
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with self.plate(x):
            pyro.sample("z", Given(loc, log_scale.exp(), noise).to_event(1))


class Scaled(OfModules):
    """The same in a plate of all data, of which a batch is a part: Pyro scales its loss by N/B."""

    def plate(self, x):
        return pyro.plate("data", NUM_DATA, subsample_size=len(x))


class OfNoise(OfModules):
    """The same by torch's own noise."""

    def model(self, x):
        super().model(x, None)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with self.plate(x):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Failing(OfModules):
    """A program that fails on the second process, after some steps."""

    steps = 0

    def model(self, x, noise):
        if self.training and torch.is_grad_enabled():
            self.steps += 1
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1 and self.steps > 8:
            raise LookupError("nothing there")
        super().model(x, noise)


class Together(OfModules):
    """A plate of a fixed size: the programs run on all data at once."""

    def plate(self, x):
        return pyro.plate("data", NUM_DATA)


class OfParams:
    """Parameters that live in Pyro's store."""

    def model(self, x, noise):
        weight = pyro.param("weight", torch.linspace(-1, 1, LATENT * FEATURES).view(LATENT, FEATURES).to(x))
        scale = pyro.param("scale", x.new_tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, scale).to_event(1), obs=x)

    def guide(self, x, noise):
        loc = x @ pyro.param("loc", x.new_full((FEATURES, LATENT), 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", Given(loc, torch.full_like(loc, 0.5), noise).to_event(1))


def trained(kind, devices, **options):
    """The parameters after two epochs, and the history."""
    pyro.clear_param_store()
    torch.manual_seed(3)
    pair, x = kind(), torch.randn(NUM_DATA, FEATURES)
    data = (x, torch.randn(NUM_DATA, LATENT))
    found = fit(
        pair.model,
        pair.guide,
        data,
        validation=data,
        epochs=2,
        batch_size=BATCH,
        learning_rate=0.05,
        accelerator="cpu",
        progress=False,
        compute=Compute(devices=devices),
        **{"optimizer": torch.optim.SGD, "precision": "64-true"} | options,
    )
    return found


def apart(one, two):
    """The largest relative distance of parameters."""
    pairs = [(one.parameters[name], two.parameters[name]) for name in one.parameters]
    return max(float((a - b).norm() / a.norm()) for a, b in pairs)


def refused(kind=OfModules, **options):
    """The sentence that a training on two processes ends with."""
    try:
        trained(kind, 2, **options)
    except PpvaeError as error:
        return str(error)
    return ""


def draws():
    """Whether the first numbers of a step differ between the processes and from step to step, and come again."""
    team, found = Team(fabric_of("cpu", "32-true", Compute(devices=2))), []
    for step in (0, 0, 1):
        team.seed_step(7, step)
        number = torch.rand(1, dtype=torch.float64).repeat(2)
        number[1 - team.rank] = 0
        found.append(team.sum(number).tolist())
    return found


def different_optimizer(parameters, lr):
    """A step that differs between processes."""
    return torch.optim.SGD(parameters, lr=lr * (1 + torch.distributed.get_rank()))


def equal(file):
    """Compare trainings on one and on two processes."""
    found = {}
    for kind in (OfModules, Scaled, OfParams):
        one, two = trained(kind, 1), trained(kind, 2)
        rows = [
            abs(a[name] - b[name])
            for a, b in zip(one.history, two.history, strict=True)
            for name in ("elbo", "validation_elbo")
        ]
        found[kind.__name__] = [apart(one, two), max(rows)]
    found["bf16"] = apart(trained(OfModules, 1, precision="bf16-mixed"), trained(OfModules, 2, precision="bf16-mixed"))
    found["parted"] = refused(optimizer=different_optimizer)
    found["failed"] = refused(kind=Failing)
    found["indivisible"] = refused(kind=Together)
    found["noise"] = draws()
    if torch.distributed.get_rank() == 0:
        Path(file).write_text(json.dumps(found))


def compiled(file):
    """Compare compiled steps on two processes with eager ones on one."""
    one, two = trained(OfModules, 1), trained(OfModules, 2, compile=True)
    if torch.distributed.get_rank() == 0:
        Path(file).write_text(json.dumps([apart(one, two), two.step]))


def long(folder, devices, strategy="ddp"):
    """A training that can be killed and gone on with; its parameters are written at its end."""
    torch.manual_seed(0)
    x, here = torch.randn(200, FEATURES), Path(folder)
    pair = OfNoise()
    checkpoint = here / "checkpoint.pt"
    found = fit(pair.model, pair.guide, x, validation=x[:50], epochs=30, batch_size=20, accelerator="cpu",
                progress=False, checkpoint=checkpoint, checkpoint_seconds=0.05, resume=checkpoint.exists(),
                compute=Compute(devices=int(devices), strategy=strategy))  # fmt: skip
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        values = {name: value.tolist() for name, value in found.parameters.items()}
        (here / "end.json").write_text(json.dumps([len(found.history), values]))


if __name__ == "__main__":
    act: Any = {"equal": equal, "compiled": compiled, "long": long}[sys.argv[1]]
    act(*sys.argv[2:])
