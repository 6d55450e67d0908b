"""The laws that every pair obeys, and that inference keeps for every pair."""

import math
from typing import Any

import pairs
import pyro
import pytest
import torch
import truths_inference as truths
from gate import slow_those
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.inference import check, importance_evidence, log_weights

EVERY = sorted([*pairs.MEASURED, *pairs.OF_MODELS])
LEARNT = [name for name in (*pairs.LEARNT, *pairs.OF_MODELS) if name in EVERY]


@pytest.fixture
def pair(request):
    return pairs.build(request.param)


def over(names):
    return pytest.mark.parametrize("pair", slow_those(pairs.OTHER_NUMBERS, names), indirect=True)


class GivenParticles(Messenger):
    """Put particles drawn beforehand in place of a guide's own draws, wherever the plates have their sizes.

    A pass over fewer particles or data, made to learn the shapes of a pair, draws its own.
    """

    def __init__(self, values: dict[str, Tensor], particle_dim: int, num_particles: int, num_data: int):
        super().__init__()
        self.values, self.particle_dim, self.sizes = values, particle_dim, (num_particles, num_data)
        self.used: set[str] = set()

    def _pyro_sample(self, msg):
        if msg["name"] not in self.values:
            return
        stack: Any = poutine.runtime._PYRO_STACK
        particles = [frame.size for frame in stack if getattr(frame, "dim", None) == self.particle_dim]
        if particles and (particles[0], msg["fn"].batch_shape[-1]) == self.sizes:
            msg["value"], msg["done"] = self.values[msg["name"]], True
            self.used.add(msg["name"])


def weights_of(pair, values: dict[str, Tensor], num_particles: int) -> Tensor:
    """The log weights of given particles."""
    nesting = truths.plate_nesting(pair.model, *pair.args)
    given = GivenParticles(values, -nesting - 1, num_particles, len(pair.x))
    log_w = log_weights(pair.model, given(pair.guide), pair.data, num_particles)
    assert given.used == pair.latents
    return log_w


@over(EVERY)
def test_one_weight_for_each_particle_and_datum(pair):
    log_w = log_weights(pair.model, pair.guide, pair.data, 7, seed=0)
    assert log_w.shape == (7, len(pair.x))
    assert log_w.dtype == torch.float64
    assert torch.isfinite(log_w).all()
    assert not log_w.requires_grad


@over(sorted({*pairs.OF_MODELS, *pairs.LEARNT} - {"autoencoder"}))
def test_check_has_nothing_to_say(pair):
    assert check(pair.model, pair.guide, pair.data) == []


@over(EVERY)
def test_model_and_guide_name_the_same_latents(pair):
    model = poutine.trace(pair.model).get_trace(*pair.args)
    guide = poutine.trace(pair.guide).get_trace(*pair.args)
    in_model, in_guide = (set(poutine.util.prune_subsample_sites(t).stochastic_nodes) for t in (model, guide))
    assert in_model == pair.latents | pair.summed
    assert pair.latents <= in_guide <= pair.latents | pair.summed


@over(EVERY)
def test_programs_broadcast_over_particles(pair):
    nesting = truths.plate_nesting(pair.model, *pair.args)
    guide = truths.draw_particles(pair.guide, pair.args, 3, nesting)
    model = truths.draw_particles(poutine.replay(pair.model, guide), pair.args, 3, nesting)
    model.compute_log_prob()
    for name in pair.latents | pair.summed | set(model.observation_nodes):
        shape = model.nodes[name]["log_prob"].shape
        # A discrete site of the model's own may stand before every latent; what follows a latent has its particles.
        assert shape[0] == 3 or name in pair.summed or not pair.latents
        assert shape[-1] == len(pair.x)
        assert len(shape) == nesting + 1


@over(sorted(set(EVERY) - {"mixture", "nested", "chain"}))
def test_weights_of_a_datum_do_not_depend_on_the_rest_of_the_batch(pair):
    nesting = truths.plate_nesting(pair.model, *pair.args)
    drawn = truths.draw_particles(pair.guide, pair.args, 5, nesting)
    rows = [len(pair.x) - 1, 0]
    values = {name: drawn.nodes[name]["value"].detach() for name in pair.latents}
    data_dim = {name: -1 - drawn.nodes[name]["fn"].event_dim for name in pair.latents}
    some = {name: value.index_select(data_dim[name], torch.tensor(rows)) for name, value in values.items()}

    whole = weights_of(pair, values, 5)
    alone = weights_of(pair.rows(rows), some, 5)
    torch.testing.assert_close(alone, whole[:, rows], rtol=1e-12, atol=1e-11)
    assert whole.std(0).max() > 1e-3 or pair.exact


