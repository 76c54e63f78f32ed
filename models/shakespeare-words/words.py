"""What training and checking of the word vectors share: the split, and how passages are found again. numpy alone."""

from __future__ import annotations

import numpy as np

PASSAGE = 600  # bytes of a passage, at least
RESAMPLES = 10_000
SEED = 7


def split(text: str) -> tuple[str, str]:
    """Train and test text: the test part is the last 5 %, cut where a speech begins, as for the language model."""
    end = text.index("\n\n", len(text) * 90 // 100) + 2
    start = text.index("\n\n", len(text) * 95 // 100) + 2
    return text[:end], text[start:]


def halves(text: str) -> tuple[list[str], list[str]]:
    """Neighbouring speeches, gathered to passages; of each, the speeches at even places and those at odd places.

    Names of speakers are left out: they would tell which halves belong together without a word being read.
    """
    queries, targets, speeches = [], [], []
    for paragraph in text.split("\n\n"):
        heading, _, words = paragraph.strip("\n").partition("\n")
        if heading.endswith(":") and words:
            speeches.append(words)
        if sum(map(len, speeches)) >= PASSAGE and len(speeches) > 1:
            queries.append("\n".join(speeches[::2]))
            targets.append("\n".join(speeches[1::2]))
            speeches = []
    return queries, targets


def score(queries: np.ndarray, targets: np.ndarray) -> dict:
    """How well the vectors of the first halves find those of the second, among all of them."""
    likeness = queries @ targets.T
    right = np.diag(likeness)[:, None]
    # A tie counts as half a place, so that a model which calls everything alike gains nothing.
    ranks = 1 + (likeness > right).sum(1) + ((likeness == right).sum(1) - 1) / 2
    resampled = np.random.default_rng(SEED).integers(0, len(ranks), (RESAMPLES, len(ranks)))
    interval = lambda values: np.percentile(values[resampled].mean(1), [2.5, 97.5]).tolist()
    return {
        "passages": len(ranks),
        "first": float((ranks == 1).mean()),
        "first_95": interval(ranks == 1),
        "reciprocal_rank": float((1 / ranks).mean()),
        "reciprocal_rank_95": interval(1 / ranks),
    }


def chance(passages: int) -> dict:
    """What guessing scores."""
    places = np.arange(1, passages + 1)
    return {"first": 1 / passages, "reciprocal_rank": float((1 / places).mean())}
