"""What columns are for: labels, context, splits; duplicates over a split, pictures of bytes, standardisation."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppvae.datasets import Split, load_dataset, program_arguments
from ppvae.errors import DataError, OptionError
from ppvae.inference import TrainedPair, estimate_evidence, importance_evidence, to_datatree
from ppvae.inference.evidence import shifted
from ppvae.models import LinearGaussian

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)) * [1, 20, 0.1] + [5, 0, -3]
    words = rng.choice(["oak", "elm", "ash"], 120, p=[0.7, 0.2, 0.1])
    return pd.DataFrame(x, columns=["a", "b", "c"]).assign(kind=words, number=range(120))


def test_labels_and_context_stay_with_their_rows(frame):
    data = load_dataset(frame, label_column="kind", context_columns=["number"])
    assert (data.columns, data.label_names) == (("a", "b", "c"), ("ash", "elm", "oak"))
    for part in PARTS:
        x, number = data.batch(part)
        rows = frame.iloc[number.tolist()]
        np.testing.assert_array_equal(x, rows[["a", "b", "c"]])
        assert data.label_words(part) == rows["kind"].tolist()
    whole = data.undivided()
    assert whole.label_words("train") == frame["kind"].tolist()
    np.testing.assert_array_equal(whole.train, frame[["a", "b", "c"]])


def test_text_is_a_context_of_codes_and_the_data_set_says_which(frame):
    data = load_dataset(frame, context_columns="kind", drop_columns="number")
    assert data.notes == ("the context column 'kind' is given to the programs as numbers: ash 0, elm 1, oak 2.",)
    values = data.context[0].values
    assert values.dtype == torch.int64
    assert [("ash", "elm", "oak")[i] for i in values.tolist()] == frame["kind"].tolist()


def test_a_label_may_be_context_too(frame):
    data = load_dataset(frame, label_column="kind", context_columns=["kind"], drop_columns=["number"])
    assert [("ash", "elm", "oak")[i] for i in data.batch("test")[1].tolist()] == data.label_words("test")


def test_a_torch_label_is_a_label_and_context_where_it_is_asked_for():
    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, i):
            return torch.full((1, 2, 2), float(i)), i % 3

    data = load_dataset(Pictures())
    assert data.event_shape == (1, 2, 2)
    assert data.context == ()
    for part in PARTS:
        assert data.label_words(part) == [f"{i % 3:g}" for i in getattr(data, part)[:, 0]]
    asked = load_dataset(Pictures(), context_columns=["label"])
    x, label = asked.batch("train")
    assert torch.equal(label, (x[:, 0] % 3).long())
    assert asked.labels is None


def test_fractions_are_met_and_each_datum_is_in_one_part(frame):
    data = load_dataset(frame, drop_columns=["kind", "number"], split=(0.5, 0.25, 0.25))
    assert [len(getattr(data, part)) for part in PARTS] == [60, 30, 30]
    assert sorted(torch.cat([data.rows[part] for part in PARTS]).tolist()) == list(range(120))


def test_each_class_has_its_share_of_each_part(frame):
    split = Split((0.5, 0.25, 0.25), stratify="kind")
    data = load_dataset(frame, label_column="kind", drop_columns=["number"], split=split)
    counts = frame["kind"].value_counts()
    for part, share in zip(PARTS, (0.5, 0.25, 0.25), strict=True):
        words = data.label_words(part)
        assert all(abs(words.count(name) - share * n) <= 2 for name, n in counts.items())
    assert sorted(torch.cat([data.rows[part] for part in PARTS]).tolist()) == list(range(120))
    other = load_dataset(frame, label_column="kind", drop_columns=["number"], split=split, seed=1)
    assert not torch.equal(other.rows["test"], data.rows["test"])


def test_a_column_and_files_divide_the_data(frame):
    words = ["train"] * 80 + ["Test"] * 20 + ["val"] * 20
    data = load_dataset(frame.assign(part=words), drop_columns=["kind", "number"], split="part")
    assert [data.rows[part].tolist() for part in PARTS] == [
        list(range(80)),
        list(range(100, 120)),
        list(range(80, 100)),
    ]
    parts = {"train": frame[:80], "test": frame[80:][["number", "kind", "c", "b", "a"]]}
    data = load_dataset(parts, label_column="kind", drop_columns=["number"])
    np.testing.assert_array_equal(data.test, frame[80:][["a", "b", "c"]])
    assert data.label_words("test") == frame["kind"][80:].tolist()
    assert [len(getattr(data, part)) for part in PARTS] == [72, 8, 40]
    with pytest.raises(DataError, match="names no test data"):
        load_dataset(frame.assign(part="train"), drop_columns=["kind", "number"], split="part")
    with pytest.raises(OptionError, match="leave stratify out"):
        Split(column="part", stratify="kind")


def test_duplicates_over_the_split_are_counted():
    x = np.arange(300.0).reshape(100, 3) / 7
    x[5, 0] = np.nan
    data = load_dataset({"train": x[:80], "validation": x[:3], "test": np.concatenate([x[3:8], x[80:]])})
    assert data.duplicates == {"validation": 3, "test": 5}
    assert "5 of the 25 test data, and 3 of the validation data stand among the training data" in data.leakage
    assert load_dataset(x).leakage == ""


def test_pictures_of_bytes_are_counts_or_zeros_and_ones():
    pictures = np.random.default_rng(0).integers(0, 256, (200, 4, 4), dtype=np.uint8)
    data = load_dataset(pictures)
    assert (data.total_count, data.event_shape) == (255, (4, 4))
    assert "Binomial(255)" in data.notes[0]
    binary = data.binarised()
    assert (binary.binarise, binary.total_count) == (True, None)
    torch.testing.assert_close(binary.train * 255, data.train)
    assert set(binary.test.unique().tolist()) == {0.0, 1.0}
    grey = data.test / 255
    error = (binary.test - grey).mean() / (grey * (1 - grey)).sum().sqrt() * grey.numel()
    assert abs(error) < 4  # a false alarm in 16 000 seeds
    assert load_dataset(pictures // 128).total_count is None
    assert program_arguments(torch.from_numpy(pictures))[0].dtype == torch.get_default_dtype()


# --- standardisation against closed forms -----------------------------------------------------------------------------


@pytest.fixture
def exact(frame):
    """A pair for standardised data, and the normal distribution that it is of the data in their own units."""
    torch.manual_seed(0)
    data = load_dataset(frame[["a", "b", "c"]], standardise=True)
    pair = LinearGaussian(3, 2).double()
    pair.set_exact_guide()
    units = data.standardisation
    with torch.no_grad():
        covariance = pair.weight @ pair.weight.T + torch.diag((2 * pair.log_noise_scale).exp().expand(3))
        loc = pair.bias * units.scale + units.mean
        covariance = units.scale[:, None] * covariance * units.scale
    return data, pair, torch.distributions.MultivariateNormal(loc, covariance)


def test_the_training_data_have_mean_0_and_standard_deviation_1(exact, frame):
    data, *_ = exact
    torch.testing.assert_close(data.train.mean(0), torch.zeros(3))
    torch.testing.assert_close(data.train.std(0, correction=0), torch.ones(3))
    own = data.standardisation.undo(data.test)
    np.testing.assert_allclose(own, frame[["a", "b", "c"]].to_numpy()[data.rows["test"]], rtol=1e-12)


def test_log_p_of_x_is_that_of_the_normal_distribution_in_its_own_units(exact):
    data, pair, truth = exact
    x = data.standardisation.undo(data.test)
    evidence = importance_evidence(pair.model, pair.guide, data.test, 50, seed=0)
    moved = shifted(evidence, data.standardisation.log_jacobian(data.test))
    torch.testing.assert_close(moved.log_evidence, truth.log_prob(x))
    torch.testing.assert_close(moved.elbo, truth.log_prob(x))  # the guide is exact
    torch.testing.assert_close(moved.gap, evidence.gap)
    trained = TrainedPair(pair.model, pair.guide, (data.train,)).in_units(data.standardisation)
    found = trained.log_prob(x, seed=0)
    torch.testing.assert_close(found.log_evidence, truth.log_prob(x))
    inside = estimate_evidence(pair.model, pair.guide, data.test, seed=0)
    torch.testing.assert_close(found.standard_error, inside.standard_error)


def test_draws_for_arviz_have_the_densities_and_the_data_of_the_file(exact):
    data, pair, truth = exact
    x = data.standardisation.undo(data.test)
    trained = TrainedPair(pair.model, pair.guide, (data.train,)).in_units(data.standardisation)
    tree = trained.to_datatree(x, seed=0)
    stats = {name: torch.tensor(values.to_numpy()) for name, values in tree["sample_stats"].items()}
    known = truth.log_prob(x).expand_as(stats["log_weight"])
    torch.testing.assert_close(stats["log_weight"], known)  # the guide is exact, and so is every weight
    torch.testing.assert_close(stats["log_p"] - stats["log_q"], known)
    z = torch.tensor(tree["posterior"]["z"].to_numpy())
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(torch.tensor(tree["log_likelihood"]["x"].to_numpy()) + prior, stats["log_p"])
    torch.testing.assert_close(torch.tensor(tree["observed_data"]["x"].to_numpy()), x)
    drawn = torch.tensor(tree["prior_predictive"]["x"].to_numpy()).flatten(0, -2)
    error = (drawn.mean(0) - truth.mean) / (truth.variance / len(drawn)).sqrt()
    assert error.abs().max() < 4.2  # three columns: a false alarm in 12 000 seeds


def test_missing_values_have_no_part_in_the_jacobian(exact):
    units = exact[0].standardisation
    x = torch.tensor([[1.0, torch.nan, 2.0]])
    torch.testing.assert_close(units.log_jacobian(x), -(units.scale[0].log() + units.scale[2].log())[None])


def test_samples_and_reconstructions_come_in_the_units_of_the_data(exact):
    data, pair, truth = exact
    trained = TrainedPair(pair.model, pair.guide, (data.train,)).in_units(data.standardisation)
    drawn = trained.sample(4000, seed=0)
    error = (drawn.mean(0) - truth.mean) / (truth.variance / 4000).sqrt()
    assert error.abs().max() < 4.2  # three columns: a false alarm in 12 000 seeds
    torch.testing.assert_close(drawn.var(0) / truth.variance, torch.ones(3), atol=0.1, rtol=0)
    x = data.standardisation.undo(data.test)
    inside = TrainedPair(pair.model, pair.guide, (data.train,)).reconstruct(data.test, seed=0)
    found = trained.reconstruct(x, seed=0)
    scale, mean = data.standardisation.scale, data.standardisation.mean
    torch.testing.assert_close(found.mean, inside.mean * scale + mean)
    torch.testing.assert_close(found.standard_deviation, inside.standard_deviation * scale)
    torch.testing.assert_close(trained.embed(x).matrix, trained.in_units(None).embed(data.test).matrix)


def test_zeros_and_ones_are_left_as_they_are(frame):
    table = frame[["a", "b"]].assign(flag=(frame["c"] > -3).astype(float))
    data = load_dataset(table, standardise=True)
    assert (data.standardisation.mean[2], data.standardisation.scale[2]) == (0, 1)
    assert "but for 1 columns of zeros and ones" in data.notes[-1]


def test_the_columns_of_a_table_name_a_dim_for_arviz(exact, frame):
    _, pair, _ = exact
    tree = to_datatree(pair.model, pair.guide, frame[["a", "b", "c"]][:5], predictive=False, seed=0)
    observed = tree["observed_data"]["x"]
    assert observed.dims == ("datum", "column")
    assert observed.coords["column"].to_numpy().tolist() == ["a", "b", "c"]
