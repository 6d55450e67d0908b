"""The hierarchical VAE: several layers of latents, each the prior of the one below.

    model   z_L ~ N(0, I),   z_l ~ N(m_l(z_{l+1}), diag s_l(z_{l+1})²),   x ~ p(x | f(z_1))
    guide   bottom-up   q(z_1 | x) Π_l q(z_{l+1} | z_l)
            ladder      q(z_L | x) Π_l q(z_l | z_{l+1}, x)

Bottom-up, the guide runs against the model, each layer from the draw of the one below. The ladder runs with it: a
deterministic pass upwards gives each layer an estimate N(μ̂_l(x), σ̂_l(x)²), which is multiplied with the model's own
prior of the layer, as a Gaussian posterior would be:

    1/σ_l² = 1/σ̂_l² + 1/s_l²,      μ_l = σ_l² (μ̂_l/σ̂_l² + m_l/s_l²).

"Ladder Variational Autoencoders" (Sønderby et al., 2016), arXiv:1602.02282.
"""

from itertools import pairwise
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.errors import OptionError

from .likelihoods import Likelihood
from .location_scale import location_and_scale
from .networks import MLP, Layer, whole_number
from .vae import VAE


class HierarchicalVAE(VAE):
    """A VAE with several layers of latents, and a bottom-up or ladder guide.

    Sites: the latents `z1` (next to the data) … `zL`, event shapes `(latent_dims[l],)`, and the observation `x`, event
    shape `(num_features,)`, all in the plate `data` at dim −1.

    Args:
        num_features: D, the length of a flattened datum.
        latent_dims: the lengths of z_1 … z_L.
        hidden: width of the one hidden layer of every network; 0 makes them affine.
        likelihood: p(x | f(z_1)), by default `Bernoulli()`.
        nonlinearity: the module class of the hidden layers.
        guide_kind: `"ladder"` or `"bottom-up"`.

    Raises:
        OptionError: a size is not a positive whole number, or there is no such guide.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> vae = HierarchicalVAE(num_features=64, latent_dims=(4, 2), hidden=16)
        >>> [z.shape[-1] for z in vae.guide(torch.zeros(5, 64))]
        [4, 2]
    """

    encoder: Any  # of each level, from the lowest; a VAE has one

    def __init__(
        self,
        num_features: int,
        latent_dims: tuple[int, ...] = (20, 10),
        hidden: int = 200,
        likelihood: Likelihood | None = None,
        nonlinearity: type[nn.Module] = nn.Tanh,
        guide_kind: Literal["ladder", "bottom-up"] = "ladder",
    ):
        """Make the pair; the class says what its arguments are."""
        dims = tuple(whole_number("latent_dims", d) for d in latent_dims)
        if not dims or guide_kind not in ("ladder", "bottom-up"):
            raise OptionError(
                f"latent_dims is {latent_dims} and guide_kind {guide_kind!r}; give at least one length, and ladder or "
                "bottom-up."
            )
        width = (hidden,) if hidden else ()
        super().__init__(num_features, dims[0], width, likelihood, nonlinearity)
        self.guide_kind = guide_kind
        self.downward = nn.ModuleList([MLP(up, width, 2 * low, nonlinearity) for low, up in pairwise(dims)])
        below = (num_features, *dims[:-1])
        if guide_kind == "ladder":
            below = (num_features, *[hidden or num_features] * (len(dims) - 1))
            self.upward = nn.ModuleList([Layer(a, b, nonlinearity) for a, b in pairwise(below)])
        encoders = [MLP(a, width, 2 * d, nonlinearity) for a, d in zip(below, dims, strict=True)]
        self.encoder = nn.ModuleList(encoders)

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z_L) … p(z_1 | z_2) p(x | z_1).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("hierarchical_vae", self)
        with pyro.plate("data", len(x)):
            loc, scale = self._top(x)
            for level in range(len(self.encoder), 0, -1):
                z = pyro.sample(f"z{level}", dist.Normal(loc, scale).to_event(1))
                if level > 1:
                    loc, scale = location_and_scale(self.downward[level - 2](z))
            return pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """The proposal, from the data upwards or along the ladder.

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            The draws of z_1 … z_L.
        """
        pyro.module("hierarchical_vae", self)
        seen = (x - self.input_shift) / self.input_scale
        with pyro.plate("data", len(x)):
            return self._bottom_up(seen) if self.guide_kind == "bottom-up" else self._ladder(seen)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Refused with an OptionError: each level's location depends on draws of another."""
        raise OptionError("q(z | x) of several levels has no one location and scale: run the guide, or take embed(x).")

    def _bottom_up(self, below: Tensor) -> list[Tensor]:
        draws: list[Tensor] = []
        for level, encoder in enumerate(self.encoder, start=1):
            loc, scale = location_and_scale(encoder(below))
            below = pyro.sample(f"z{level}", dist.Normal(loc, scale).to_event(1))
            draws.append(below)
        return draws

    def _ladder(self, seen: Tensor) -> list[Tensor]:
        features = [seen]
        for layer in self.upward:
            features.append(layer(features[-1]))
        draws: list[Tensor] = []
        for level in range(len(self.encoder), 0, -1):
            loc, scale = location_and_scale(self.encoder[level - 1](features[level - 1]))
            if draws:
                loc, scale = _product((loc, scale), location_and_scale(self.downward[level - 1](draws[0])))
            draws.insert(0, pyro.sample(f"z{level}", dist.Normal(loc, scale).to_event(1)))
        return draws

    def _top(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of p(z_L), which is N(0, I)."""
        loc = x.new_zeros(self.encoder[-1].output_bias.shape[0] // 2)
        return loc, torch.ones_like(loc)


def _product(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Location and scale of the normalised product of two Gaussians."""
    (loc_a, scale_a), (loc_b, scale_b) = a, b
    total = scale_a**2 + scale_b**2
    return (loc_a * scale_b**2 + loc_b * scale_a**2) / total, scale_a * scale_b / total.sqrt()
