"""Rows that several samples are near to: one record with noise, drawn again and again.

A row that AGAIN samples are near to is one event, of one crowd that lies at it, and not AGAIN of
them: an honest generator may repeat itself, and its crowd meet a row by chance. But then its other
crowds lie elsewhere. So the chances are the crowds: a sample is in one if AGAIN - 1 others lie
about it as close as its nearest row would let them be near, and there are at most a AGAIN-th as
many crowds as such samples, each with the chance of one fresh draw to be near a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reverie.auditing.facts.neighbours import nearest

AGAIN = 6
ASKED = 2000  # samples, of which the share that stands in crowds is read


def met_again(place: np.ndarray) -> np.ndarray:
    """Mask (Q,) of near samples whose row AGAIN of them lie at; place: (Q,) the row of each."""
    _, back, count = np.unique(place, return_inverse=True, return_counts=True)
    return count[back] >= AGAIN


def crowds(samples: np.ndarray, reach: Callable[[np.ndarray], np.ndarray]) -> float:
    """How many crowds there may be among samples (Q, d).

    reach: of samples (R,), how far from its nearest row each would be near to it. They are
    counted apart from one another where all samples are asked, else bounded as the module says.
    """
    if len(samples) < AGAIN:
        return 0.0
    asked = np.arange(len(samples))
    if len(samples) > ASKED:
        asked = np.random.default_rng(0).choice(len(samples), ASKED, replace=False)
    farthest = nearest(samples[asked], samples, AGAIN)[0][:, -1]  # itself among them
    wide = 2 * reach(asked)
    crowded = asked[farthest <= wide]
    if len(asked) < len(samples):
        return (len(crowded) + 1) / len(asked) * len(samples) / AGAIN
    wide, count = wide[crowded], 0
    while len(crowded):
        apart = np.linalg.norm(samples[crowded] - samples[crowded[0]], axis=1) > wide[0]
        crowded, wide, count = crowded[apart], wide[apart], count + 1
    return float(count)
