"""The bench of several processes measures what it says, at its smallest size."""

import pytest

from ppvae.errors import RunError
from ppvae.experiments.bench import several_processes
from ppvae.experiments.bench.several_processes import Config, StepTimes


def test_efficiencies_are_ratios_of_times():
    row = StepTimes("VAE", rows=10, processes=2, alone=0.9, alone_on_all=1.6, together=1.0)
    assert (row.weak, row.strong) == (0.9, 0.8)
    assert several_processes.table([row]).row_count == 1


@pytest.mark.slow
def test_each_case_is_measured_by_one_process_and_by_two():
    config = Config(cases=(("ConvolutionalVAE", 2),), steps=2, epochs=2, turns=1)
    (row,) = several_processes.run(config)
    assert min(row.alone, row.alone_on_all, row.together) > 0
    with pytest.raises(RunError, match=r"ended without a time .*no such pair"):
        several_processes.run(Config(cases=(("no such pair", 2),), turns=1))
