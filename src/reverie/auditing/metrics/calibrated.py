"""Every rate and distance of the field beside what fresh data would score in its place.

The null of most copying metrics is neither 0 nor 1/2 and moves with dimension and size, so each
row carries the value that held-out rows reach in the place of the samples, and the difference.
"""

from __future__ import annotations

import math

import numpy as np

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.metrics.data_copying import copying_test
from reverie.auditing.metrics.feature_metrics import fld, frechet_distance, kid
from reverie.auditing.metrics.principal import principal
from reverie.auditing.metrics.rates import (
    authentic,
    coverage_null,
    intrinsic_dimension,
    prdc,
    ratio_hits,
)
from reverie.auditing.nulls.rank_tests import THIRD, wilson
from reverie.auditing.row import Row
from reverie.errors import InputError

PAIR_ROWS = 10_000  # rows a side of the metrics that look at all pairs
QUERY_ROWS = 500  # rows whose neighbours are looked up, where that is much work:
PAIR_WORK = 3e10  # multiplications of all pairs
NEIGHBOURS = 10  # that the intrinsic dimension looks at
FEATURE_ROWS = 5000
COLUMNS = 64  # principal columns that the feature distances look at
RESAMPLES = 30
LEAST = 20
OVERLAP = 1.4  # coverage: balls overlap, and its deviation is 1.1 to 1.35 that of independent rows


def calibrated_rates(
    members: np.ndarray, held: np.ndarray, drawn: np.ndarray, seed: int = 0
) -> list[Row]:
    """The 1/3 rule, authenticity, PRDC, C_T, and the Frechet, kernel and likelihood distances.

    members, held, drawn: rows (N, d) in one common scale. Each `Row` has its null with the
    held-out rows' own value, and in `detail` the difference from it with a 95% interval. Only C_T
    has a p-value (against a perfect generator, so it is not corrected jointly with the exchange
    tests). Metrics that need more rows than there are, are left out.
    """
    rng = np.random.default_rng(seed)
    return [
        *_nearest_rates(members, held, drawn, rng),
        *_prdc_rows(members, held, drawn, rng),
        *_feature_rows(*_principal(members, held, drawn, seed), rng),
    ]


