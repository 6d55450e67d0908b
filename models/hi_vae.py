"""HI-VAE: a VAE of tables whose columns are of several kinds, with values missing (NaN).

    model   s ~ Categorical(π),   z ~ N(m_s, I),   each value that is there by the kind of its column, h = f(z, s):
            real          x ~ N(h, σ_s²)                    positive   log x ~ N(h, σ_s²)
            count         x ~ Poisson(e^h)                  categorical   x ~ Categorical(softmax h), h a vector
            ordinal       P(x ≤ r) = 1 / (1 + e^(h − c_r)),   c_0 < c_1 < …
    guide   q(z | x_seen) = N(μ, diag σ²)      the network sees which values are there; s is summed out in the model

so that the evidence is log p(x_seen), a density of real and positive columns and a probability of the others. The paper
draws s by a Gumbel-softmax and lets q(z | x_seen, s) depend on it; summed out, it needs neither.
"Handling Incomplete Heterogeneous Data using VAEs" (Nazábal et al., 2020), arXiv:1807.03653.
"""

from collections.abc import Sequence
from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppvae.errors import DataError, OptionError

from .columns import FILLER, KINDS, NUMBERS, as_seen, check_column, kind_of, levels, ordinal_log_prob
from .likelihoods import Poisson
from .location_scale import location_and_scale
from .networks import MLP, whole_number

_ENUMERATED: Any = {"enumerate": "parallel"}


