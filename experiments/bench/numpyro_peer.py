"""Steps of SVI by NumPyro: the same VAE, its steps rolled into one ``lax.scan``.

XLA gets as many threads as torch has. It reads their number once, so that each number takes a process of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .side_by_side import OwnSeconds
from .step_pairs import HIDDEN, LATENT


def numpyro_steps(x: Tensor, batch_size: int) -> Callable[[], OwnSeconds]:
    """The steps over all data as one compiled piece; what is returned takes them and says their seconds.

    Args:
        x: binary data, `(num_data, 784)`.
        batch_size: data in a step, which divides their number.
    """
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

    def steps() -> OwnSeconds:
        started = time.perf_counter()
        jax.block_until_ready(epoch(start, batches))
        return OwnSeconds(time.perf_counter() - started)

    return steps
