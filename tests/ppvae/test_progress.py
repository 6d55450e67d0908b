"""The lines of progress where there is no terminal: one each, whatever its length."""

import io
import re

import pytest
from rich.console import Console

from ppvae import progress


@pytest.mark.parametrize(("note", "separators"), [("", 2), ("again, for those that have failed before [now]", 3)])
def test_a_line_is_one_line_without_gaps(note, separators, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY", -1.0)
    monkeypatch.setenv("COLUMNS", "40")
    with progress.Progress("log p(x), of many data that take long", 10, "weights") as bar:
        bar.advance(5, note)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("log p(x), of many data that take long: 50% · ")
    assert line.endswith(" left")
    assert line.count(" · ") == separators
    assert note in line


def test_work_that_turns_out_to_be_needed_is_counted(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY", -1.0)
    with progress.Progress("posterior", 10, "transitions") as bar:
        bar.advance(10)
        bar.extend(30)
        bar.advance(10)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("posterior: 100%")
    assert second.startswith("posterior: 50%")


def test_a_slow_speed_is_not_nought(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY", -1.0)
    with progress.Progress("mending", 10, "attempts") as bar:
        later = progress.time.monotonic() + 20
        monkeypatch.setattr(progress.time, "monotonic", lambda: later)
        bar.advance(1)
    assert "3 attempts/min" in capsys.readouterr().err


@pytest.mark.parametrize("note", ["", "epoch 197 · ELBO -88 nats", "a note that is much longer than a terminal " * 3])
@pytest.mark.parametrize("title", ["SVI", "log p(x), of many data that take long"])
def test_on_a_terminal_of_80_columns_it_is_one_line_with_the_time_that_remains(title, note):
    bar = progress.Progress(title, 1000, "steps")
    bar._console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with bar:
        bar.advance(300, note)
        shown = Console(file=io.StringIO(), width=80)
        shown.print(bar._bar.get_renderable())
    (line,) = shown.file.getvalue().splitlines()
    assert line.startswith(title)
    assert re.search(r"(\d+|-):(\d\d|--):(\d\d|--) left", line)
    assert len(line) <= 80
