"""The plan of an evaluation: its arithmetic, and its prediction against the cost of a real evaluation."""

import time

import pytest

from ppvae.cli import main
from ppvae.errors import OptionError
from ppvae.experiments.runs.command_options import EvaluateOptions
from ppvae.experiments.runs.evaluate_run import evaluate_run
from ppvae.experiments.runs.plan_run import EvaluationPlan, plan_run
from ppvae.experiments.runs.planning_options import PlanOptions
from ppvae.storage import RunDirectory

# The plan of 200 data from a pilot on 50 of them may be off by so much; its own interval is wider.
FACTOR = 2.0


def plan(**changes):
    values = {
        "num_data": 1000,
        "tolerance": 0.1,
        "sizes": (10, 20, 30, 40),
        "seconds": (12.0, 22.0, 32.0, 42.0),
        "startup": 10.0,
        "spread": 2.0,
        "settled": 1.0,
        "datum_bytes": 8,
        "device": "cpu",
    }
    return EvaluationPlan(**values | changes)


def test_a_portion_has_a_cost_of_its_own():
    """s = 2 + n: 102 seconds for 100 data."""
    assert plan().per_datum == pytest.approx(1.02)
    assert plan().error == pytest.approx(0.0, abs=1e-9)
    assert plan().core_hours(10)[1] == pytest.approx((1020 + 100) / 3600)
    assert plan().hours(10) == pytest.approx((102 + 10) / 3600)


def test_the_cost_of_a_datum_is_at_most_that_in_the_largest_portion():
    assert plan(seconds=(1.0, 10.0, 30.0, 60.0)).per_datum == pytest.approx(60 / 40)
    assert plan(seconds=(50.0, 50.0, 50.0, 40.0)).per_datum == pytest.approx(0.4)


def test_how_many_workers_end_in_time():
    one = plan()
    for hours in (0.01, 0.05, 0.2):
        workers = one.workers_for(hours)
        assert one.hours(workers) <= hours
        assert workers == 1 or one.hours(workers - 1) > hours
    assert one.workers_for(0.002) is None
    assert "no number of workers" in one.remarks(0.002)[-1]


@pytest.mark.parametrize("options", [PlanOptions(data=0), PlanOptions(pilot=3), PlanOptions(hours=-1.0)])
def test_options_that_cannot_be_used_are_refused(options):
    with pytest.raises(OptionError):
        options.check()


@pytest.mark.slow
def test_the_plan_of_an_evaluation_is_near_to_its_cost(tmp_path, capsys):
    words = ["--pair_args.latent_dim", "4", "--pair_args.hidden", "[50]", "--epochs", "15", "--accelerator", "cpu"]
    words += ["--max_eval", "200", "--eval_minutes", "0.01", "--num_particles", "200", "--out", str(tmp_path)]
    assert main(["run", *words, "--name", "one"]) == 0
    directory = RunDirectory.open(tmp_path / "one")
    found = plan_run(directory, PlanOptions(data=200, tolerance=0.3, pilot=50))
    began = time.process_time()
    evaluate_run(directory, EvaluateOptions(tolerance=0.3))
    real = time.process_time() - began
    predicted = 3600 * found.core_hours(0)[1]
    with capsys.disabled():
        print(f"\npredicted {predicted:.0f} ± {200 * found.error:.0f} core seconds, real {real:.0f}")
    assert real / FACTOR < predicted < real * FACTOR
    assert main(["plan", str(directory.path), "--data", "1000", "--tolerance", "1", "--pilot", "10"]) == 0
    assert "core-hours" in capsys.readouterr().out
