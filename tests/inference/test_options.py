"""Bad values for every argument of every public function, and every field of a record of options, are refused in a
sentence that names the argument or the field."""

import random
from itertools import groupby

import bad_arguments
import numpy as np
import pyro
import pytest
import torch
from bad_arguments import ABOUT_THE_PAIR, Case, data, guide, is_raw, model, outcome

from ppvae.errors import OptionError
from ppvae.inference import attribute_gap, fit, importance_evidence, log_weights
from ppvae.inference.options import (
    MOST_SEED,
    file_path,
    flag,
    not_negative,
    number_between,
    one_of,
    positive_number,
    valid_seed,
    whole_number,
)

CASES = list(bad_arguments.cases())
BY_ARGUMENT = {key: list(some) for key, some in groupby(CASES, lambda case: (case.function, case.argument))}


def test_at_least_nine_hundred_bad_values_are_tried():
    assert len(CASES) >= 900
    assert len(set(CASES)) == len(CASES)
    assert {case.function for case in CASES} == {*bad_arguments.public_functions(), *bad_arguments.option_records()}
    assert bad_arguments.option_records() == ["Annealing", "Attempts", "Compute", "DrawsFrom", "Optimiser", "Sampling"]


def test_what_takes_the_bad_values_runs_with_good_ones():
    for function in ("log_weights", "column_stability", "simulate", "fit", "check", "sample", "decode", "interpolate"):
        case = Case(function, "", "")
        getattr(bad_arguments.inference, function)(**case.good_arguments())


def _state():
    """All that a refused call must leave as it was."""
    store = {name: value.tolist() for name, value in pyro.get_param_store().items()}
    keys = np.random.get_state()[1]  # noqa: NPY002
    return store, torch.get_rng_state().tolist(), keys.tolist(), random.getstate()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("function", "argument"), BY_ARGUMENT)
def test_a_bad_value_is_refused_in_a_sentence(function, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pyro.param("loc", torch.tensor(0.25))
    before = _state()
    for case in BY_ARGUMENT[function, argument]:
        error = outcome(case)
        assert not is_raw(error), (case, error)
        assert len(str(error).splitlines()) == 1, (case, error)
        assert argument in str(error) or case.value in ABOUT_THE_PAIR, (case, error)
        assert _state() == before, case
    assert list(tmp_path.iterdir()) == []


# --- the validators ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("five", [5, np.int64(5), np.uint8(5), np.array(5), torch.tensor(5)])
def test_whole_numbers_of_any_library_are_whole_numbers(five):
    assert type(whole_number("num", five)) is int
    assert whole_number("num", five) == valid_seed(five) == 5
    assert type(positive_number("num", five)) is float


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_real_numbers_of_any_library_are_real_numbers(half):
    assert positive_number("num", half) == number_between("num", half, 0, 1) == not_negative("num", half) == 0.5
    with pytest.raises(OptionError, match="num must be an integer of at least 1; it is"):
        whole_number("num", half)


@pytest.mark.parametrize("true", [True, np.True_, torch.tensor(True)])
def test_a_bool_is_a_flag_and_no_number(true):
    assert flag("progress", true) is True
    for validator in (whole_number, positive_number, not_negative):
        with pytest.raises(OptionError, match="num must be"):
            validator("num", true)


def test_the_limits_belong_to_what_is_allowed_or_not():
    assert whole_number("num", 10**9) == 10**9
    assert (valid_seed(0), valid_seed(MOST_SEED), valid_seed(None)) == (0, 2**32 - 1, None)
    assert not_negative("num", 0) == 0.0
    assert not_negative("num", float("inf")) == float("inf")
    for value in (0, 1):
        with pytest.raises(OptionError, match="num must lie between 0 and 1"):
            number_between("num", value, 0, 1)


def test_a_sentence_says_what_was_given_and_the_way_out():
    with pytest.raises(OptionError) as found:
        one_of("family", "fuller", ["guide", "full"])
    assert str(found.value) == "family must be one of 'guide', 'full'; it is 'fuller'."
    with pytest.raises(OptionError) as found:
        whole_number("budget", torch.zeros(2, 3), 100, "evaluations per datum")
    assert str(found.value) == (
        "budget must be an integer of at least 100 evaluations per datum; it is a tensor of shape (2, 3)."
    )


def test_a_path_is_that_of_a_file(tmp_path):
    assert file_path("checkpoint", None) is None
    assert file_path("checkpoint", str(tmp_path / "a.pt")) == file_path("checkpoint", tmp_path / "a.pt")
    with pytest.raises(OptionError, match="is a folder: give a file in it"):
        file_path("checkpoint", tmp_path)


# --- numbers of other libraries give the same results --------------------------------------------------------------


def test_numpy_numbers_give_what_plain_numbers_give():
    plain = log_weights(model, guide, data(), 5, seed=3, memory_mb=2.0)
    assert log_weights(model, guide, data(), np.int64(5), seed=torch.tensor(3), memory_mb=np.float32(2)).equal(plain)


def test_a_call_can_be_mended():
    evidence = importance_evidence(model, guide, data(), 50, seed=0)
    with pytest.raises(OptionError, match="evidence must be the record of an estimator of evidence"):
        attribute_gap(model, guide, data(), evidence=evidence.log_evidence)
    with pytest.raises(OptionError, match="loss must be an ELBO object"):
        fit(model, guide, data(), loss=pyro.infer.Trace_ELBO)
    with pytest.raises(OptionError, match=r"optimizer must make a torch Optimizer; what it makes is None"):
        fit(model, guide, data(), optimizer=lambda params, lr: None)
