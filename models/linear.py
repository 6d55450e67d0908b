"""The linear-Gaussian pair: its evidence and its posterior are known in closed form.

    model   z ~ N(0, I_d),   x ~ N(W z + b, Ψ)        Ψ = σ² I: probabilistic PCA;  Ψ diagonal: factor analysis
    guide   q(z | x) = N(V x + c, S)                  S = L Lᵀ, the same for every datum

With r = x − b and M = I + Wᵀ Ψ⁻¹ W (d × d) everything that inference estimates elsewhere stands here in closed form:

    posterior   p(z | x) = N(m, M⁻¹),   m = M⁻¹ Wᵀ Ψ⁻¹ r
    evidence    log p(x) = −½ [D log 2π + log|Ψ| + log|M| + (r − W m)ᵀ Ψ⁻¹ (r − W m) + mᵀ m]
    ELBO        −½ [D log 2π + log|Ψ| + ρᵀ Ψ⁻¹ ρ + μᵀ μ + tr(M S) − log|S| − d],   μ = V x + c,  ρ = r − W μ

in nats. |Ψ + W Wᵀ| = |Ψ| |M|. The quadratic form of the evidence is the minimum over z of the joint's: a sum of
squares, where Woodbury's difference would cancel for small noise. No D × D matrix is formed; all is in float64.

"Probabilistic Principal Component Analysis" (Tipping & Bishop, 1999), J. R. Stat. Soc. B 61(3); on the ELBO of this
pair: "Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse" (Lucas et al., 2019), arXiv:1911.02469.
"""

import math
from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.errors import DataError, OptionError

from .likelihoods import check_rows
from .networks import whole_number

_LOG_2PI = math.log(2 * math.pi)


