"""The twelve tasks of docs/tasks.md: they run in an empty folder, and the table has the lines that they take."""

import re
import shlex
import warnings

import pytest
import torch

from ppvae.cli import main

FENCE = r"```(python|console|py)\n(.*?)```"
# What a section says before the block of each library; a section of several libraries names them in the order of lines.
PEERS = ("pythae", "scvi-tools", "NumPyro")


@pytest.fixture
def page(repository):
    return (repository / "docs" / "tasks.md").read_text(encoding="utf-8")


def sections(page):
    """The text of each task, by number."""
    parts = re.split(r"^## (\d+)\. .*$", page, flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def lines_of(block):
    """The lines that count: none that import, none that only show the result."""
    return [line for line in block.splitlines() if line and not line.startswith(("from ", "import ", "print("))]


def table(page):
    rows = re.findall(r"^\| (\d+)\. (.*) \|$", page, flags=re.MULTILINE)
    return {int(number): [cell.strip() for cell in rest.split("|")][1:] for number, rest in rows}


def test_the_table_has_the_lines_of_the_programs(page):
    told, two_programs = table(page), 9
    assert list(told) == list(sections(page)) == list(range(1, 13))
    for number, text in sections(page).items():
        own = [block for kind, block in re.findall(FENCE, text, flags=re.DOTALL) if kind != "py"]
        ours = lines_of(own[0])
        assert told[number][0].split()[0] == str(1 if number == 10 else len(ours)), number  # the first makes a run
        for place, peer in enumerate(PEERS, start=1):
            found = re.search(rf"^{peer}[^\n]*(?:\n[^\n]+)*:\n\n```py\n(.*?)```", text, flags=re.DOTALL | re.MULTILINE)
            if found is None or number in (7, 12):  # a line each of several libraries
                continue
            count = len(lines_of(found.group(1))) + (two_programs if (number, peer) == (3, "NumPyro") else 0)
            assert told[number][place].split()[0] == str(count), (number, peer)


@pytest.mark.slow
def test_the_tasks_run_in_an_empty_folder(page, tmp_path, monkeypatch, capsys):
    torch.set_default_dtype(torch.float32)  # what a user has; the fixture puts it back
    monkeypatch.chdir(tmp_path)
    scope = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind, block in re.findall(FENCE, page, flags=re.DOTALL):
            if kind == "python":
                exec(compile(block, "tasks.md", "exec"), scope)
            for words in block.splitlines() if kind == "console" else ():
                assert main(shlex.split(words)[1:]) == 0, words
    assert (tmp_path / "runs" / "plants" / "report.html").is_file()
    assert (tmp_path / "compare-plants-one.html").is_file()
    assert scope["z"].shape == (200, 2)
    assert scope["drawn"].shape == (10, 4)
    assert scope["scores"].shape == (20,)
    assert scope["evidence"].trusted.all()
    assert not scope["filled"].mean.isnan().any()
    assert "AdaptiveEvidence of 20 data" in capsys.readouterr().out
