"""Two runs are paired on the data that both have measured."""

import numpy as np

from ppvae.report.pairing import on_the_same


def test_data_that_both_measured_are_met_whatever_their_order_and_number():
    a, b = {"elbo": np.array([10.0, 20.0, 30.0])}, {"elbo": np.array([41.0, 31.0])}
    one, other = on_the_same([a, b], [np.array([1, 2, 3]), np.array([4, 3])])
    assert one["elbo"].tolist() == [30.0]
    assert other["elbo"].tolist() == [31.0]


def test_no_data_in_common_are_no_pairs():
    values = [{"elbo": np.zeros(1)}, {"elbo": np.zeros(1)}]
    assert on_the_same(values, [np.array([1]), np.array([2])]) is None


def test_files_that_do_not_say_which_data_they_are_of_must_have_as_many():
    same = [{"elbo": np.zeros(2)}, {"elbo": np.ones(2)}]
    assert on_the_same(same, [None, np.array([0, 1])]) is same
    assert on_the_same([{"elbo": np.zeros(2)}, {"elbo": np.ones(3)}], [None, None]) is None
