"""Scores of a two-class classifier, with numpy alone so that anyone can check them."""

from __future__ import annotations

import numpy as np

RESAMPLES = 10_000
SEED = 7


def area_under_curve(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Chance that a random positive scores above a random negative; ties count half."""
    positive, negative = probabilities[targets == 1], probabilities[targets == 0]
    above = (positive[:, None] > negative).mean()
    return float(above + 0.5 * (positive[:, None] == negative).mean())


def calibration_error(targets: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins of the probability."""
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    error = 0.0
    for n in range(bins):
        inside = which == n
        if inside.any():
            error += inside.mean() * abs(probabilities[inside].mean() - targets[inside].mean())
    return float(error)


def wilson(right: int, total: int, z: float = 1.959964) -> list[float]:
    """95 % Wilson interval of a share."""
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return [float(middle - half), float(middle + half)]


def bootstrap(measure, targets: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """95 % percentile bootstrap interval of `measure` over rows."""
    random, found = np.random.default_rng(SEED), []
    while len(found) < RESAMPLES:
        chosen = random.integers(0, len(targets), len(targets))
        if 0 < targets[chosen].sum() < len(targets):
            found.append(measure(targets[chosen], probabilities[chosen]))
    low, high = np.percentile(found, [2.5, 97.5])
    return [float(low), float(high)]


def score(targets: np.ndarray, probabilities: np.ndarray) -> dict:
    """All scores; `probabilities` are of class 1 (benign)."""
    targets, probabilities = np.asarray(targets), np.asarray(probabilities, dtype=np.float64)
    guesses = probabilities > 0.5
    right = int((guesses == targets).sum())
    clipped = np.clip(probabilities, 1e-12, 1 - 1e-12)
    brier = lambda t, p: float(((p - t) ** 2).mean())
    return {
        "rows": len(targets),
        "accuracy": right / len(targets),
        "accuracy_95": wilson(right, len(targets)),
        "malignant_called_benign": int((guesses & (targets == 0)).sum()),
        "benign_called_malignant": int((~guesses & (targets == 1)).sum()),
        "auc": area_under_curve(targets, probabilities),
        "auc_95": bootstrap(area_under_curve, targets, probabilities),
        "brier": brier(targets, probabilities),
        "brier_95": bootstrap(brier, targets, probabilities),
        "log_loss": float(-np.log(np.where(targets == 1, clipped, 1 - clipped)).mean()),
        "calibration_error": calibration_error(targets, probabilities),
    }