def _principal(
    members: np.ndarray, held: np.ndarray, drawn: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most 64 columns, centred: the kernel of KID sees where the origin lies."""
    first, second, third = principal([members, held, drawn], COLUMNS, 2, seed)
    return first, second, third


def _nearest_rates(
    members: np.ndarray, held: np.ndarray, drawn: np.ndarray, rng: np.random.Generator
) -> list[Row]:
    """The 1/3 rule and authenticity: rates of single samples against all training rows."""
    most = max(QUERY_ROWS, int(PAIR_WORK / members.size))
    asked, drawn = (_some(rows, most, rng) for rows in (held, drawn))
    known = nearest(asked, members, NEIGHBOURS)
    found = nearest(drawn, members, 2)
    dim = intrinsic_dimension(asked, members, NEIGHBOURS, known)
    law = "" if math.isnan(dim) else f"; c^d gives {THIRD**dim:.2%} at dimension {dim:.1f}"
    of = f" ({len(asked):,} of {len(held):,})" if len(asked) < len(held) else ""
    pairs = ((drawn, found), (asked, known))
    copied, null = (ratio_hits(members, rows, THIRD, near) for rows, near in pairs)
    fresh, usual = (authentic(members, rows, near) for rows, near in pairs)
    return [
        _compared("1/3-ratio rate", copied, null, f"held-out rows{of} {null.mean():.2%}{law}"),
        _compared("authenticity", fresh, usual, f"held-out rows{of} {usual.mean():.1%}, not 50%"),
    ]


def _prdc_rows(
    members: np.ndarray, held: np.ndarray, drawn: np.ndarray, rng: np.random.Generator
) -> list[Row]:
    """Precision, recall, density, coverage; as many held-out rows as samples in their place."""
    size = min(len(held), len(drawn), PAIR_ROWS)
    most = max(QUERY_ROWS, int(math.sqrt(PAIR_WORK / 2 / members.shape[1])))
    real = _some(members, min(PAIR_ROWS, most), rng)
    if min(size, len(real)) <= 5:
        return []
    ours, theirs = (vars(prdc(real, _some(rows, size, rng))) for rows in (drawn, held))
    among = f"; among {len(real):,} training rows" if len(real) < len(members) else ""
    formula = {"coverage": f"; formula {coverage_null(len(real), size):.3f}"}
    return [
        _compared(
            name,
            ours[name],
            theirs[name],
            f"held-out rows {theirs[name].mean():.3f}{formula.get(name, '')}{among}",
            OVERLAP if name == "coverage" else 1.0,
        )
        for name in ours
    ]


def _feature_rows(
    members: np.ndarray, held: np.ndarray, drawn: np.ndarray, rng: np.random.Generator
) -> list[Row]:
    """C_T, Frechet gap, KID and FLD gap; one half of the held-out rows stands in for samples."""
    seed = int(rng.integers(2**31))
    rows = _copying_row(members, held, drawn, seed)
    size = min(len(held) // 2, len(drawn), len(members), FEATURE_ROWS)
    if size < LEAST:
        return rows
    shuffled = held[rng.permutation(len(held))]
    stand_in, test = shuffled[:size], shuffled[size : 2 * size]
    drawn, train = _some(drawn, size, rng), _some(members, size, rng)
    gaps = [_frechet_gap(given, test, train, rng) for given in (drawn, stand_in)]
    kernels = [kid(given, test, seed) for given in (drawn, stand_in)]
    fits = [fld(train, test, given, seed) for given in (drawn, stand_in)]
    return [
        *rows,
        _distance("Frechet gap (held-out - training)", gaps, size),
        _distance("KID to held-out", kernels, size),
        _distance("FLD gap", [(fit.gap, fit.gap_stderr) for fit in fits], size),
    ]


def _copying_row(members: np.ndarray, held: np.ndarray, drawn: np.ndarray, seed: int) -> list[Row]:
    try:
        test = copying_test(members, held, drawn, seed=seed)
    except InputError:  # too few samples for any cell
        return []
    width = 1.96 * test.deviation
    return [
        Row(
            "C_T",
            test.value,
            f"normal, mean 0, deviation {test.deviation:.3f}; far below 0 is copying",
            (test.value - width, test.value + width),
            test.p_value,
            None,
            len(drawn),
            f"{len(test.z)} cells used, {test.unused} left out; p against a perfect generator",
        )
    ]


def _frechet_gap(
    drawn: np.ndarray, test: np.ndarray, train: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """FID(drawn, test) - FID(drawn, train) and its bootstrap deviation."""

    def gap(sets: list[np.ndarray]) -> float:
        return frechet_distance(sets[0], sets[1]) - frechet_distance(sets[0], sets[2])

    sets = [drawn, test, train]
    again = [
        gap([rows[rng.integers(len(rows), size=len(rows))] for rows in sets])
        for _ in range(RESAMPLES)
    ]
    return gap(sets), float(np.std(again, ddof=1))


def _compared(
    name: str, ours: np.ndarray, theirs: np.ndarray, null: str, widen: float = 1.0
) -> Row:
    """A mean over rows, and its difference from that of held-out rows in the samples' place."""
    value, other = float(ours.mean()), float(theirs.mean())
    width, spread = (1.96 * widen * a.std() / math.sqrt(len(a)) for a in (ours, theirs))
    interval = (float(value - width), float(value + width))
    if ours.dtype == bool:
        low, high = wilson(int(ours.sum()), len(ours))
        interval = (
            max(value + widen * (low - value), 0.0),
            min(value + widen * (high - value), 1),
        )
    difference = _versus(value - other, math.hypot(width, spread))
    return Row(name, value, null, interval, None, None, len(ours), difference)


def _distance(name: str, values: list[tuple[float, float]], size: int) -> Row:
    """A distance and its error, first of the samples, then of held-out rows in their place."""
    (value, error), (other, other_error) = values
    return Row(
        name,
        value,
        f"held-out rows {other:.3g}",
        (value - 1.96 * error, value + 1.96 * error),
        None,
        None,
        size,
        _versus(value - other, 1.96 * math.hypot(error, other_error)),
    )


def _versus(difference: float, width: float) -> str:
    low, high = difference - width, difference + width
    return f"{difference:+.3g} from held-out rows (95%: {low:+.3g} to {high:+.3g})"


def _some(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """At most `size` rows, drawn without replacement."""
    return rows if len(rows) <= size else rows[np.sort(rng.permutation(len(rows))[:size])]
