"""every_pair: a row and a table of rows; one pair from end to end."""

import json

import pytest
import torch

from ppvae.experiments.every_pair import measure, table


def test_steps_without_numbers_are_named_below_the_table(tmp_path):
    row = measure("NoSuchPair", tmp_path)
    assert list(row["failed"]) == ["run"]
    shown = table([row])
    assert shown.splitlines()[2].startswith("| NoSuchPair | – | – |")
    assert "- `NoSuchPair`, run: " in shown
    assert json.loads((tmp_path / "NoSuchPair.json").read_text())["page"] is False


@pytest.mark.slow
def test_a_pair_from_training_to_the_page(tmp_path):
    torch.set_default_dtype(torch.float32)
    row = measure("FactorAnalysis", tmp_path, short=True)
    assert row["failed"] == {}
    assert row["page"]
    assert {"posterior", "log_likelihood"} <= set(row["arviz"])
    assert row["elbo"] <= row["log_evidence"] + 0.1
    assert "| FactorAnalysis | breast_cancer |" in table([row])
