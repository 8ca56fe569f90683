"""Do two models make the same points from the same noise? (Zhang et al. 2024)

Both run a deterministic sampler from the same noise. On the *same* data agreement is expected; the
informative case is disjoint data (Kadkhodaie et al. 2024): models that generalise agree, models
that memorise do not.

    RP   share of noises whose two points are alike
    M    share of points that are like some training row;   GL = 1 - M
    RP to the memoriser: RP of a model with the empirical optimum of its own training rows

The paper calls two images alike at a fixed cosine of a copy-detection network. Here likeness is a
distance, and its threshold is set on held-out rows, so that every share has a known null: for RP
the distance that a share NULL of pairs of held-out rows falls below, for M the one below which a
share NULL of held-out rows have a training row.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.nulls.rank_tests import wilson
from reverie.errors import InputError

NULL = 0.01
SIMILARITIES = ("distance", "correlation")
LEAST_HELD = 20


@dataclass(frozen=True)
class Share:
    """A share of points that are alike, with its 95% Wilson interval and its null."""

    hits: int
    count: int
    null: float  # the same share among rows that have nothing to do with one another
    threshold: float  # alike: at most so far apart, in scaled units

    @property
    def value(self) -> float:
        return self.hits / self.count

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.hits, self.count)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"value": self.value, "interval": self.interval}


class Likeness:
    """Distances in common units, with thresholds from held-out rows (m, *shape), m >= 20.

    similarity: `distance` (every column by its deviation, images by one) or `correlation` of the
    coordinates of two points. Raises InputError on too few rows or another word.
    """

    def __init__(
        self, holdout: np.ndarray, *, images: bool = False, similarity: str = "distance"
    ) -> None:
        if similarity not in SIMILARITIES:
            raise InputError(f"similarity={similarity!r}: choose {' or '.join(SIMILARITIES)}")
        if len(holdout) < LEAST_HELD:
            raise InputError(
                f"{len(holdout)} held-out rows: a threshold needs at least {LEAST_HELD}"
            )
        self.similarity = similarity
        flat = np.asarray(holdout, dtype=np.float64).reshape(len(holdout), -1)
        scale = np.atleast_1d(flat.std() if images else flat.std(0))
        self.scale = np.where(scale > 0, scale, 1.0)
        self.held = self.units(holdout)

    def units(self, values: np.ndarray) -> np.ndarray:
        """Rows (n, d) whose Euclidean distance is the one that counts."""
        flat = np.asarray(values, dtype=np.float64).reshape(len(values), -1) / self.scale
        if self.similarity == "distance":
            return flat
        flat = flat - flat.mean(1, keepdims=True)
        size = np.linalg.norm(flat, axis=1, keepdims=True)
        return flat / np.where(size > 0, size, 1.0)  # |a - b|^2 = 2 - 2 correlation

    def pair_threshold(self, seed: int = 0) -> float:
        """Distance that a share NULL of pairs of different held-out rows falls below."""
        order = np.random.default_rng(seed).permutation(len(self.held))
        pairs = [self.held[order] - self.held[np.roll(order, k)] for k in range(1, 11)]
        return float(np.quantile(np.linalg.norm(np.concatenate(pairs), axis=1), NULL))

    def row_threshold(self, train: np.ndarray) -> float:
        """Distance within which a share NULL of held-out rows have a row of `train`."""
        return float(np.quantile(nearest(self.held, self.units(train), 1)[0], NULL))


def reproducibility(
    first: np.ndarray, second: np.ndarray, likeness: Likeness, *, seed: int = 0
) -> Share:
    """RP of two models' points (n, *shape), made from the same noises in the same order.

    null: the share among points of different noises, which would be NULL if the models made
    points like held-out rows. Raises InputError where the two are not paired.
    """
    if first.shape != second.shape or len(first) < 2:
        raise InputError(
            f"points of shapes {first.shape} and {second.shape} are not made from the same noises"
        )
    one, two = likeness.units(first), likeness.units(second)
    threshold = likeness.pair_threshold(seed)
    hits = int((np.linalg.norm(one - two, axis=1) <= threshold).sum())
    unpaired = [np.linalg.norm(one - np.roll(two, k, axis=0), axis=1) for k in _shifts(len(one))]
    return Share(hits, len(one), float((np.concatenate(unpaired) <= threshold).mean()), threshold)


def _shifts(count: int) -> range:
    return range(1, min(count, 11))


def memorised(samples: np.ndarray, train: np.ndarray, likeness: Likeness) -> Share:
    """M: the share of samples (n, *shape) that are like a training row; GL = 1 - M. Null: NULL."""
    threshold = likeness.row_threshold(train)
    near = nearest(likeness.units(samples), likeness.units(train), 1)[0][:, 0]
    return Share(int((near <= threshold).sum()), len(near), NULL, threshold)
