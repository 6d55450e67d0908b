"""Small tables that need no download: scikit-learn's own, and one that is printed here."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

# How many training data of the digits keep their label in `few_labels`.
NUM_FEW_LABELS = 200

# Section 6 of the Law School Admission Test: how many of 1000 persons gave each pattern of answers to five items, from
# 00000 to 11111 ("Fitting a response model for n dichotomously scored items", Bock & Lieberman, 1970).
_LSAT6 = [3, 6, 2, 11, 1, 1, 3, 4, 1, 8, 0, 16, 0, 3, 2, 15]
_LSAT6 += [10, 29, 14, 81, 3, 28, 15, 80, 16, 56, 21, 173, 11, 61, 28, 298]


def lsat6() -> tuple[np.ndarray, None]:
    """Answers 0 and 1 of 1000 persons to the five items of LSAT 6, `(1000, 5)`, sorted by pattern, and no labels.

    Example:
        >>> lsat6()[0].sum(0).tolist()
        [924, 709, 553, 763, 870]
    """
    patterns = np.arange(32)[:, None] >> np.arange(4, -1, -1) & 1
    return np.repeat(patterns, _LSAT6, axis=0), None


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """Thirty measurements of the cell nuclei of 569 tumours, each in units of its standard deviation from its mean.

    Returns:
        The values, `(569, 30)`, and the labels: 0 malignant, 1 benign.

    Example:
        >>> values, labels = breast_cancer()
        >>> values.shape, np.bincount(labels).tolist()
        ((569, 30), [212, 357])
    """
    from sklearn.datasets import load_breast_cancer

    values, labels = load_breast_cancer(return_X_y=True)
    return (values - values.mean(0)) / values.std(0), labels


def breast_cancer_missing() -> tuple[np.ndarray, np.ndarray]:
    """The same with NaN in every other column: a value x is missing with probability 1 / (1 + e^(2 − 4x)).

    Example:
        >>> values, labels = breast_cancer_missing()
        >>> bool(np.isnan(values[:, ::2]).any(0).all()), bool(np.isnan(values[:, 1::2]).any())
        (True, False)
    """
    values, labels = breast_cancer()
    uniform = np.random.default_rng(0).random(values.shape)
    hidden = uniform < 1 / (1 + np.exp(2 - 4 * values))
    hidden[:, 1::2] = False
    return np.where(hidden, np.nan, values), labels


def diabetes_missing() -> tuple[np.ndarray, None]:
    """Ten measurements of 442 patients, and how far their disease went in a year, a tenth of them missing at random.

    The columns are age, sex (0 or 1), body mass index, blood pressure, six serum values, and progression, in their own
    units: whole numbers (age, three of the serum values, progression) and positive ones.

    Returns:
        The values, `(442, 11)`, NaN where one is missing, and no labels.

    Example:
        >>> values, _ = diabetes_missing()
        >>> values.shape, int(np.isnan(values).sum()), np.unique(values[:, 1])[:2].tolist()
        ((442, 11), 508, [0.0, 1.0])
    """
    from sklearn.datasets import load_diabetes

    measured, progression = load_diabetes(return_X_y=True, scaled=False)
    values = np.column_stack([measured, progression]).astype(float)
    values[:, 1] -= 1  # the sex is 1 or 2 there
    return np.where(np.random.default_rng(0).random(values.shape) < 0.1, np.nan, values), None


# Values and, where there are any, labels, by the name of the data set.
TABLES: dict[str, Callable[[], tuple[np.ndarray, np.ndarray | None]]] = {
    "breast_cancer": breast_cancer,
    "breast_cancer_missing": breast_cancer_missing,
    "diabetes_missing": diabetes_missing,
    "lsat6": lsat6,
}


def _all_labels(labels: dict[str, Tensor], rows: dict[str, Tensor]) -> np.ndarray:
    """The labels of all data in the order of their rows."""
    in_order = np.empty(sum(len(part) for part in labels.values()), dtype=np.int64)
    for part, values in labels.items():
        in_order[rows[part]] = values
    return in_order


def _few_labels(labels: dict[str, Tensor], rows: dict[str, Tensor]) -> np.ndarray:
    """The same, but −1 for all but 200 training data."""
    in_order = _all_labels(labels, rows)
    hidden = np.ones(len(in_order), dtype=bool)
    hidden[rows["train"][:NUM_FEW_LABELS]] = False
    in_order[hidden] = -1
    return in_order


# The labels of the digits as context, by the name of the data set, from labels and row numbers by part.
LABELLED = {"few_labels": _few_labels, "labelled_digits": _all_labels}
