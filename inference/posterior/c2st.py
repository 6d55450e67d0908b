"""Whether a classifier can tell the draws of two distributions apart.

Trained on labelled draws of q and p, as many of each, a classifier is right about others with probability

    accuracy ≤ (1 + TV(q, p))/2,      ½ if q = p,

with equality for the best one there is. Here it is a quadratic discriminant, which sees means, scales and correlations
and costs milliseconds; it needs no density, and so checks what was computed with densities.

References:
    Revisiting Classifier Two-Sample Tests (Lopez-Paz & Oquab, 2017), arXiv:1610.06545.
    Inference for the Generalization Error (Nadeau & Bengio, 2003), Machine Learning 52: the error.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

# Draws of each side that the classifier sees, at most, and the parts that it is cross-validated in.
CLASSIFIER_DRAWS, FOLDS = 2000, 5


def classifier_accuracy(q: Tensor, p: Tensor) -> tuple[float, float]:
    """Cross-validated accuracy of a quadratic discriminant between two sets of draws, and its standard error.

    Parts that are trained on the same draws do not err independently, for which the binomial variance is multiplied by
    1 + F/(F − 1) with F parts.

    Args:
        q: independent draws, ``(num_draws, dim)``.
        p: others.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> accuracy, error = classifier_accuracy(torch.randn(500, 2), torch.randn(500, 2))
        >>> abs(accuracy - 0.5) < 3 * error
        True
        >>> classifier_accuracy(torch.randn(500, 2), 10 + torch.randn(500, 2))[0]
        1.0
    """
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    n = min(len(q), len(p), CLASSIFIER_DRAWS)
    order = torch.randperm(len(p))[:n]
    both = torch.cat([q[:n], p[order]]).numpy()
    labels = np.repeat([0, 1], n)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on coordinates that are nearly a function of each other
        accuracy = float(cross_val_score(QuadraticDiscriminantAnalysis(reg_param=1e-4), both, labels, cv=folds).mean())
    variance = max(accuracy * (1 - accuracy), 1 / (8 * n)) / (2 * n)  # also where none was mistaken
    return accuracy, math.sqrt(variance * (1 + FOLDS / (FOLDS - 1)))
