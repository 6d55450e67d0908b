"""Who takes a step of SVI, and how: contenders for :mod:`ppvae.experiments.bench`.

All train the 784-200-200-50 tanh VAE by Adam on the same data in the same batches. Each returns the seconds of its
steps alone: reading programs and compiling come once in a training. NumPyro runs where it is installed (``pip install
'ppvae[peers]'``), its steps rolled into one ``lax.scan``.
"""

from __future__ import annotations

import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pyro
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from pyro.optim import PyroOptim
from torch import Tensor

from ppvae.inference import fit
from ppvae.models import VAE, Bernoulli

LATENT, HIDDEN = 50, 200


def vae_for(x: Tensor) -> VAE:
    """The VAE that all of the bench works on."""
    return VAE.for_data(x, Bernoulli(), latent_dim=LATENT, hidden=(HIDDEN, HIDDEN))


def trainers(x: Tensor, batch_size: int, compiled: bool) -> dict[str, Callable[[], float]]:
    """Who takes a step for every batch of the data, and how; the first is ours.

    Args:
        x: binary data, `(num_data, 784)`.
        batch_size: data in a step.
        compiled: with those that compile, which takes each of them half a minute once.
    """
    train = partial(fit, epochs=1, batch_size=batch_size, progress=False)
    ours, theirs, plain, fused = (vae_for(x) for _ in range(4))
    names: dict[str, Callable[[], float]] = {
        "ppvae.inference.fit": lambda: train(ours.model, ours.guide, x, compile=False).seconds,
    }
    if compiled:
        names["ppvae.inference.fit, compiled"] = lambda: train(ours.model, ours.guide, x, compile=True).seconds
    names["pyro.infer.SVI"] = partial(_pyro_steps, theirs, x, batch_size, Trace_ELBO)
    names["pyro.infer.SVI, JitTrace_ELBO"] = partial(_pyro_steps, theirs, x, batch_size, JitTrace_ELBO)
    if compiled and importlib.util.find_spec("numpyro") is not None:
        names["numpyro, lax.scan"] = _numpyro_steps(x, batch_size)
    if compiled:
        optimizer = torch.optim.Adam(fused.parameters(), lr=1e-3, fused=True)
        loss = torch.compile(partial(_torch_loss, fused))
        names["plain torch, compiled"] = partial(_torch_steps, loss, optimizer, x, batch_size)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    names["plain torch"] = partial(_torch_steps, partial(_torch_loss, plain), optimizer, x, batch_size)
    return names


def torch_log_w(pair: VAE, x: Tensor, num_particles: int) -> Tensor:
    """log w by hand, up to the constants of the Gaussians, which cancel."""
    loc, scale = pair.encode(x)
    noise = torch.randn(num_particles, *loc.shape)
    z = loc + scale * noise
    logits = pair.decoder(z)
    log_likelihood = (x * logits - torch.nn.functional.softplus(logits)).sum(-1)
    return log_likelihood + (0.5 * noise.square() - 0.5 * z.square() + scale.log()).sum(-1)


def _torch_loss(pair: VAE, x: Tensor) -> Tensor:
    return -torch_log_w(pair, x, 1).mean()


def _torch_steps(loss: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, x: Tensor, size: int) -> float:
    started = time.perf_counter()
    for batch in x.split(size):
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
    return time.perf_counter() - started


def _pyro_steps(pair: VAE, x: Tensor, batch_size: int, elbo: Callable[[], Any]) -> float:
    pyro.clear_param_store()
    svi = SVI(pair.model, pair.guide, PyroOptim(torch.optim.Adam, {"lr": 1e-3}), elbo())
    with warnings.catch_warnings():  # torch.jit is deprecated, and traces Python values
        warnings.simplefilter("ignore")
        svi.step(x[:batch_size])  # JitTrace_ELBO records the step
    started = time.perf_counter()
    for batch in x.split(batch_size):
        svi.step(batch)
    seconds = time.perf_counter() - started
    pyro.clear_param_store()
    return seconds


def _numpyro_steps(x: Tensor, batch_size: int) -> Callable[[], float]:
    """The same pair in NumPyro; XLA gets as many threads as torch has."""
    threads = torch.get_num_threads()
    os.environ.setdefault(
        "XLA_FLAGS",
        f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()} intra_op_parallelism_threads={threads}",
    )
    import jax
    import numpyro
    import numpyro.distributions as dist

    keys = iter(jax.random.split(jax.random.PRNGKey(0), 8))

    def layers(*sizes: int) -> Any:
        return [(jax.random.normal(next(keys), (i, o)) / i**0.5, jax.numpy.zeros(o)) for i, o in pairwise(sizes)]

    def network(parameters: Any, h: Any) -> Any:
        for weight, bias in parameters[:-1]:
            h = jax.numpy.tanh(h @ weight + bias)
        return h @ parameters[-1][0] + parameters[-1][1]

    decoder, encoder = layers(LATENT, HIDDEN, HIDDEN, x.shape[1]), layers(x.shape[1], HIDDEN, HIDDEN, 2 * LATENT)

    def model(x: Any) -> None:
        parameters = numpyro.param("decoder", decoder)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jax.numpy.zeros(LATENT), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=network(parameters, z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        out = network(numpyro.param("encoder", encoder), x)
        with numpyro.plate("data", len(x)):
            scale = jax.nn.softplus(out[..., LATENT:]) + 1e-7
            numpyro.sample("z", dist.Normal(out[..., :LATENT], scale).to_event(1))

    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(1e-3), numpyro.infer.Trace_ELBO())
    batches = jax.numpy.asarray(x.reshape(-1, batch_size, x.shape[1]).numpy())
    start = svi.init(next(keys), batches[0])
    epoch = jax.jit(lambda state, batches: jax.lax.scan(svi.update, state, batches))

    def steps() -> float:
        started = time.perf_counter()
        jax.block_until_ready(epoch(start, batches))
        return time.perf_counter() - started

    return steps
