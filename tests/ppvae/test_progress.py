"""The lines of progress where there is no terminal: one each, whatever its length."""

import pytest

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
