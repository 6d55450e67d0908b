"""Closed forms, in numpy and scipy alone and by the most direct route, to hold the package against.

Nothing here imports ppvae, and nothing here is clever: where the package uses d × d algebra, this file builds the
D × D matrices and lets scipy invert them. All values are in nats.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def linear_gaussian_log_evidence(x: Array, W: Array, b: Array, noise: Array) -> Array:
    """log p(x), `(num_data,)`, for z ~ N(0, I), x ~ N(W z + b, diag noise): x ~ N(b, W Wᵀ + diag noise)."""
    covariance = W @ W.T + np.diag(noise)
    return np.atleast_1d(stats.multivariate_normal(b, covariance).logpdf(x))


def linear_gaussian_posterior(x: Array, W: Array, b: Array, noise: Array) -> tuple[Array, Array]:
    """Mean `(num_data, d)` and covariance `(d, d)` of p(z | x), by conditioning the joint Gaussian of (z, x)."""
    num_features, latent_dim = W.shape
    joint = np.block([[np.eye(latent_dim), W.T], [W, W @ W.T + np.diag(noise)]])
    zx, xx = joint[:latent_dim, latent_dim:], joint[latent_dim:, latent_dim:]
    gain = zx @ np.linalg.inv(xx)
    assert xx.shape == (num_features, num_features)
    return (x - b) @ gain.T, joint[:latent_dim, :latent_dim] - gain @ zx.T


def gaussian_kl(mean_q: Array, covariance_q: Array, mean_p: Array, covariance_p: Array) -> Array:
    """KL(N(mean_q, covariance_q) ‖ N(mean_p, covariance_p)); means may be `(num_data, d)`."""
    precision = np.linalg.inv(covariance_p)
    difference = mean_p - mean_q
    quadratic = np.einsum("...i,ij,...j->...", difference, precision, difference)
    log_ratio = np.linalg.slogdet(covariance_p)[1] - np.linalg.slogdet(covariance_q)[1]
    return 0.5 * (np.trace(precision @ covariance_q) + quadratic - covariance_q.shape[0] + log_ratio)


def linear_gaussian_elbo(
    x: Array, W: Array, b: Array, noise: Array, V: Array, c: Array, covariance: Array
) -> tuple[Array, Array]:
    """ELBO and gap of the guide N(V x + c, covariance), `(num_data,)` each: ELBO = log p(x) − KL(q ‖ posterior)."""
    gap = gaussian_kl(x @ V.T + c, covariance, *linear_gaussian_posterior(x, W, b, noise))
    return linear_gaussian_log_evidence(x, W, b, noise) - gap, gap
