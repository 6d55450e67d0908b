"""Standardisation of measurements: y_j = (x_j − m_j)/s_j, with mean m and standard deviation s of the training data.

A density of y becomes one of x by the Jacobian of the map, over the values of a datum that are there:

    log p(x) = log p(y) − Σ_j log s_j

Counts, and zeros and ones, are never standardised: theirs is a probability, which has no Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ppvae.errors import DataError


@dataclass(frozen=True, eq=False)
class Standardisation:
    """The map from the units of a file to those of the standardised data, and back.

    Attributes:
        mean: of each feature over the training data, ``(num_features,)``.
        scale: the standard deviation of each; 1, with mean 0, of features that are zeros and ones.

    Example:
        >>> import torch
        >>> units = Standardisation.of(torch.tensor([[1.0, 10.0], [3.0, 30.5]]), "the array")
        >>> y = units.apply(torch.tensor([[1.0, 30.5]]))
        >>> y.tolist(), units.undo(y).tolist()
        ([[-1.0, 1.0]], [[1.0, 30.5]])
        >>> units.log_jacobian(y)  # −log 1 − log 10.25, in nats
        tensor([-2.3273], dtype=torch.float64)
    """

    mean: Tensor
    scale: Tensor

    @staticmethod
    def of(train: Tensor, what: str, columns: tuple[str, ...] | None = None) -> Standardisation:
        """The map that standardises training data.

        Args:
            train: ``(num_train, num_features)``; missing values (NaN) are left out.
            what: the data are called.
            columns: the names of the features, for messages.

        Raises:
            DataError: all are whole numbers, or a feature has one value only.
        """
        x = train.double()
        there = ~x.isnan()
        known = x.where(there, 0.0)
        if bool((known == known.round()).all()):
            raise DataError(
                f"{what} holds whole numbers only, counts or zeros and ones: their log p(x) is that of a probability "
                "and has no units; leave --standardise out."
            )
        n = there.sum(0)
        mean = known.sum(0) / n
        scale = (((known - mean) * there).square().sum(0) / n).sqrt()
        lost = ((scale <= 1e-6 * mean.abs()) | (n == 0)).nonzero().flatten().tolist()
        if lost:
            name = repr(columns[lost[0]]) if columns else lost[0]
            raise DataError(
                f"column {name} of {what} has one value in all training data, and cannot be standardised: leave it out "
                "with --drop_columns."
            )
        binary = ((known == 0) | (known == 1)).all(0)
        return Standardisation(mean.where(~binary, 0.0).to(train), scale.where(~binary, 1.0).to(train))

    def apply(self, x: Tensor) -> Tensor:
        """Data in the units of the file, standardised; any shape that holds the features after the first dimension."""
        return ((self._flat(x) - self.mean.to(x)) / self.scale.to(x)).reshape(x.shape)

    def undo(self, y: Tensor) -> Tensor:
        """Standardised data in the units of the file; the first dimensions may be any."""
        return (self._flat(y) * self.scale.to(y) + self.mean.to(y)).reshape(y.shape)

    def widen(self, spread: Tensor) -> Tensor:
        """Standard deviations, or errors, of standardised data in the units of the file."""
        return (self._flat(spread) * self.scale.to(spread)).reshape(spread.shape)

    def log_jacobian(self, x: Tensor) -> Tensor:
        """−Σ_j log s_j over the values of each datum that are there, ``(num_data,)`` in float64."""
        there = ~x.reshape(len(x), -1).isnan()
        return -(there.double() * self.scale.double().log().to(x.device)).sum(1)

    def _flat(self, x: Tensor) -> Tensor:
        return x.reshape(-1, len(self.mean))
