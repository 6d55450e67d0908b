"""A pair as an estimator of scikit-learn: a density model, and a transformer to the means of its latents.

    PairEstimator(partial(VAE.for_data, likelihood=Binomial(16), latent_dim=10), epochs=100).fit(X)

Arrays go in and come out, in the type of X; what is between is in torch's default type (``torch.set_default_dtype``).
It is imported as ``from ppvae.inference.scikit_learn import PairEstimator``: scikit-learn is loaded where it is used.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from ppvae.errors import OptionError

from .evidence import AdaptiveEvidence
from .options import shown, valid_seed
from .pair import seeded
from .svi import fit

TYPES = (np.float64, np.float32)


class PairEstimator(TransformerMixin, DensityMixin, BaseEstimator):
    """A pair as an estimator of scikit-learn; ``y`` is the context of pairs that take one.

    Args:
        pair: what makes the pair anew at each :meth:`fit`: a function of the data, ``(num_data, num_features)``, that
            returns an object with ``model`` and ``guide``; a class, which is called with ``num_features``; or such an
            object itself, which is copied and whose copy is trained.
        epochs: of the training.
        batch_size: of the training.
        learning_rate: of the training.
        fit_options: further options of :func:`ppvae.inference.fit`.
        tolerance: of log p(x) of a datum, in nats, of :meth:`score_samples`.
        num_particles: draws of the guide where its own means are not known, of :meth:`transform`.
        seed: of the pair's first values, of the training, and of whatever is drawn later.

    A pair whose programs take an argument after x, as ``ConditionalVAE`` takes labels, is given ``y`` there, in
    :meth:`fit`, :meth:`transform`, :meth:`score_samples`, :meth:`score`, :meth:`sample` and :meth:`inverse_transform`.
    Other pairs ignore ``y``.

    Attributes:
        fit_: what :func:`ppvae.inference.fit` returned.
        pair_: the pair that was trained.
        takes_context_: whether its programs take ``y`` after x.
        n_features_in_: how many features X had.
        evidence_: what :meth:`score_samples` last found, with the error and k-hat of each datum.
        score_error_: the standard error of what :meth:`score` last gave, in nats.

    Example:
        >>> from functools import partial
        >>> import numpy as np
        >>> from ppvae.models import LinearGaussian
        >>> X = np.random.default_rng(0).normal(size=(200, 3)) * [3.0, 1.0, 1.0]
        >>> estimator = PairEstimator(partial(LinearGaussian.for_data, latent_dim=1), epochs=5).fit(X)
        >>> estimator.transform(X).shape, estimator.score_samples(X[:4]).shape, estimator.sample(2).shape
        ((200, 1), (4,), (2, 3))
    """

    def __init__(
        self,
        pair: Any,
        *,
        epochs: int = 100,
        batch_size: int = 100,
        learning_rate: float = 1e-3,
        fit_options: Mapping[str, Any] | None = None,
        tolerance: float = 0.1,
        num_particles: int = 100,
        seed: int = 0,
    ) -> None:
        self.pair = pair
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.fit_options = fit_options
        self.tolerance = tolerance
        self.num_particles = num_particles
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> Self:
        """Make the pair and train it.

        Args:
            X: data, ``(num_data, num_features)``, of two rows or more.
            y: the context, ``(num_data, ...)``, where the programs take one; else ignored.

        Raises:
            PpvaeError: the pair cannot be made or trained on these data.
            ValueError: X is no array of finite numbers.
        """
        x = _tensor(validate_data(self, X, dtype=TYPES, ensure_min_samples=2))
        seed = valid_seed(self.seed)
        with seeded(seed):
            pair = _made(self.pair, x)
        self.takes_context_ = _takes_context(pair)
        options = {"progress": False, **(self.fit_options or {})}
        self.fit_ = fit(
            pair.model,
            pair.guide,
            self._batch(x, y),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=0 if seed is None else seed,
            **options,
        )
        self.pair_ = pair
        return self

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """:meth:`fit`, then :meth:`transform` of the same data."""
        return self.fit(X, y, **fit_params).transform(X, y)

    def transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Means of the latents under the guide, ``(num_data, total_dim)``."""
        X = self._checked(X)
        batch = self._batch(_tensor(X), y)
        means = self.fit_.embed(batch, num_particles=self.num_particles, seed=self.seed).matrix
        return means.cpu().numpy().astype(X.dtype)

    def inverse_transform(self, Z: Any, y: Any = None) -> np.ndarray:
        """E[x|z] at latents, ``(num, total_dim)`` to ``(num, num_features)``."""
        check_is_fitted(self)
        Z = check_array(Z, dtype=TYPES)
        return self.fit_.decode(_tensor(Z), like=self._like(len(Z), y), seed=self.seed).cpu().numpy().astype(Z.dtype)

    def score_samples(self, X: Any, y: Any = None) -> np.ndarray:
        """log p(x) of every datum, ``(num_data,)``, in nats; ``evidence_`` has the errors."""
        batch = self._batch(_tensor(self._checked(X)), y)
        self.evidence_: AdaptiveEvidence = self.fit_.log_prob(batch, tolerance=self.tolerance, seed=self.seed)
        return self.evidence_.log_evidence.cpu().numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of log p(x), in nats per datum; ``score_error_`` is its standard error."""
        self.score_samples(X, y)
        summary = self.evidence_.summary()
        self.score_error_ = float(summary["log_evidence_standard_error"])
        return float(summary["log_evidence"])

    def sample(self, n_samples: int = 1, random_state: int | None = None, y: Any = None) -> np.ndarray:
        """Draws from the model, ``(n_samples, num_features)``; from the seed of the estimator unless one is given."""
        check_is_fitted(self)
        seed = self.seed if random_state is None else random_state
        return self.fit_.sample(n_samples, like=self._like(n_samples, y), seed=seed).cpu().numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of :meth:`transform`: the site, and the place in it."""
        check_is_fitted(self)
        return np.array(self.fit_.embed(self.fit_.example, num_particles=2, seed=0).columns, dtype=object)

    def _checked(self, X: Any) -> np.ndarray:
        """X, if it has the features that were trained on."""
        check_is_fitted(self)
        return validate_data(self, X, reset=False, dtype=TYPES)

    def _batch(self, x: Tensor, y: Any) -> Any:
        """What the programs take: x, or ``(x, context)``.

        Raises:
            OptionError: the context is missing, or holds no numbers.
        """
        if not self.takes_context_:
            return x
        if y is None:
            raise OptionError("y is missing: the pair takes a context after x, such as labels; give it as y.")
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        check_consistent_length(x, y)
        if y.dtype.kind not in "biuf":
            raise OptionError("y holds words: give numbers, such as those of sklearn.preprocessing.LabelEncoder.")
        return (x, torch.tensor(y) if y.dtype.kind in "biu" else _tensor(y))

    def _like(self, num: int, y: Any) -> Any:
        """Data of the shape of draws, with their context; None where the pair takes none."""
        return self._batch(torch.zeros(num, self.n_features_in_), y) if self.takes_context_ else None


def _tensor(X: np.ndarray) -> Tensor:
    return torch.tensor(X, dtype=torch.get_default_dtype())


def _made(pair: Any, x: Tensor) -> Any:
    """The pair, made for the data.

    Raises:
        OptionError: what was given makes none.
    """
    made, make = None, pair
    if inspect.isclass(pair):
        made = make(x.shape[1])
    elif _is_pair(pair):
        made = copy.deepcopy(pair)
    elif callable(pair):
        made = pair(x)
    if not _is_pair(made):
        raise OptionError(
            f"pair must be a class, an object with model and guide, or a function of the data that makes one; it is "
            f"{shown(pair)}."
        )
    return made


def _takes_context(pair: Any) -> bool:
    """Whether the model takes an argument after x."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    taken = [one for one in inspect.signature(pair.model).parameters.values() if one.kind in kinds]
    return len(taken) > 1


def _is_pair(one: Any) -> bool:
    return all(callable(getattr(one, name, None)) for name in ("model", "guide"))