class LinearGaussian(nn.Module):
    """Probabilistic PCA or factor analysis, with a linear Gaussian guide.

    Sites: the latent `z`, event shape `(latent_dim,)`, and the observation `x`, event shape `(num_features,)`, both in
    the plate `data` at dim −1. W starts from Glorot's rule, b from 0, Ψ from I; V = 0, c = 0, S = I make the prior.

    Args:
        num_features: D, the length of x.
        latent_dim: d, the length of z.
        diagonal_noise: a noise variance for each feature (factor analysis) in place of one for all (probabilistic PCA).
        full_covariance: S is any covariance; otherwise it is diagonal.

    Raises:
        OptionError: a size is not a positive whole number.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> pair, x = LinearGaussian(num_features=5, latent_dim=2), torch.randn(10, 5)
        >>> bool((pair.exact_elbo(x) < pair.log_evidence(x)).all())
        True
        >>> bool(torch.allclose(pair.set_exact_guide().exact_elbo(x), pair.log_evidence(x), atol=1e-4))
        True
    """

    default_data = "breast_cancer"

    def __init__(self, num_features: int, latent_dim: int, diagonal_noise: bool = False, full_covariance: bool = True):
        """Make the pair; the class says what its arguments are."""
        super().__init__()
        D, d = whole_number("num_features", num_features), whole_number("latent_dim", latent_dim)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(D, d)))
        self.bias = nn.Parameter(torch.zeros(D))
        self.log_noise_scale = nn.Parameter(torch.zeros(D if diagonal_noise else 1))
        self.guide_weight = nn.Parameter(torch.zeros(d, D))
        self.guide_bias = nn.Parameter(torch.zeros(d))
        # L, by rows: the logarithms of its diagonal, and what is below it. With d = 1 there is nothing below.
        self.guide_log_scale = nn.Parameter(torch.zeros(d))
        self.full_covariance = full_covariance or d == 1
        below = d * (d - 1) // 2 if full_covariance else 0
        self.guide_lower = nn.Parameter(torch.zeros(below)) if below else None

    @property
    def num_features(self) -> int:
        """D, the length of x."""
        return self.weight.shape[0]

    @property
    def latent_dim(self) -> int:
        """d, the length of z."""
        return self.weight.shape[1]

    @classmethod
    def for_data(cls, x: Tensor, latent_dim: int = 2, **options: Any) -> Self:
        """A pair for these data: b starts at their mean, Ψ at their variance, and W is in their units.

        Args:
            x: the data, `(num_data, D)`.
            latent_dim: d.
            **options: further arguments of the constructor.

        Returns:
            The pair, on the device and in the floating-point type of x. Its guide is the prior.

        Raises:
            DataError: x is not finite, or does not vary.
            OptionError: an option has a value that cannot be used.

        Example:
            >>> pair = LinearGaussian.for_data(torch.tensor([[0.0, 3.0], [2.0, 5.0]]), latent_dim=1)
            >>> pair.bias.tolist(), pair.log_noise_scale.exp().tolist()
            ([1.0, 4.0], [1.0])
        """
        mean, variance = _moments(x)
        pair = cls(x.shape[1], latent_dim, **options).to(x)
        common = variance.mean().sqrt()
        # A feature that never varies takes the scale of the whole: log 0 is no place to start from.
        scale = torch.where(variance > 0, variance.sqrt(), common) if options.get("diagonal_noise") else common[None]
        with torch.no_grad():
            pair.bias.copy_(mean)
            pair.weight.mul_(scale[:, None])
            pair.log_noise_scale.copy_(scale.log())
        return pair

    @classmethod
    def maximum_likelihood(cls, x: Tensor, latent_dim: int) -> Self:
        """Probabilistic PCA fitted in closed form, with its exact posterior as the guide.

            b = x̄,   σ² = 1/(D − d) Σ_{j>d} λ_j,   W = U_d (Λ_d − σ² I)^½

        where λ_1 ≥ λ_2 ≥ … and U are the eigenvalues and eigenvectors of the data's covariance. The covariance is
        divided by num_data, as maximum likelihood has it; dividing by num_data − 1 gives another, lower likelihood.
        "Probabilistic Principal Component Analysis" (Tipping & Bishop, 1999), equations 7 and 8.

        Args:
            x: the data, `(num_data, D)`.
            latent_dim: d < D.

        Returns:
            The pair, on the device and in the floating-point type of x.

        Raises:
            DataError: x is not finite, or d directions explain it without noise, so that the likelihood has no maximum.
            OptionError: latent_dim is not a whole number in 1 … D − 1.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> x = torch.randn(100, 5) * torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0])
            >>> LinearGaussian.maximum_likelihood(x, latent_dim=2).weight.shape
            torch.Size([5, 2])
        """
        mean, variance = _moments(x)
        num_data, D = x.shape
        if whole_number("latent_dim", latent_dim) >= D:
            raise OptionError(f"latent_dim is {latent_dim} but x has {D} features; give at most {D - 1}.")
        _, root, directions = torch.linalg.svd((x.double() - mean) / math.sqrt(num_data), full_matrices=False)
        eigenvalues = root[:latent_dim] ** 2
        noise = (root[latent_dim:] ** 2).sum() / (D - latent_dim)
        if noise <= torch.finfo(torch.float64).eps * variance.sum():
            raise DataError(
                f"latent_dim = {latent_dim} directions explain x without noise, so that its likelihood has no maximum; "
                "give more rows, or a smaller latent_dim."
            )
        pair = cls(D, latent_dim).to(x)
        with torch.no_grad():
            pair.bias.copy_(mean)
            pair.log_noise_scale.copy_(noise.log() / 2)
            pair.weight.copy_(directions[:latent_dim].T * (eigenvalues - noise).clamp(min=0).sqrt())
        return pair.set_exact_guide()

    def model(self, x: Tensor) -> Tensor:
        """The generative program, p(z) p(x | z).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            x; under `poutine.uncondition`, data drawn from the prior predictive.
        """
        pyro.module("linear_gaussian", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            likelihood = dist.Normal(z @ self.weight.T + self.bias, self.log_noise_scale.exp())
            return pyro.sample("x", likelihood.to_event(1), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The proposal, q(z | x).

        Args:
            x: a batch, `(num_data, num_features)`.

        Returns:
            The draw of z, `(num_data, latent_dim)`.
        """
        pyro.module("linear_gaussian", self)
        with pyro.plate("data", len(x)):
            loc = x @ self.guide_weight.T + self.guide_bias
            if self.full_covariance:
                return pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self._guide_scale_tril()))
            return pyro.sample("z", dist.Normal(loc, self.guide_log_scale.exp()).to_event(1))

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), exactly.

        Args:
            x: `(num_data, num_features)`.

        Returns:
            `(num_data,)` in nats, float64.
        """
        m, chol = self._posterior(x)
        log_det = 2 * chol.diagonal().log().sum()
        return -0.5 * (self._joint_quadratic(x, m) + log_det)

    def posterior(self, x: Tensor) -> torch.distributions.MultivariateNormal:
        """p(z | x), exactly.

        Args:
            x: `(num_data, num_features)`.

        Returns:
            A Gaussian of batch shape `(num_data,)` and event shape `(latent_dim,)`, float64.
        """
        m, chol = self._posterior(x)
        return torch.distributions.MultivariateNormal(m, covariance_matrix=torch.cholesky_inverse(chol))

    def exact_elbo(self, x: Tensor) -> Tensor:
        """E_q [log p(x, z) − log q(z | x)] of the present guide, exactly.

        Args:
            x: `(num_data, num_features)`.

        Returns:
            `(num_data,)` in nats, float64; nowhere above `log_evidence(x)`.
        """
        loc = x.double() @ self.guide_weight.double().T + self.guide_bias.double()
        L = self._guide_scale_tril().double()
        trace = (L * (self._precision() @ L)).sum()
        log_det = 2 * L.diagonal().log().sum()
        return -0.5 * (self._joint_quadratic(x, loc) + trace - log_det - self.latent_dim)

    @torch.no_grad()
    def set_best_guide(self) -> Self:
        """Set the guide to the member of its family with the highest ELBO, for every x at once.

        The location is the posterior's. The covariance is the posterior's too if the guide has a full one; a diagonal
        one has S_ii = 1 / M_ii, and what then remains is the family's gap, ½ (Σ_i log M_ii − log|M|) nats a datum.

        Returns:
            The pair itself.
        """
        M = self._precision()
        V = torch.cholesky_solve(self._weighted().T, torch.linalg.cholesky(M))
        self.guide_weight.copy_(V)
        self.guide_bias.copy_(-V @ self.bias.double())
        if self.guide_lower is None:
            self.guide_log_scale.copy_(-M.diagonal().log() / 2)
        else:
            L = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(M)))
            self.guide_log_scale.copy_(L.diagonal().log())
            self.guide_lower.copy_(L[self._below()])
        return self

    def set_exact_guide(self) -> Self:
        """Set the guide to the exact posterior, so that every log weight equals log p(x).

        Returns:
            The pair itself.

        Raises:
            OptionError: the guide's covariance is diagonal, which the posterior's is not in general.
        """
        if not self.full_covariance:
            raise OptionError(
                "full_covariance is False and a diagonal guide is not the posterior in general; make the pair with "
                "full_covariance=True, or call set_best_guide()."
            )
        return self.set_best_guide()

    def _below(self) -> tuple[Tensor, Tensor]:
        """The places of L below its diagonal."""
        rows, columns = torch.tril_indices(self.latent_dim, self.latent_dim, offset=-1)
        return rows, columns

    def _guide_scale_tril(self) -> Tensor:
        """L, the Cholesky factor of the guide's covariance."""
        L = torch.diag(self.guide_log_scale.exp())
        if self.guide_lower is not None:
            L = L.index_put(self._below(), self.guide_lower)
        return L

    def _noise(self) -> Tensor:
        """The diagonal of Ψ, `(D,)`."""
        return (2 * self.log_noise_scale.double()).exp().expand(self.num_features)

    def _weighted(self) -> Tensor:
        """Ψ⁻¹ W, `(D, d)`."""
        return self.weight.double() / self._noise()[:, None]

    def _precision(self) -> Tensor:
        """M = I + Wᵀ Ψ⁻¹ W, `(d, d)`, the precision of the posterior."""
        white = self.weight.double() / self._noise().sqrt()[:, None]
        return torch.eye(self.latent_dim, dtype=white.dtype, device=white.device) + white.T @ white

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The means m, `(num_data, d)`, and the Cholesky factor of M."""
        chol = torch.linalg.cholesky(self._precision())
        r = x.double() - self.bias.double()
        return torch.cholesky_solve((r @ self._weighted()).T, chol).T, chol

    def _joint_quadratic(self, x: Tensor, z: Tensor) -> Tensor:
        """−2 log p(x, z) − d log 2π, `(num_data,)`: D log 2π + log|Ψ| + (r − W z)ᵀ Ψ⁻¹ (r − W z) + zᵀ z."""
        noise = self._noise()
        rest = x.double() - self.bias.double() - z @ self.weight.double().T
        constant = self.num_features * _LOG_2PI + noise.log().sum()
        return constant + (rest**2 / noise).sum(-1) + (z**2).sum(-1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each feature in float64; the variance is divided by num_data."""
    check_rows(x)
    variance, mean = torch.var_mean(x.double(), dim=0, correction=0)
    if not variance.any():
        raise DataError("x does not vary from row to row; give rows that differ.")
    return mean, variance
