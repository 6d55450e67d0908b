"""Small tables that need no download: scikit-learn's own, and one that is printed here."""

from collections.abc import Callable

import numpy as np

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


# Values and, where there are any, labels, by the name of the data set.
TABLES: dict[str, Callable[[], tuple[np.ndarray, np.ndarray | None]]] = {"breast_cancer": breast_cancer, "lsat6": lsat6}
