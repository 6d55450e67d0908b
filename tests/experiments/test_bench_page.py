"""The file, the tables and the page of the bench: shares and ratios are right, and the page is made from the file."""

from dataclasses import replace

from ppvae.experiments.bench.bench_page import page, write_pages
from ppvae.experiments.bench.bench_record import BenchRecord, changes, machine
from ppvae.experiments.bench.bench_tables import matrix_rate, milliseconds, task_rows, task_tables
from ppvae.experiments.bench.growth_curves import Growth, GrowthCurve, GrowthSetting
from ppvae.experiments.bench.operator_profiles import OperatorProfile, OperatorTime
from ppvae.experiments.bench.side_by_side import Spread, Timed


def spread(median):
    return Spread(median, 0.9 * median, 1.1 * median, 5)


def tasks(**medians):
    return {
        "a task": Timed({name.replace("_", " "): spread(median) for name, median in medians.items()}, flops=6e9),
        "float32 product of two 9 × 9 matrices": Timed({"torch": spread(0.1)}, flops=1e10),
    }


def record(**medians):
    curves = [
        GrowthCurve(GrowthSetting("importance_evidence", 100, 4), "num_draws", (10, 20, 40)),
        GrowthCurve(GrowthSetting("annealed_evidence", 8, 4), "num_draws", (2, 4, 8)),
        GrowthCurve(GrowthSetting("importance_evidence", 100, 4), "width", (10, 20, 40)),
    ]
    measured = tuple(map(spread, (2.0, 3.0, 5.0))), (spread(1.0),) * 3, (spread(60.0),) * 3
    profile = OperatorProfile("some work", 0.4, (OperatorTime("aten::mm", 3, 0.1), OperatorTime("rest", 0, 0.3)))
    growth = [Growth(curve, *measured) for curve in curves]
    return BenchRecord(machine(), "2026-01-02T03:04:05", False, {1: tasks(**medians)}, growth, [profile])


def test_a_row_has_ratio_and_share_of_the_rate():
    found = list(task_rows(tasks(ours=0.3, plain_torch=0.2)))
    assert matrix_rate(tasks(ours=1.0)) == 1e11
    assert [row.ratio for row in found] == [0.3 / 0.2, 1.0, None]
    assert [row.share for row in found] == [6e9 / 0.3 / 1e11, 6e9 / 0.2 / 1e11, 1.0]
    assert found[0].cells == ("a task", "ours", "300", "270 – 330", "1.50", "20%")
    assert milliseconds(0.00123456) == "1.23"
    assert [table.row_count for table in task_tables(tasks(ours=0.3), 1)] == [1, 1]


def test_the_page_says_whether_xla_was_kept_to_the_cores(tmp_path):
    kept, free = record(ours=1.0), replace(record(ours=1.0), cores_kept=False)
    assert "no more cores than threads" in page(kept)
    assert "of up to two cores" in page(free)
    free.keep(tmp_path / "bench.json")
    assert not BenchRecord.read(tmp_path / "bench.json").cores_kept


def test_where_there_is_no_plain_torch_pyro_is_what_ratios_are_taken_to():
    found = Timed({"ours": spread(1.0), "pyro.infer.SVI": spread(2.0)})
    assert [row.ratio for row in task_rows({"steps": found})] == [0.5, 1.0]
    assert [row.share for row in task_rows({"steps": found})] == [None, None]


def test_a_record_is_read_as_it_was_kept(tmp_path):
    kept = record(ours=2.0, plain_torch=1.0)
    kept.keep(tmp_path / "new" / "bench.json")
    assert BenchRecord.read(tmp_path / "new" / "bench.json") == kept


def test_what_changed_since_the_run_before_is_shown():
    first = record(ours=2.0, theirs=3.0, plain_torch=1.0)
    assert "No ratio" in changes(record(ours=4.1, theirs=6.0, plain_torch=2.0), first)  # a slower machine
    slower_code = changes(record(ours=2.5, theirs=3.0, plain_torch=1.0), first)
    assert slower_code.row_count == 1
    assert "another machine" not in slower_code.title
    elsewhere = replace(record(ours=2.5, plain_torch=1.0), machine={"processor": "another"})
    assert "another machine" in changes(elsewhere, first).title
    assert "No ratio" in changes(replace(first, tasks={2: first.tasks[1]}), first)  # other threads


def test_the_page_says_what_was_measured(tmp_path):
    kept = record(ours=0.3, plain_torch=0.2)
    said = page(kept)
    assert "| a task | ours | 300 | 270 – 330 | 1.50 | 20% |" in said
    assert "|  | plain torch | 200 |" in said
    assert "100 Gflop/s" in said
    assert "1.00 ± 0.00" in said  # seconds beyond the fixed ones: 1, 2, 4
    assert "| `aten::mm` | 3 | 100 | 25% |" in said
    assert "trial" not in said
    assert "trial" in page(replace(kept, small=True))
    kept.keep(tmp_path / "bench.json")
    write_pages(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == said
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_recorded_page_is_that_of_the_recorded_run(repository):
    """Written anew by python -m ppvae.experiments.bench.bench_page."""
    folder = repository / "benchmarks"
    assert (folder / "README.md").read_text(encoding="utf-8") == page(BenchRecord.read(folder / "bench.json"))
    assert (folder / "growth.png").is_file()
