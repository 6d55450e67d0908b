"""The relaxed codes beside the enumerated ones: the evidence of one tends to that of the other as τ → 0."""

import pyro
import pytest
import torch
from pairs.zoo import relaxed_evidence

from ppvae.errors import OptionError
from ppvae.models import Bernoulli, DiscreteVAE, RelaxedVAE


def test_the_relaxed_evidence_tends_to_the_enumerated_one():
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]])
    options = {"num_groups": 2, "num_codes": 2, "hidden": ()}
    discrete, relaxed = DiscreteVAE.for_data(x, Bernoulli(), **options), RelaxedVAE.for_data(x, Bernoulli(), **options)
    with torch.no_grad():
        relaxed.decoder[-1].weight.mul_(3)
        relaxed.code_logits.copy_(torch.tensor([[0.4, -0.2], [0.5, 0.0]]))
        discrete.decoder.load_state_dict(relaxed.decoder.state_dict())
        discrete.code_logits.copy_(relaxed.code_logits)
    exact, found = discrete.log_evidence(x), []
    for temperature in (1.0, 0.5, 0.003):  # below 0.5 by the integral alone
        relaxed.temperature = temperature
        found.append((relaxed_evidence(relaxed, x, 400) - exact).abs().max().item())
    assert found[0] > found[1] > found[2]
    assert found[0] > 0.1
    assert found[2] < 0.01


def test_no_draw_underflows_at_the_least_temperature():
    torch.manual_seed(0)
    pair = RelaxedVAE(5, num_codes=10, hidden=(4,), temperature=0.5).float()
    with torch.no_grad():
        pair.encoder.output_bias.copy_(torch.tensor([1e3, -1e3]).repeat(10))
        x = torch.zeros(20_000, 5, dtype=torch.float32)
        trace = pyro.poutine.trace(pair.guide).get_trace(x)
    trace.compute_log_prob()
    assert (trace.nodes["v1"]["value"] > 0).all()
    assert trace.nodes["v1"]["log_prob"].isfinite().all()


def test_a_cold_temperature_is_refused():
    for option in ({"temperature": 0.1}, {"guide_temperature": 0.0}, {"temperature": float("nan")}):
        with pytest.raises(OptionError, match="temperature"):
            RelaxedVAE(5, **option)
