"""The evidence by pythae's ``get_nll``: its own VAE around the networks of ours, so that both estimate one number.

pythae (https://github.com/clementchadebec/benchmark_VAE) returns the mean of log p̂(x), one datum after the other,
without an error; it records gradients, which nobody takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppvae.models import VAE


def pythae_vae(pair: VAE) -> Any:
    """The VAE of pythae with the encoder and the decoder of a pair of ours whose likelihood is Bernoulli."""
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.pair = pair

        def forward(self, x: Tensor) -> Any:
            loc, scale = self.pair.encode(x)
            return ModelOutput(embedding=loc, log_covariance=2 * scale.log())

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = pair.decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.decoder(z)))

    first = next(layer for layer in pair.encoder.modules() if isinstance(layer, torch.nn.Linear))
    config = VAEConfig(input_dim=(first.in_features,), latent_dim=pair.latent_dim, reconstruction_loss="bce")
    return PythaeVAE(config, encoder=Encoder(), decoder=Decoder())


def pythae_evidence(vae: Any, x: Tensor, num_particles: int) -> float:
    """The mean of log p̂(x) over the data, by its ``get_nll`` with the batch size that it has by default.

    Args:
        vae: of :func:`pythae_vae`.
        x: binary data, `(num_data, num_features)`.
        num_particles: a multiple of its batch size 100; others it replaces by one.
    """
    return float(vae.get_nll(x, n_samples=num_particles))
