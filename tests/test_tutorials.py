"""The tutorials run from their first cell to their last, and still say what they are stored as saying."""

import copy
import re

import notebook
import pytest
import torch

NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["write_your_own_pair", "analyse_a_posterior"])
def test_a_tutorial_runs_and_shows_what_is_stored(repository, name):
    import matplotlib

    matplotlib.use("Agg")
    torch.set_default_dtype(torch.float32)  # what a reader has; the fixture puts it back
    stored = notebook.read(repository / "docs" / "tutorials" / f"{name}.ipynb")
    fresh = copy.deepcopy(stored)
    notebook.run(fresh)
    for before, after in zip(notebook.code_cells(stored), notebook.code_cells(fresh), strict=True):
        words = [re.sub(rf"\s+|{NUMBER}", "", notebook.text_of(cell)) for cell in (before, after)]
        assert words[0] == words[1]
        assert len(notebook.figures_of(before)) == len(notebook.figures_of(after))
        assert "/" + "work" not in words[1]
