"""The programs of the how-to pages run, block after block, as a reader would run them."""

import re
import warnings

import pytest
import torch

PAGES = [
    "bring_your_data",
    "choose_an_estimator",
    "choose_an_objective",
    "fix_collapse",
    "follow_a_training",
    "mend_a_guide",
    "missing_values",
    "shared_latents",
    "train_on_several_processes",
    "use_a_cluster",
    "use_a_trained_pair",
    "write_a_pair",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page_run(repository, name, capsys):
    if name == "use_a_cluster":
        pytest.importorskip("distributed")
    torch.set_default_dtype(torch.float32)  # what a reader has; the fixture puts it back
    page = (repository / "docs" / "how_to" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    scope = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(compile(block, f"{name}.md", "exec"), scope)
    assert capsys.readouterr().out
