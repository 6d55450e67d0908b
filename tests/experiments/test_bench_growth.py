"""Curves of growth: their slopes, the memory that they measure, and the profiles beside them."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import linregress

from ppvae.experiments.bench import growth_curves, operator_profiles
from ppvae.experiments.bench.evidence_speed import EvidenceSizes
from ppvae.experiments.bench.growth_curves import GrowthCurve, GrowthSetting, measure_growth, slope
from ppvae.experiments.bench.operator_profiles import FUSED, REST, OperatorProfile
from ppvae.experiments.bench.peak_memory import CLEAR

SETTING = GrowthSetting("importance_evidence", num_draws=3, num_data=2, latent_dim=2, width=4)


def test_a_slope_is_that_of_a_power():
    assert slope((1, 2, 4, 8), [3.0, 6.0, 12.0, 24.0]) == pytest.approx((1.0, 0.0), abs=1e-12)
    assert slope((1, 2, 4), [5.0, 5.0, 5.0]) == pytest.approx((0.0, 0.0), abs=1e-12)
    sizes, values = (10, 20, 50, 80), [1.0, 2.3, 4.1, 9.0]
    other = linregress(np.log(sizes), np.log(values))
    assert slope(sizes, values) == pytest.approx((other.slope, other.stderr))
    assert all(math.isnan(one) for one in slope((1, 2, 3), [0.0, 1.0, 2.0]))


PEAKS = """
import json, torch
from ppvae.experiments.bench.peak_memory import PeakMemory
torch.ones(2**17, dtype=torch.float64).sum()
memory = PeakMemory()
ones = lambda size: torch.ones(size, 2**17, dtype=torch.float64).sum()  # as many MiB
print(json.dumps([memory.of(lambda: ones(size)) for size in (64, 16)]))
"""


@pytest.mark.skipif(not CLEAR.exists(), reason="only Linux forgets a peak")
def test_peak_memory_is_that_of_the_work():
    """In a process of its own, as the bench has it: here other tests' memory may be given back meanwhile."""
    run = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    peaks = json.loads(run.stdout)
    assert peaks[0] == pytest.approx(64, abs=8)
    assert peaks[1] == pytest.approx(16, abs=8)


def test_a_curve_asks_for_each_size(monkeypatch):
    asked = []

    def ask(module, request, threads, environment=None):
        asked.append(request["setting"]["num_draws"])
        return {"seconds": [asked[-1] + 1.0], "tiny": [1.0], "mebibytes": [7.0]}

    monkeypatch.setattr(growth_curves, "ask", ask)
    found = measure_growth(GrowthCurve(SETTING, "num_draws", (10, 20, 40)), turns=1, threads=1)
    assert asked == [10, 20, 40] * 2  # for the seconds, and for the memory
    assert found.time_slope == pytest.approx((1.0, 0.0), abs=1e-12)
    assert found.memory_slope == pytest.approx((0.0, 0.0), abs=1e-12)
    assert growth_curves.growth_table([found]).row_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["importance_evidence", "annealed_evidence"])
def test_a_point_is_measured_in_each_turn(estimator):
    found = growth_curves.measure_setting({**vars(SETTING), "estimator": estimator, "num_distributions": 3}, turns=1)
    assert min(found["seconds"] + found["tiny"]) > 0


def test_a_profile_names_the_operators():
    a = torch.randn(50, 50)
    found = operator_profiles._profiled("products", lambda: [a @ a for _ in range(7)])
    products = next(row for row in found.operators if row.name == "aten::mm")
    assert products.calls == 7
    assert sum(row.seconds for row in found.operators) <= found.seconds * 1.001
    assert found.operators[-1].name == REST
    assert operator_profiles.profile_table(found).row_count == len(found.operators)
    assert operator_profiles._name("## Call CompiledFxGraph None ##") == FUSED


@pytest.mark.slow
def test_steps_weights_and_transitions_are_profiled():
    found = [OperatorProfile.read(one) for one in operator_profiles.measure_profiles(small=True, compiled=False)]
    assert len(found) == 3
    assert all(row.seconds >= 0 for one in found for row in one.operators)
    assert all(any("mm" in row.name for row in one.operators) for one in found)
    sizes = EvidenceSizes(2, 5, 2, 2, 3)
    assert operator_profiles.profile_weights(sizes).seconds > 0
