"""HI-VAE: kinds of columns, what is refused, and probabilities that sum to one; its evidence is in the laws."""

import pytest
import torch

from ppvae.datasets import load_dataset
from ppvae.errors import DataError, OptionError
from ppvae.models import HIVAE

NAN = torch.nan


def made(x, kinds=None):
    torch.manual_seed(0)
    return HIVAE.for_data(torch.tensor(x), kinds, latent_dim=2, hidden=(4,))


def test_kinds_are_read_off_the_columns():
    x = [[-0.5, 0.5, 12.0, 0.0], [1.0, NAN, 0.0, 3.0], [NAN, 2.0, 4.0, 1.0]]
    pair = made(x)
    assert pair.kinds == ("real", "positive", "count", "categorical")
    assert pair.num_levels[3] == 4
    diabetes = HIVAE.for_data(load_dataset("diabetes_missing").train).kinds
    assert diabetes[0] == diabetes[-1] == "count"
    assert diabetes[1] == "categorical"
    assert diabetes[2] == diabetes[3] == "positive"


def test_levels_of_every_discrete_column_sum_to_one():
    x = [[0.0, 3.0, 1.0], [2.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    pair = made(x, ("ordinal", "ordinal", "categorical"))
    z, s = torch.randn(50, 2), torch.randint(0, 3, (50,))
    for kind, features in pair.decode(z, s).items():
        for column, L in zip(range(features.batch_shape[-1]), pair.levels[kind], strict=True):
            p = features.probs[:, column]
            assert torch.allclose(p[:, :L].sum(-1), torch.ones(50))
            assert (p[:, L:] == 0).all()
            assert (p[:, :L] > 0).all()


def test_far_out_levels_keep_a_finite_probability():
    pair = made([[0.0], [2.0], [1.0]], ("ordinal",))
    with torch.no_grad():
        pair.decoder.output_bias.fill_(500.0)
        logits = pair.decode(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))["ordinal"].logits
    assert logits.isfinite().all()
    assert logits[0, 0].argmax() == 2


def test_what_does_not_fit_is_said():
    with pytest.raises(DataError, match="column 1 of x is positive"):
        made([[1.0, -1.0]], ("real", "positive"))
    with pytest.raises(DataError, match="whole numbers from 0"):
        made([[1.0, 0.5]], ("real", "count"))
    with pytest.raises(DataError, match="no values at all"):
        made([[1.0, NAN]])
    with pytest.raises(OptionError, match="kinds"):
        made([[1.0, 2.0]], ("real", "integer"))
    with pytest.raises(OptionError, match="3 entries"):
        made([[1.0, 2.0]], ("real", "real", "real"))
