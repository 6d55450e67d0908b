"""Importance sampling with the model in bfloat16: near the closed form, and its effect is told."""

import re

import pytest
import torch

from ppvae.errors import OptionError
from ppvae.inference import importance_evidence
from ppvae.inference.evidence.low_precision import effect_of_precision, weighed
from ppvae.inference.evidence.streaming import tail_shape
from ppvae.inference.pair import Pair, as_batch, generator_kept
from ppvae.models import VAE, LinearGaussian


@pytest.fixture(autouse=True)
def single_precision(strict: None) -> None:
    torch.set_default_dtype(torch.float32)


def _linear() -> tuple[LinearGaussian, torch.Tensor]:
    torch.manual_seed(3)
    pair = LinearGaussian(num_features=6, latent_dim=2)
    pair.set_exact_guide()
    return pair, torch.randn(100, 6)


def test_evidence_in_bfloat16_is_the_closed_form_within_the_rounding_it_states() -> None:
    pair, x = _linear()
    evidence = importance_evidence(pair.model, pair.guide, x, 200, precision="bfloat16", seed=0)
    error = (evidence.log_evidence - pair.log_evidence(x).detach()).abs()
    # The mean square of the error is that of the rounding, measured on 50 of the 100 data: 1.5 is five of its errors.
    assert float(error.square().mean().sqrt()) < 1.5 * float(evidence.rounding.max())
    assert float(evidence.rounding.min()) > 1e-5  # bfloat16 was used
    (note,) = [remark for remark in evidence.remarks() if "bfloat16" in remark]
    mean, spread = map(float, re.findall(r"([+-]?\d+\.\d+) (?:±|nats for a datum)", note))
    assert abs(mean) <= spread == pytest.approx(float(evidence.rounding.min()), abs=1e-4)


def test_the_effect_is_the_difference_of_the_same_draws() -> None:
    torch.manual_seed(0)
    pair, x = VAE(num_features=20, latent_dim=3, hidden=(16,)), (torch.rand(5, 20) < 0.5).float()
    with Pair.on(pair.model, pair.guide, as_batch(x)) as on, torch.no_grad():
        with generator_kept(1):
            effect = effect_of_precision(on, 50, 64.0)
            state = torch.get_rng_state()
        with generator_kept(1):
            assert torch.equal(state, torch.get_rng_state())  # the generators are as they were
            seed = int(torch.randint(2**31, ()))
        log_p = []
        for dtype in (torch.bfloat16, None):
            with generator_kept(seed):
                log_p.append(weighed(on, 50, dtype).logsumexp(0))
    assert torch.equal(effect, log_p[0] - log_p[1])
    assert 0 < float(effect.abs().max()) < 0.5


def test_equal_weights_above_a_lower_threshold_have_no_tail() -> None:
    log_w = torch.zeros(30, 1, dtype=torch.float64)
    log_w[:-7] = -1e-7  # of 30 weights the tail is the 6 largest, and one below them is the threshold
    log_w[-7] = -1e-7
    assert float(tail_shape(log_w)) == 0.0


def test_full_precision_says_nothing_and_a_wrong_word_is_refused() -> None:
    pair, x = _linear()
    assert not [r for r in importance_evidence(pair.model, pair.guide, x, 30, seed=0).remarks() if "bfloat16" in r]
    with pytest.raises(OptionError, match="precision must be one of 'full', 'bfloat16'"):
        importance_evidence(pair.model, pair.guide, x, 30, precision="half")  # type: ignore[arg-type]


def test_double_precision_is_told_to_be_left_as_it_is() -> None:
    pair, x = _linear()
    evidence = importance_evidence(pair.double().model, pair.guide, x.double(), 30, precision="bfloat16", seed=0)
    assert any("precision='bfloat16' changed nothing" in remark for remark in evidence.remarks())
