"""The step of a fused Adam without the Python around it: the same bits as torch's own step, or that step itself."""

import copy

import pytest
import torch
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR

from ppvae.inference.svi import adam

OPTIONS = [
    (Adam, {}),
    (Adam, {"weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-6}),
    (Adam, {"maximize": True, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    (Adam, {"amsgrad": True}),
    (Adam, {"foreach": True}),
    (Adam, {"lr": torch.tensor(0.02)}),
    (AdamW, {}),
    (SGD, {"momentum": 0.9}),
]


def values(dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=generator, dtype=dtype).requires_grad_() for size in (3, 40, 2)]


def optimizers(kind, options, dtype=torch.float64):
    """Two alike, each with two groups of parameters of its own."""
    made = []
    for _ in range(2):
        first, *others = values(dtype)
        made.append(
            kind([{"params": [first]}, {"params": others, "lr": 0.05}], **{"lr": 0.01, **copy.deepcopy(options)})
        )
        adam.fuse(made[-1])
    return made


def parameters(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def give_gradients(optimizer, seed):
    """The last parameter has none now and then."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters(optimizer):
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    if seed % 3 == 0:
        parameters(optimizer)[-1].grad = None


def assert_same_steps(one, other, steps=7):
    for seed in range(steps):
        for optimizer in (one, other):
            give_gradients(optimizer, seed)
        adam.adam_step(one)
        other.step()
        for ours, theirs in zip(parameters(one), parameters(other), strict=True):
            assert torch.equal(ours, theirs)
    for ours, theirs in zip(parameters(one), parameters(other), strict=True):
        for name, value in other.state[theirs].items():
            assert torch.equal(torch.as_tensor(one.state[ours][name]), torch.as_tensor(value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_its_step_is_torchs_to_the_bit(kind, options, dtype):
    assert_same_steps(*optimizers(kind, options, dtype))


def test_a_state_that_was_loaded_goes_on():
    one, other = optimizers(Adam, {})
    assert_same_steps(one, other)
    saved = copy.deepcopy(one.state_dict())
    for optimizer in (one, other):
        optimizer.load_state_dict(copy.deepcopy(saved))
    assert_same_steps(one, other)


@pytest.mark.parametrize(
    ("watch", "left_out"),
    [
        (lambda optimizer: None, True),
        (lambda optimizer: optimizer.register_step_post_hook(lambda *_: None), False),
        (lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.5), False),
    ],
)
def test_torchs_own_step_is_left_out_only_where_nobody_hears_of_it(watch, left_out, monkeypatch):
    optimizer, _ = optimizers(Adam, {})
    for seed in (1, 2):  # the first makes the state
        give_gradients(optimizer, seed)
        optimizer.step()
    watch(optimizer)
    monkeypatch.setattr(Adam, "_init_group", lambda *args: pytest.fail("torch's own step"))
    if left_out:
        adam.adam_step(optimizer)
    else:
        with pytest.raises(pytest.fail.Exception):
            adam.adam_step(optimizer)
