"""The order of the steps of mending: that of the causes that the attribution of the gap names."""

import pytest

from ppvae.inference.mending.mending_plan import PlannedStep, as_asked, ordered


def parts(errors=0.001, **values):
    found = {"amortisation": 0.0, "covariance": 0.0, "flow": 0.0, "rest": 0.0} | values
    return found | {f"{name}_standard_error": errors for name in list(found)}


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ({"amortisation": 3.0}, ["more steps", "correction", "gradient steps"]),
        ({"covariance": 3.0, "amortisation": 1.0}, ["full covariance", "more steps", "correction", "gradient steps"]),
        ({"flow": 0.5, "covariance": 0.2}, ["flow", "full covariance", "more steps"]),
        ({"rest": 0.7}, ["mixture", "more steps"]),
        ({}, ["more steps"]),
    ],
)
def test_steps_come_in_the_order_of_the_parts(values, first):
    assert [step.name for step in ordered(parts(**values), True)] == first


def test_a_part_whose_error_is_large_is_not_left_out():
    names = [step.name for step in ordered(parts(errors=0.01, amortisation=1.0), False)]
    assert names == ["more steps", "correction", "full covariance", "flow", "mixture"]  # and no gradient steps


def test_what_was_asked_for_comes_as_it_was_asked_for():
    plan = as_asked(("flow", "correction"), True, [])
    assert [(step.name, step.reason) for step in plan] == [
        ("warm-up", "the model may be trained"),
        ("flow", "asked for"),
        ("correction", "asked for"),
    ]
    assert as_asked(None, False, [PlannedStep("flow", "why")]) == [PlannedStep("flow", "why")]
