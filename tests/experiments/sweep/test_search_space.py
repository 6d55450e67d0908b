"""The configuration of a sweep: ranges in place of values, and what is refused."""

import pytest

from ppvae.errors import OptionError
from ppvae.experiments.sweep.search_space import Range, SearchSpace

GOOD = """
data: digits
epochs: 5
learning_rate: {low: 1e-4, high: 1e-2, log: true}
pair_args:
  latent_dim: {low: 2, high: 20}
  hidden: {choices: [[50], [200, 200]]}
  weight: 3
"""


class Suggests:
    """Takes the first of every range, as Optuna's trial would be asked."""

    def suggest_categorical(self, name, choices):
        assert all(isinstance(one, str | int | float | None) for one in choices)
        return choices[-1]

    def suggest_int(self, name, low, high, log):
        return low

    def suggest_float(self, name, low, high, log):
        return low if log else high


def space(tmp_path, text):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return SearchSpace.read(file)


def test_ranges_stand_in_place_of_values(tmp_path):
    found = space(tmp_path, GOOD)
    assert found.fixed == {"data": "digits", "epochs": 5, "pair_args": {"weight": 3}}
    assert found.ranges == (
        Range("learning_rate", 1e-4, 1e-2, True),
        Range("pair_args.latent_dim", 2, 20),
        Range("pair_args.hidden", choices=([50], [200, 200])),
    )
    values = {one.name: one.suggested(Suggests()) for one in found.ranges}
    assert values == {"learning_rate": 1e-4, "pair_args.latent_dim": 2, "pair_args.hidden": [200, 200]}
    settings = found.settings(values)
    assert (settings.learning_rate, settings.epochs) == (1e-4, 5)
    assert settings.pair_args == {"weight": 3, "latent_dim": 2, "hidden": [200, 200]}
    assert found.settings({}).pair_args == {"weight": 3}  # and is not changed by the other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "holds no options"),
        ("{", "cannot be read"),
        ("epochs: 5", "has no range"),
        ("learning_rat: {low: 1, high: 2}", "did you mean learning_rate"),
        ("learning_rate: {low: 1}", "low and high"),
        ("learning_rate: {low: 2, high: 1}", "low < high"),
        ("learning_rate: {low: 0, high: 1, log: true}", "above 0"),
        ("learning_rate: {low: a, high: 1}", "numbers"),
        ("learning_rate: {low: .nan, high: 1}", "numbers"),
        ("learning_rate: {low: 1, high: 2, step: 3}", "low and high"),
        ("batch_size: {choices: [3]}", "two choices"),
        ("data: {choices: [digits, mnist]}", "same in all trials"),
        ("max_eval: {low: 1, high: 2}", "same in all trials"),
        ("epochs: much\nlearning_rate: {low: 1, high: 2}", "epochs"),
        ("epochs: 0\nlearning_rate: {low: 1, high: 2}", "epochs"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path, text, said):
    with pytest.raises(OptionError) as error:
        space(tmp_path, text)
    assert said.replace("did you mean learning_rate", "did you mean 'learning_rate'") in str(error.value)
