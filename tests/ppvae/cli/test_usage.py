"""Words that a command does not take: which of them is at fault, and what would be right."""

import dataclasses
from argparse import ArgumentError
from typing import Any, Literal

import pytest

from ppvae.cli.commands import COMMANDS
from ppvae.cli.parser import options_classes, parse_experiment, usage_of
from ppvae.cli.usage import Usage, accepts, described, read_words
from ppvae.errors import OptionError
from ppvae.experiments import autoencoder_vs_vae
from ppvae.experiments.autoencoder_comparison import DatasetConfig

OPTIONS = {"epochs": int, "split": Literal["test", "model"], "args": dict[str, Any], "config": str}
USAGE = Usage("look", ["run"], OPTIONS)
LIST = ": `ppvae look --help` lists them."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["r", "--epcohs", "3"],
            "there is no option --epcohs (did you mean '--epochs'?)" + LIST,
        ),
        (
            ["r", "--epcohs=3"],
            "there is no option --epcohs (did you mean '--epochs'?)" + LIST,
        ),
        (
            ["r", "--arsg.a.b", "3"],
            "there is no option --arsg (did you mean '--args'?)" + LIST,
        ),
        (["r", "s"], "'s' is no option" + LIST),
        (["--epochs", "3"], "RUN is missing: `ppvae look --help` says what it is."),
        (["r", "--epochs", "3.5"], "epochs must be a whole number; it is '3.5'."),
        (["r", "--epochs=x", "--split", "model"], "epochs must be a whole number; it is 'x'."),
        (["r", "--split", "train"], "split must be test or model; it is 'train'."),
        (
            ["r", "--epochs", "-1", "--split", "test"],
            "first line second line.",
        ),  # no fault here: the parser's own message
        (["r", "--epochs"], "first line second line."),
    ],
)
def test_the_fault_is_named(words, said):
    assert USAGE.sentence(ArgumentError(None, "first line\n  second line"), words) == said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("epcohs: 3\n", "there is no option --epcohs (did you mean '--epochs'?)" + LIST),
        ("epochs: [1]\n", "epochs must be a whole number; it is [1]."),
        ("epochs: [1\n", "as it is."),
        ("- 1\n", "as it is."),
    ],
)
def test_a_fault_in_a_config_file_is_named_too(content, said, tmp_path):
    (tmp_path / "c.yaml").write_text(content)
    assert USAGE.sentence(ArgumentError(None, "as it is"), ["r", "--config", str(tmp_path / "c.yaml")]) == said


def test_words_are_read_as_argparse_reads_them():
    plain, given = read_words(["r", "--a", "-1", "--b=x=y", "--c", "--d", "", "--help", "s"])
    assert plain == ["r", "s"]
    assert given == [("a", "-1"), ("b", "x=y"), ("c", None), ("d", ""), ("help", None)]


@pytest.mark.parametrize(
    ("kind", "good", "bad", "words"),
    [
        (int, "3", "x", "a whole number"),
        (int | None, "null", "x", "a whole number or null"),
        (float, "1e-3", "x", "a number"),
        (bool, "true", "maybe", "true or false"),
        (tuple[int, ...], "[1, 2]", "x", "a list, as in [1, 2]"),
        (Literal["a", "b", "c"], "b", "d", "a, b or c"),
        (dict[str, int], {"a": 1}, "x", "names with values, as in --pair_args.latent_dim 10"),
    ],
)
def test_a_type_is_described_and_accepts_what_it_should(kind, good, bad, words):
    assert described(kind) == words
    assert accepts(kind, good)
    assert not accepts(kind, bad)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_knows_its_arguments(name):
    usage = usage_of(name, COMMANDS[name])
    fields = {
        field.name for options in options_classes(COMMANDS[name]).values() for field in dataclasses.fields(options)
    }
    assert fields <= set(usage.options)
    assert not {"command", "words", "options", "settings"} & {*usage.options, *usage.required}


def test_records_inside_the_config_of_an_experiment_are_made():
    setting = {"dataset": "digits", "num_train": 300, "num_held_out": 200, "latent_dim": 4, "hidden": [16], "epochs": 2}
    words = ["--settings", str([setting]).replace("'", '"'), "--out", "there"]
    config, out = parse_experiment("autoencoder_vs_vae", autoencoder_vs_vae, words)
    assert out == "there"
    assert config == autoencoder_vs_vae.Config(settings=(DatasetConfig("digits", 300, 200, 4, (16,), 2),))


def test_an_experiment_refuses_other_options():
    with pytest.raises(
        OptionError, match=r"no option --sede \(did you mean '--seed'\?\): `ppvae experiment bound --help"
    ):
        parse_experiment("bound", autoencoder_vs_vae, ["--sede", "1"])


def test_a_field_without_a_default_is_given_by_position():
    from ppvae.experiments import reproduce

    config, out = parse_experiment("reproduce", reproduce, ["lsat6", "--seed", "3"])
    assert (config.row, config.seed, out) == ("lsat6", 3, "runs")
    with pytest.raises(OptionError, match="ROW is missing: `ppvae experiment reproduce --help` says what it is"):
        parse_experiment("reproduce", reproduce, [])
    with pytest.raises(OptionError, match="there is no option --row"):
        parse_experiment("reproduce", reproduce, ["--row", "lsat6"])
