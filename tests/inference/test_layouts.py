"""The layouts give one answer: log densities and their gradients, on every pair of the laws and every program."""

from functools import partial

import pairs
import programs
import pytest
import torch
from gate import slow_but

from ppvae.errors import DataError, PairError
from ppvae.inference.pair import Pair
from ppvae.inference.pair.layout import LAYOUTS
from ppvae.inference.pair.sites import U

ENUMERATED = {*pairs.ENUMERATED, *pairs.OF_MODELS_ENUMERATED}
DRAWS = 3
# By type: what two orders of the same sums may differ by, absolutely and relative to their size.
# In single precision alone is a wrong type seen; a wrong layout is seen in either.
AGREEMENT = {torch.float32: 1e-5, torch.float64: 1e-10}


def log_model(pair, values, layout):
    """log p(x, z) of draws by site."""
    return pair.run(pair.programs.densities, DRAWS, values, layout)["log_p"]


def log_guide(pair, values, layout):
    """log q(z|x) of draws by site."""
    return pair.run(pair.programs.log_guide, DRAWS, values, layout)["log_q"]


def gradient(pair, u, layout):
    """The gradient of log p(x, u)."""
    leaf = u.detach().clone().requires_grad_()
    with torch.enable_grad():
        total = pair.run(partial(pair.programs.joint, prior=False), DRAWS, {U: leaf}, layout)["log_joint"].sum()
        return torch.autograd.grad(total, leaf)[0]


def places(pair, values):
    """u of the draws, if all latents are on a continuum and each has its place."""
    if not pair.sites or not all(site.dtype.is_floating_point for site in pair.sites.values()):
        return None
    try:
        return pair.unconstrained({name: values[name] for name in pair.sites}, DRAWS)
    except (PairError, NotImplementedError):
        return None  # outside the prior's support, or on a circle: such latents have no u


def demand_agreement(pair, of_model, of_guide, close):
    """Every layout that is named gives the loop's densities and gradients."""
    demand = partial(torch.testing.assert_close, rtol=close)
    values = pair.run(pair.programs.guide_draws, DRAWS, {}, "loop", random=True)
    u = places(pair, values)
    for layout in of_guide:
        demand(log_guide(pair, values, layout), log_guide(pair, values, "loop"), atol=close)
    for layout in of_model:
        demand(log_model(pair, values, layout), log_model(pair, values, "loop"), atol=close)
        if u is not None:
            slope = gradient(pair, u, "loop")
            demand(gradient(pair, u, layout), slope, atol=close * (1 + slope.abs().max().item()))


@pytest.mark.parametrize("dtype", slow_but([torch.float32], AGREEMENT), ids=str)
@pytest.mark.parametrize("name", [*pairs.MEASURED, *pairs.OF_MODELS])
def test_every_pair_of_the_laws_in_every_layout(name, dtype):
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args) as view, torch.no_grad():
        own_plates = view.structure.plates.nesting > 1
        layouts = ["broadcast", "loop"] if own_plates else ["broadcast", "fold", "loop"]
        demand_agreement(view, layouts, layouts, AGREEMENT[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in (*pairs.MEASURED, *pairs.OF_MODELS) if name not in ENUMERATED])
def test_every_pair_that_sums_nothing_out_in_the_vectorised_layout(name):
    """Pyro's enumeration looks at the values of its draws, which `torch.func.vmap` does not allow."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    pair = pairs.build(name)
    with Pair.on(pair.model, pair.guide, pair.args) as view, torch.no_grad():
        demand_agreement(view, ["vectorised"], ["vectorised"], AGREEMENT[torch.float64])


@pytest.mark.parametrize("dtype", slow_but([torch.float32], AGREEMENT), ids=str)
@pytest.mark.parametrize("name", programs.BUILDERS)
def test_every_program_in_the_layouts_that_were_chosen(name, dtype):
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    program = programs.build(name)
    batch = program.x if isinstance(program.x, tuple) else (program.x,)
    try:
        view = Pair.on(program.model, program.guide, batch)
        with view as pair, torch.no_grad():
            demand_agreement(pair.few, [pair.model_layout], [pair.guide_layout], AGREEMENT[dtype])
    except (PairError, DataError):
        pytest.skip("it has no evidence")


def test_the_order_is_that_of_speed():
    assert LAYOUTS == ("broadcast", "fold", "vectorised", "loop")
