"""What the audit would have caught: copies of training rows planted among the samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.auditing.rank_tests import TailNull, close_test, ladder, ratios

SHARES = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05)
PLANTED_NOISE = 0.05  # deviation of a planted copy, in units of each (scaled) column


@dataclass(frozen=True)
class Power:
    """Share of plantings of `copies` near-copies (`share` of the samples) called copies."""

    share: float
    copies: int
    caught: float
    stderr: float


def planted_power(
    pool: np.ndarray,
    is_member: np.ndarray,
    to_samples: np.ndarray,
    spacing: np.ndarray,
    samples: int,
    *,
    tests: int,
    alpha: float = 0.05,
    repeats: int = 200,
    seed: int = 0,
) -> list[Power]:
    """How often planted copies would have been called copies, at each of SHARES.

    Copies of random training rows with noise are added to the samples; distances to them are
    computed exactly; both tests that the verdict `copies` needs are run afresh, each at `alpha` /
    `tests` (the verdict's Holm correction is never stricter, so the rate is a lower bound). Each
    planting draws the labels anew among the pool, so that what the samples themselves hold does
    not count as caught. spacing: (N, 5) distances of pool rows to their pool neighbours. Shares
    above the first that is always caught are left out.
    """
    rng = np.random.default_rng(seed)
    members = int(is_member.sum())
    ks = ladder(members, len(pool) - members, alpha)
    null = TailNull(members, len(pool) - members, ks)
    critical = null.critical(alpha / tests)
    result: list[Power] = []
    for share in SHARES:
        copies = round(share * samples)
        if copies < 1 or (result and copies == result[-1].copies):
            continue
        if copies > members:
            break
        hits = 0
        for _ in range(repeats):
            labels = is_member[rng.permutation(len(pool))]
            chosen = rng.choice(np.flatnonzero(labels), copies, replace=False)
            planted = pool[chosen] + PLANTED_NOISE * rng.standard_normal((copies, pool.shape[1]))
            near = np.minimum(to_samples, _closest(pool, planted))
            first = _smallest(ratios(near, spacing[:, -1]), ks[-1], rng)
            if null.least_p(labels[first]) <= critical:
                hits += close_test(near, spacing[:, 0], labels).p_value <= alpha / tests
        caught = hits / repeats
        error = float(np.sqrt(caught * (1 - caught) / repeats))
        result.append(Power(copies / samples, copies, caught, error))
        if hits == repeats:
            break
    return result


def _closest(pool: np.ndarray, planted: np.ndarray) -> np.ndarray:
    """Distance (N,) from each pool row to its nearest planted copy."""
    best = np.full(len(pool), np.inf)
    norm = np.einsum("nd,nd->n", pool, pool)
    for start in range(0, len(planted), 256):
        block = planted[start : start + 256]
        square = norm[:, None] - 2 * pool @ block.T + np.einsum("kd,kd->k", block, block)
        best = np.minimum(best, square.min(1))
    return np.sqrt(np.maximum(best, 0))


def _smallest(ratio: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of the `count` smallest ratios in order, ties at random."""
    shuffled = rng.permutation(len(ratio))
    part = shuffled[np.argpartition(ratio[shuffled], min(count, len(ratio) - 1))[:count]]
    return part[np.argsort(ratio[part], kind="stable")]
