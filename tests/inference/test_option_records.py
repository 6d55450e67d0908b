"""The records of options: what a function of each of them uses, no more, checked when they are made."""

import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch

from ppvae.errors import OptionError
from ppvae.inference import Annealing, Attempts, DrawsFrom, Optimiser, Sampling

KINDS = (Annealing, Attempts, DrawsFrom, Optimiser, Sampling)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Optimiser, {"num_particles": 0}, "num_particles must be an integer of at least 1; it is 0"),
        (Optimiser, {"steps": 0}, "steps must be an integer of at least 1; it is 0"),
        (Optimiser, {"learning_rate": -1.0}, "learning_rate must be a positive number; it is -1.0"),
        (Optimiser, {"tolerance": math.nan}, "tolerance must be a positive number of nats; it is nan"),
        (Annealing, {"num_steps": -1}, "num_steps must be an integer of at least 1; it is -1"),
        (Annealing, {"start": "posterior"}, "start must be one of 'guide', 'prior'; it is 'posterior'"),
        (Annealing, {"schedule": "cosine"}, "schedule must be one of 'adaptive', 'sigmoid', 'linear'; it is 'cosine'"),
        (Sampling, {"num_twins": -1}, "num_twins must be an integer of at least 0; it is -1"),
        (Sampling, {"num_chains": 0}, "num_chains must be an integer of at least 1; it is 0"),
        (Sampling, {"max_distributions": 2.5}, "max_distributions must be an integer of at least 1; it is 2.5"),
        (Sampling, {"num_steps": True}, "num_steps must be an integer of at least 1; it is True"),
        (Sampling, {"start": "posterior"}, "start must be one of 'guide', 'prior'; it is 'posterior'"),
        (Attempts, {"rounds": 0}, "rounds must be an integer of at least 1; it is 0"),
        (Attempts, {"standard_errors": 0}, "standard_errors must be a positive number; it is 0"),
        (DrawsFrom, {"source": "hmc"}, "source must be one of 'guide', 'psis', 'exact'; it is 'hmc'"),
        (DrawsFrom, {"num_draws": 0}, "num_draws must be an integer of at least 1; it is 0"),
        (DrawsFrom, {"num_chains": 2.0}, "num_chains must be an integer of at least 1; it is 2.0"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(kind, options, message):
    for make in (kind, lambda **changes: replace(kind(), **changes)):
        with pytest.raises(OptionError) as found:
            make(**options)
        assert str(found.value) == f"{message}."


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_any_library_are_kept_as_plain_ones(kind):
    plain = kind()
    for field in fields(kind):
        value = getattr(plain, field.name)
        if value is None or isinstance(value, str):
            continue
        for number in (np.array(value), torch.tensor(value, dtype=torch.float64 if value < 1 else None)):
            made = kind(**{field.name: number})
            assert type(getattr(made, field.name)) is type(value)
            assert made == plain
            assert hash(made) == hash(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_never_changes_and_has_no_other_fields(kind):
    record = kind()
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(kind)[0].name, "prior")
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_dimensions'"):
        kind(num_dimensions=3)