class HIVAE(nn.Module):
    """A VAE of mixed columns, of which values may be missing.

    Sites: the discrete latent `component`, the latent `z`, event shape `(latent_dim,)`, and an observation for each
    kind that occurs, named like it, event shape `(its columns,)`; all in the plate `data` at dim −1. A category has no
    mean: to fill in its missing values take draws, the group posterior_predictive of `to_datatree`.

    Args:
        kinds: of each column: `real`, `positive`, `count`, `categorical` or `ordinal`, whose values are 0 … L − 1.
        num_levels: L of each column; what it says of columns of the first three kinds does not matter.
        latent_dim: d, the length of z.
        num_components: S, the values of s.
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse order.
        nonlinearity: the module class between the layers.

    Raises:
        OptionError: a size is not a positive whole number, or a kind is none of the five.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.tensor([[0.3, 2.5, 0.0], [-1.0, torch.nan, 1.0], [0.1, 0.7, torch.nan]])
        >>> pair = HIVAE.for_data(x, latent_dim=1, hidden=(4,))
        >>> pair.kinds, pair.guide(x).shape
        (('real', 'positive', 'categorical'), torch.Size([3, 1]))
    """

    default_data = "diabetes_missing"
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        kinds: Sequence[str],
        num_levels: Sequence[int],
        latent_dim: int = 5,
        num_components: int = 3,
        hidden: tuple[int, ...] = (50,),
        nonlinearity: type[nn.Module] = nn.Tanh,
    ):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or len(num_levels) != len(kinds):
            raise OptionError(
                f"kinds is {list(kinds)}; give one of {', '.join(KINDS)} for each column, and its levels."
            )
        self.kinds, self.num_levels = tuple(kinds), tuple(num_levels)
        self.latent_dim, S = whole_number("latent_dim", latent_dim), whole_number("num_components", num_components)
        self.columns = {kind: [j for j, own in enumerate(kinds) if own == kind] for kind in KINDS if kind in kinds}
        self.levels = {kind: [num_levels[j] for j in self.columns.get(kind, [])] for kind in ("categorical", "ordinal")}
        most = max([2, *self.levels["categorical"]])
        widths = {kind: len(own) * (most if kind == "categorical" else 1) for kind, own in self.columns.items()}
        num_coded = sum(L for own in self.levels.values() for L in own)
        num_numbers = sum(kind in NUMBERS for kind in kinds)
        self.most, self.widths = most, widths
        self.encoder = MLP(num_numbers + num_coded + len(kinds), hidden, 2 * latent_dim, nonlinearity)
        self.decoder = MLP(latent_dim + S, hidden[::-1], sum(widths.values()), nonlinearity)
        self.component_logits = nn.Parameter(torch.zeros(S))
        self.component_loc = nn.Parameter(torch.randn(S, latent_dim))
        self.log_scale = nn.ParameterDict({k: torch.zeros(S, widths[k]) for k in ("real", "positive") if k in widths})
        self.cuts = nn.ParameterList([torch.zeros(L - 1) for L in self.levels["ordinal"]])
        self.register_buffer("shift", torch.zeros(len(kinds)))
        self.register_buffer("scale", torch.ones(len(kinds)))

    def model(self, x: Tensor) -> None:
        """The generative program, p(s) p(z | s) p(x_seen | z, s).

        Args:
            x: a batch, `(num_data, num_columns)`, NaN where a value is missing.
        """
        pyro.module("hi_vae", self)
        with pyro.plate("data", len(x)):
            s = pyro.sample("component", dist.Categorical(logits=self.component_logits), infer=_ENUMERATED)
            z = pyro.sample("z", dist.Normal(self.component_loc[s], 1.0).to_event(1))
            for kind, features in self.decode(z, s).items():
                own = x[..., self.columns[kind]]
                seen = ~own.isnan()
                values = torch.where(seen, own, torch.full_like(own, FILLER[kind]))
                pyro.sample(kind, features.mask(seen).to_event(1), obs=values)

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(z | x_seen).

        Args:
            x: as the model takes it.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("hi_vae", self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(*self.encode(x)).to_event(1))

    @classmethod
    def for_data(
        cls, x: Tensor, kinds: Sequence[str] | None = None, num_levels: Sequence[int] | None = None, **options: Any
    ) -> Self:
        """A pair for these data, which starts near what each column is without the others.

        Args:
            x: the data, `(num_data, num_columns)`, NaN where a value is missing.
            kinds: of each column; None takes whole numbers from 0 to at most 9 for categories, other whole numbers
                ≥ 0 for counts, other numbers > 0 for positive ones, and the rest for real ones. No column is taken for
                ordinal unless it is called so.
            num_levels: of each column, as the constructor takes them; None takes the largest value and one more.
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: a column has no value, or one that its kind does not allow.
            OptionError: an option has a value that cannot be used.
        """
        seen = [column[~column.isnan()] for column in x.T]
        if not all(len(values) for values in seen):
            raise DataError("a column of x has no values at all: leave it out.")
        kinds = [kind_of(values) for values in seen] if kinds is None else list(kinds)
        if len(kinds) != len(seen):
            raise OptionError(f"kinds has {len(kinds)} entries for {len(seen)} columns; give one for each.")
        for j, (values, kind) in enumerate(zip(seen, kinds, strict=True)):
            check_column(j, values, kind)
        if num_levels is None:
            num_levels = [max(2, int(values.max()) + 1) for values in seen]
        pair = cls(kinds, num_levels, **options).to(x)
        with torch.no_grad():
            for j, values in enumerate(seen):
                own = as_seen(values, kinds[j])
                pair.shift[j] = own.mean() if kinds[j] != "count" else values.mean().clamp(min=0.01).log()
                pair.scale[j] = own.std(correction=0) if own.min() < own.max() else 1.0
            for cuts, j in zip(pair.cuts, pair.columns.get("ordinal", []), strict=True):
                below = torch.stack([(seen[j] <= r).to(x).mean() for r in range(len(cuts))])
                level = below.clamp(0.01, 0.99).logit() + 1e-2 * torch.arange(len(cuts)).to(x)
                cuts.copy_(torch.cat([level[:1], level.diff().clamp(min=0.05).expm1().log()]))
        return pair

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of q(z | x_seen): `(..., num_columns)` to two of `(..., latent_dim)`."""
        seen, parts = ~x.isnan(), [(~x.isnan()).to(x.dtype)]
        for kind, columns in self.columns.items():
            own = x[..., columns]
            if kind in NUMBERS:
                parts.append(((as_seen(own, kind) - self.shift[columns]) / self.scale[columns]).nan_to_num())
                continue
            for j, L in zip(columns, self.levels[kind], strict=True):
                code = F.one_hot(x[..., j].nan_to_num().long().clamp(0, L - 1), L)
                parts.append(code * seen[..., j, None].to(x.dtype))
        return location_and_scale(self.encoder(torch.cat(parts, -1)))

    def decode(self, z: Tensor, s: Tensor) -> dict[str, dist.TorchDistribution]:
        """p(x | z, s) by kind, of batch shape `(..., its columns)`; z is `(..., latent_dim)`, s whole numbers."""
        code = F.one_hot(s, len(self.component_logits)).to(z.dtype)
        batch = torch.broadcast_shapes(z.shape[:-1], s.shape)
        output = self.decoder(torch.cat([z.expand(*batch, -1), code.expand(*batch, -1)], -1))
        parts = output.split(list(self.widths.values()), -1)
        return {kind: self._features(kind, h, s) for kind, h in zip(self.widths, parts, strict=True)}

    def _features(self, kind: str, h: Tensor, s: Tensor) -> dist.TorchDistribution:
        if kind == "categorical":
            parts = [own[..., :L] for own, L in zip(h.split(self.most, -1), self.levels[kind], strict=True)]
            return levels(parts)
        if kind == "ordinal":
            return levels([ordinal_log_prob(h[..., j], cuts) for j, cuts in enumerate(self.cuts)])
        loc = self.shift[self.columns[kind]] + self.scale[self.columns[kind]] * h
        if kind == "count":
            return Poisson().features(loc)
        scale = self.scale[self.columns[kind]] * self.log_scale[kind][s].exp() + torch.finfo(h.dtype).eps
        return dist.Normal(loc, scale) if kind == "real" else dist.LogNormal(loc, scale)
