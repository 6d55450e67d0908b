"""Rewrites of recorded graphs: the same numbers, held to functions of numpy in float64, and only where they hold."""

import math

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import binary_cross_entropy_with_logits

from ppvae.inference.graphs.log_products import MOST_FACTORS
from ppvae.inference.graphs.rational_tanh import rational_tanh
from ppvae.inference.graphs.rewrites import rewritten

aten = torch.ops.aten


def logits(*shape, seed=0):
    return 4 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def zeros_and_ones(*shape):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(9)) < 0.5).to(torch.get_default_dtype())


def log_bernoulli(y, x):
    y, x = y.double().numpy(), x.double().numpy()
    return x * y - np.logaddexp(0, y)


def count(graph, *targets):
    return sum(node.target in targets for node in graph.graph.nodes)


def graph_of(function, *inputs):
    return rewritten(make_fx(function)(*inputs))


# --- tanh -------------------------------------------------------------------------------------------------------------


def test_the_quotient_is_tanh_to_rounding():
    y = torch.cat([torch.linspace(-30, 30, 600_001), torch.logspace(-30, 1, 100_001)]).float()
    true = np.tanh(y.double().numpy())
    assert float((np.abs(rational_tanh(y).double().numpy() - true) / np.abs(true).clip(1e-40)).max()) < 4e-7
    assert bool((rational_tanh(-y) == -rational_tanh(y)).all())


def test_ends_of_the_line_and_what_is_no_number():
    y = torch.tensor([-math.inf, -1e30, 1e30, math.inf, math.nan], dtype=torch.float32)
    found = rational_tanh(y)
    assert found[:4].tolist() == [-1, -1, 1, 1]
    assert found[4].isnan()


@pytest.mark.parametrize(("kind", "left"), [(torch.float32, 0), (torch.float64, 1)])
def test_tanh_of_single_precision_is_written_out(kind, left):
    y = logits(50).to(kind)
    graph = graph_of(torch.tanh, y)
    assert count(graph, aten.tanh.default) == left
    torch.testing.assert_close(graph(y), y.tanh(), atol=4e-7, rtol=0)


# --- the likelihood of zeros and ones ---------------------------------------------------------------------------------


def loss(y, x):
    return binary_cross_entropy_with_logits(y, x, reduction="none")


WAYS = {
    "summed": lambda y, x: -loss(y, x).sum(-1),
    "negative": lambda y, x: (-loss(y, x)).sum(-1),
    "by its place": lambda y, x: (-loss(y, x)).sum(1),
    "an image": lambda y, x: (-loss(y, x)).reshape(len(y), -1).sum(-1),
}


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", WAYS)
def test_a_sum_of_logarithms_is_one_logarithm(way, kind):
    shape = (6, 20, 30) if way == "an image" else (6, 600)
    y, x = logits(*shape).to(kind), zeros_and_ones(*shape).to(kind)
    graph = graph_of(WAYS[way], y, x)
    assert count(graph, aten.log.default) == count(graph, aten.prod.dim_int) == 1
    found = graph(y, x)
    true = torch.from_numpy(log_bernoulli(y, x)).reshape(6, -1).sum(-1)
    assert found.dtype == kind
    torch.testing.assert_close(found.double(), true, rtol=1e-12 if kind == torch.float64 else 2e-6, atol=0)


def test_gradients_stay_those_of_the_likelihood():
    y, x = logits(6, 600), zeros_and_ones(6, 600)

    def both(y, x):
        y = y.detach().requires_grad_()
        value = WAYS["summed"](y, x)
        return value.detach(), torch.autograd.grad(value.sum(), y)[0]

    graph = graph_of(both, y, x)
    assert count(graph, aten.prod.dim_int) == 1
    torch.testing.assert_close(graph(y, x)[1], x - y.sigmoid())


def test_a_logit_that_is_no_number_stays_none_and_infinite_ones_are_as_before():
    y = torch.tensor([[0.0, math.nan], [1.0, math.inf], [2.0, -math.inf]])
    x = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    before, after = WAYS["summed"](y, x), graph_of(WAYS["summed"], y, x)(y, x)
    torch.testing.assert_close(after, before, equal_nan=True)


def test_the_largest_product_is_a_number():
    y, x = torch.zeros(2, MOST_FACTORS), torch.ones(2, MOST_FACTORS)
    graph = graph_of(WAYS["summed"], y, x)
    assert count(graph, aten.prod.dim_int) == 1
    torch.testing.assert_close(graph(y, x), torch.full((2,), -MOST_FACTORS * math.log(2)))


KEPT = {
    "more factors than a float64 holds": (lambda y, x: loss(y, x).sum(-1), (2, MOST_FACTORS + 1)),
    "a mean": (lambda y, x: loss(y, x).mean(-1), (2, 30)),
    "a sum over the rows": (lambda y, x: loss(y, x).sum(0), (2, 30)),
    "a sum with its dimension": (lambda y, x: loss(y, x).sum(-1, keepdim=True), (2, 30)),
    "a sum over two dimensions": (lambda y, x: loss(y, x).sum((-2, -1)), (2, 3, 5)),
    "each by itself": (loss, (2, 30)),
    "used twice": (lambda y, x: (lambda one: (one, one.sum(-1)))(loss(y, x)), (2, 30)),
    "masked": (lambda y, x: (x * loss(y, x)).sum(-1), (2, 30)),
}


@pytest.mark.parametrize("case", KEPT)
def test_other_logarithms_are_kept(case):
    function, shape = KEPT[case]
    y, x = logits(*shape), zeros_and_ones(*shape)
    graph = graph_of(function, y, x)
    assert count(graph, aten.prod.dim_int) == 0
    torch.testing.assert_close(graph(y, x), function(y, x))
