"""Tables where there is no terminal, as in a file or a pipe: 80 columns, no number cut."""

from pathlib import Path

from rich.table import Table

from ppvae.cli.console import show
from ppvae.experiments.runs.section import Section
from ppvae.storage import RunDirectory

VERDICT = "wrong for 20 of 20 data: shifted 14, correlation missed 6, too narrow 20; on simulated data too wide 2"


def _lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_table_has_80_columns_and_whole_numbers(capsys):
    rows = [("guide against reference", "20 of 20", VERDICT), ("  KL(q ‖ p), the gap", "12 347.39 ± 0.50", "nats")]
    show(Section(RunDirectory(Path("a")), "q(z|x) assessed as a posterior", rows, {"unit": "datum"}).table())
    lines = _lines(capsys)
    assert max(map(len, lines)) == 80
    assert any("12 347.39 ± 0.50" in line for line in lines)
    assert all(word in " ".join(lines) for word in VERDICT.split())


def test_a_name_folds_and_a_number_does_not(capsys):
    table = Table()
    table.add_column("run", overflow="fold")
    table.add_column("log p(x)", no_wrap=True)
    table.add_row("name" * 50, "-86.87 ± 0.72")
    show(table)
    lines = _lines(capsys)
    assert max(map(len, lines)) == 80
    assert any("-86.87 ± 0.72" in line for line in lines)
    assert "".join(line.split("│")[1].strip() for line in lines if line.startswith("│")) == "name" * 50


def test_a_table_of_many_numbers_is_wider_and_not_cut(capsys):
    table = Table(*(f"number {i}" for i in range(12)))
    table.add_row(*(f"-113.7712{i}" for i in range(12)))
    show(table)
    shown = " ".join(_lines(capsys))
    assert all(f"-113.7712{i}" in shown for i in range(12))
