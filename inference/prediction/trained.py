"""A trained pair with methods: sample, embed, reconstruct, impute, interpolate, log_prob, to_datatree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from ppvae.datasets import Standardisation
from ppvae.errors import OptionError

from ..evidence import AdaptiveEvidence, estimate_evidence, shifted
from ..pair import Batch, Program, as_batch
from ..posterior import in_own_units, to_datatree
from ..records import Printed
from .decoding import decode
from .embedding import Embedding, embed
from .interpolation import interpolate
from .prior_predictive import sample, samples
from .reconstruction import Prediction, impute, reconstruct

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, repr=False)
class TrainedPair(Printed):
    """A trained model and guide with methods to use them; :func:`ppvae.inference.fit` returns one.

    Each method is the function of the same name in :mod:`ppvae.inference`, where its options and errors are told. The
    programs may be any two, trained or not, by this package or by Pyro's own ``SVI``.

    Attributes:
        model: ``model(x, *context)``, the generative program.
        guide: ``guide(x, *context)``.
        example: some data, ``(x, *context)``, that show what the programs take; :meth:`sample` draws like them.
        units: where the pair was trained on standardised data, the map from their own units. All methods then take and
            give x in these, and log p(x) has the Jacobian.

    Example:
        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=3, latent_dim=2).set_exact_guide(), torch.randn(4, 3)
        >>> trained = TrainedPair(pair.model, pair.guide, (x,))
        >>> trained.sample(10, seed=0).shape, trained.embed(x).matrix.shape
        (torch.Size([10, 3]), torch.Size([4, 2]))
        >>> evidence = trained.log_prob(x, seed=0)
        >>> bool(((evidence.log_evidence - pair.log_evidence(x)).abs() < 0.1).all())
        True
    """

    model: Program
    guide: Program
    example: Batch
    units: Standardisation | None = field(default=None, kw_only=True)

    def in_units(self, units: Standardisation | None) -> Self:
        """The same pair, for data in the units before a standardisation: ``load_dataset(...).standardisation``."""
        return replace(self, units=units)

    def sample(
        self,
        num_samples: int = 1,
        *,
        like: Tensor | Batch | None = None,
        seed: int | None = None,
        memory_mb: float = 64.0,
    ) -> Tensor:
        """Draws of x from the prior predictive, ``(num_samples, *event)``: :func:`ppvae.inference.sample`.

        Args:
            num_samples: how many.
            like: ``(x, *context)`` whose shape the draws have, draw i given the context of row i. By default data like
                those of the training; where each datum has a context of its own, it must be given.
            seed: draw from this seed and leave the global generators untouched; None draws from the global ones.
            memory_mb: budget in MiB for one pass of the pair.
        """
        if like is None:
            drawn = samples(self.model, self.guide, self.example, num_samples, seed, memory_mb, given=False)
        else:
            drawn = sample(self.model, self.guide, self._in(like), num_samples, seed=seed, memory_mb=memory_mb)
        return self._out(drawn)

    def embed(
        self, x: Tensor | Batch, *, num_particles: int = 100, seed: int | None = None, memory_mb: float = 64.0
    ) -> Embedding:
        """Means and standard deviations of the latents under the guide: :func:`ppvae.inference.embed`."""
        return embed(self.model, self.guide, self._in(x), num_particles=num_particles, seed=seed, memory_mb=memory_mb)

    def decode(
        self,
        z: Tensor | Mapping[str, Tensor],
        *,
        like: Tensor | Batch | None = None,
        seed: int | None = None,
        memory_mb: float = 64.0,
    ) -> Tensor:
        """E[x|z] at given latents: :func:`ppvae.inference.decode`; with context, give ``like``."""
        if like is None and len(self.example) > 1:
            raise OptionError("the model is given a context: give like=(x, *context), whose row i row i of z is given.")
        like = self.example if like is None else self._in(like)
        return self._out(decode(self.model, self.guide, z, like, seed=seed, memory_mb=memory_mb))

    def reconstruct(
        self, x: Tensor | Batch, *, num_particles: int = 100, seed: int | None = None, memory_mb: float = 64.0
    ) -> Prediction:
        """The posterior predictive mean of x through the guide: :func:`ppvae.inference.reconstruct`."""
        found = reconstruct(
            self.model, self.guide, self._in(x), num_particles=num_particles, seed=seed, memory_mb=memory_mb
        )
        return self._prediction(found)

    def impute(
        self, x: Tensor | Batch, *, num_particles: int = 100, seed: int | None = None, memory_mb: float = 64.0
    ) -> Prediction:
        """x with its missing values (NaN) filled: :func:`ppvae.inference.impute`."""
        found = impute(self.model, self.guide, self._in(x), num_particles=num_particles, seed=seed, memory_mb=memory_mb)
        if self.units is None:
            return found
        given = as_batch(x)[0].to(found.mean)  # what is seen stays as it is, to the bit
        filled = self._prediction(found)
        return replace(filled, mean=filled.mean.where(given.isnan(), given))

    def interpolate(
        self,
        a: Tensor | Batch,
        b: Tensor | Batch,
        num_steps: int = 10,
        *,
        num_particles: int = 100,
        seed: int | None = None,
        memory_mb: float = 64.0,
    ) -> Tensor:
        """E[x|z] on the line between two embeddings: :func:`ppvae.inference.interpolate`."""
        options = {"num_particles": num_particles, "seed": seed, "memory_mb": memory_mb}
        return self._out(interpolate(self.model, self.guide, self._in(a), self._in(b), num_steps, **options))  # type: ignore[arg-type]

    def log_prob(
        self,
        x: Tensor | Batch,
        *,
        tolerance: float = 0.1,
        budget: int = 200_000,
        seed: int | None = None,
        memory_mb: float = 64.0,
        progress: bool = False,
    ) -> AdaptiveEvidence:
        """log p(x) in nats with its error, to within a tolerance: :func:`ppvae.inference.estimate_evidence`."""
        compute = {"seed": seed, "memory_mb": memory_mb, "progress": progress}
        given = self._in(x)
        found = estimate_evidence(self.model, self.guide, given, tolerance=tolerance, budget=budget, **compute)  # type: ignore[arg-type]
        if self.units is None:
            return found
        jacobian = self.units.log_jacobian(as_batch(given)[0]).cpu()
        return shifted(found, jacobian if len(found.elbo) == len(jacobian) else jacobian.sum(0, keepdim=True))

    def to_datatree(self, x: Tensor | Batch, **options: Any) -> xr.DataTree:
        """Draws of the latents for ArviZ: :func:`ppvae.inference.to_datatree`, whose options these are."""
        given = self._in(x)
        tree = to_datatree(self.model, self.guide, given, **options)
        return tree if self.units is None else in_own_units(tree, self.units, as_batch(given)[0])

    def _in(self, x: Any) -> Any:
        """Data in their own units as the programs take them."""
        if self.units is None:
            return x
        values, *context = as_batch(x)
        return (self.units.apply(values.to(self.units.mean.dtype)), *context)

    def _out(self, x: Tensor) -> Tensor:
        """Data of the programs in their own units."""
        return x if self.units is None else self.units.undo(x)

    def _prediction(self, found: Prediction) -> Prediction:
        if self.units is None:
            return found
        spread: dict[str, Any] = {
            name: self.units.widen(getattr(found, name)) for name in ("standard_deviation", "monte_carlo_error")
        }
        return replace(found, mean=self.units.undo(found.mean), **spread)

    def __repr__(self) -> str:
        shape = tuple(as_batch(self.example)[0].shape[1:])
        return f"{type(self).__name__}: of data of shape {shape}"
