"""gallery: its smallest size."""

import pytest
import torch

from ppvae.experiments.gallery import PICTURES, SMALL, Config, run


@pytest.fixture(autouse=True)
def single_precision():
    torch.set_default_dtype(torch.float32)


def test_the_smallest_size_runs():
    result = run(SMALL)
    assert [row["pair"] for row in result.rows] == list(SMALL.pairs)
    assert set(result.figures) == set(SMALL.pairs)


@pytest.mark.slow
def test_every_pair_has_a_picture():
    assert set(run(Config(epochs=1)).figures) == set(PICTURES)
