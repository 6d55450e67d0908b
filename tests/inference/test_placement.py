"""Programs that hold tensors of the CPU are trained there; "meta" stands for an accelerator here."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from lightning_fabric import Fabric

from ppvae.inference import Compute
from ppvae.inference.svi import placement
from ppvae.inference.svi.batches import Source
from ppvae.inference.svi.placement import fabric_for, why_not_on

META = torch.device("meta")
X = torch.randn(8, 2)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2, device=x.device), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide_anywhere(x):
    scale = pyro.param("scale", torch.ones(2, device=x.device))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, scale).to_event(1))


def guide_on_the_cpu(x):
    scale = pyro.param("scale", torch.ones(2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x * scale, 1.0).to_event(1))


def broken(x):
    raise ValueError("anywhere")


def test_what_fails_on_the_accelerator_alone_is_named():
    with pyro.validation_enabled(False):  # the values of a meta tensor cannot be checked
        assert why_not_on(META, model, guide_anywhere, (X,)) is None
        reason = why_not_on(META, model, guide_on_the_cpu, (X,))
        assert "device" in str(reason)
        assert why_not_on(META, broken, guide_anywhere, (X,)) is None  # which fails on the CPU too


def test_nothing_is_left_of_the_trial():
    kept = pyro.param("scale", torch.full((2,), 3.0))
    state = torch.get_rng_state()
    why_not_on(META, model, guide_on_the_cpu, (X,))
    assert pyro.get_param_store()["scale"] is kept
    assert list(pyro.get_param_store()) == ["scale"]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("accelerator", "on_the_cpu"), [("auto", True), ("asked for", False)])
def test_auto_takes_the_cpu_with_a_warning(monkeypatch, accelerator, on_the_cpu):
    class Elsewhere:
        device, world_size = META, 1

    here = Fabric(accelerator="cpu", devices=1)
    monkeypatch.setattr(placement, "fabric_of", lambda name, *_: here if name == "cpu" else Elsewhere())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fabric = fabric_for(model, guide_on_the_cpu, Source.of(X, None, 4, 0), accelerator, "32-true", Compute())
    assert (fabric is here) == on_the_cpu
    assert [str(one.message)[:35] for one in said] == ["the programs cannot be run on meta "] * on_the_cpu