@over(sorted(set(EVERY) - {*pairs.ENUMERATED, *pairs.OF_MODELS_ENUMERATED}))
def test_weights_are_joint_minus_guide_by_hand(pair):
    nesting = truths.plate_nesting(pair.model, *pair.args)
    guide = truths.draw_particles(pair.guide, pair.args, 5, nesting)
    model = truths.draw_particles(poutine.replay(pair.model, guide), pair.args, 5, nesting)
    expected = torch.zeros(5, len(pair.x))
    for trace, sign in ((model, 1), (guide, -1)):
        for name in pair.latents | set(trace.observation_nodes):
            site = trace.nodes[name]
            log_prob = site["fn"].log_prob(site["value"])
            expected += sign * log_prob.reshape(5, -1, len(pair.x)).sum(1).detach()
    values = {name: guide.nodes[name]["value"].detach() for name in pair.latents}
    torch.testing.assert_close(weights_of(pair, values, 5), expected, rtol=1e-12, atol=1e-11)


@over(EVERY)
def test_evidence_is_the_truth_within_its_error(pair):
    """About a hundred data at |z| < 4.5: a false alarm of 1e-3 altogether."""
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 20_000, seed=1)
    if pair.exact:
        torch.testing.assert_close(evidence.log_evidence, pair.truth, rtol=0, atol=1e-10)
    else:
        z = (evidence.log_evidence - pair.truth) / evidence.standard_error
        assert z.abs().max() < truths.Z_LIMIT
        assert evidence.standard_error.max() < 0.05


@over(EVERY)
def test_elbo_stays_below_the_evidence(pair):
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 4000, seed=2)
    assert (evidence.elbo <= pair.truth + 4 * evidence.elbo_standard_error + 1e-10).all()


@over(pairs.EXACT + pairs.OF_MODELS_EXACT)
def test_with_the_exact_guide_every_weight_is_the_evidence(pair):
    log_w = log_weights(pair.model, pair.guide, pair.data, 50, seed=3)
    torch.testing.assert_close(log_w, pair.truth.expand_as(log_w), rtol=0, atol=1e-10)


@over(pairs.WITH_GAP)
def test_elbo_lies_below_the_evidence_by_the_kl(pair):
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 10_000, seed=4)
    if pair.exact:
        torch.testing.assert_close(evidence.elbo, pair.truth, rtol=0, atol=1e-10)
    else:
        z = (pair.truth - evidence.elbo - pair.true_gap) / evidence.elbo_standard_error
        assert z.abs().max() < truths.Z_LIMIT
        z = (evidence.gap - pair.true_gap) / evidence.gap_standard_error
        assert z.abs().max() < truths.Z_LIMIT


@over(LEARNT)
def test_gradient_reaches_every_parameter(pair):
    elbo = TraceEnum_ELBO(max_plate_nesting=1) if pair.summed else Trace_ELBO()
    elbo.loss_and_grads(pair.model, pair.guide, *pair.args)
    if pair.stored:
        parameters = [value for _, value in pyro.get_param_store().named_parameters()]
    else:
        parameters = [parameter for module in pair.modules for parameter in module.parameters()]
    assert parameters
    for parameter in parameters:
        assert parameter.grad is not None
        assert (parameter.grad != 0).any()


@over(EVERY)
def test_elbo_of_pyro_agrees(pair):
    """Trace_ELBO over the same pair, particles vectorised: the sum over data of ours, |z| < 4.5.

    Where the guide enumerates, Pyro averages log p − log q over the discrete sites and ours sums them out: not less.
    """
    nesting = truths.plate_nesting(pair.model, *pair.args)
    kind = TraceEnum_ELBO if pair.summed else Trace_ELBO
    elbo = kind(num_particles=2000, vectorize_particles=True, max_plate_nesting=nesting)
    theirs = -elbo.loss(pair.model, pair.guide, *pair.args)
    evidence = importance_evidence(pair.model, pair.guide, pair.data, 2000, seed=5)
    ours, error = evidence.elbo.sum().item(), math.sqrt(2) * evidence.elbo_standard_error.norm().item()
    in_guide = pair.summed & set(poutine.trace(pair.guide).get_trace(*pair.args).nodes)
    assert theirs < ours + truths.Z_LIMIT * error + 1e-9
    if not in_guide:
        assert theirs > ours - truths.Z_LIMIT * error - 1e-9


@pytest.mark.parametrize("name", LEARNT)
def test_state_saved_and_loaded_gives_the_same_weights(name, tmp_path):
    path = tmp_path / "state.pt"
    pair = pairs.build(name)
    before = log_weights(pair.model, pair.guide, pair.data, 4, seed=6)
    store = pyro.get_param_store()
    if pair.stored:
        store.save(path)
    else:
        torch.save([module.state_dict() for module in pair.modules], path)

    store.clear()
    fresh = pairs.build(name)
    fresh.model(*fresh.args)
    fresh.guide(*fresh.args)
    with torch.no_grad():
        for _, value in store.named_parameters():
            value.add_(0.3)
        for module in fresh.modules:
            for parameter in module.parameters():
                parameter.add_(0.3)
    assert (log_weights(fresh.model, fresh.guide, fresh.data, 4, seed=6) - before).abs().max() > 1e-3

    if fresh.stored:
        store.load(path)
    else:
        for module, state in zip(fresh.modules, torch.load(path), strict=True):
            module.load_state_dict(state)
    assert torch.equal(log_weights(fresh.model, fresh.guide, fresh.data, 4, seed=6), before)
