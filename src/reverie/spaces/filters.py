"""Orthonormal wavelet filters, and one level of their periodic transform as a matrix.

Haar and the Daubechies filters db1 to db12 are computed here by spectral factorisation
(Daubechies 1992, section 6.1); every other orthogonal wavelet comes from PyWavelets.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np

from reverie.errors import InputError

ROUNDING = 1e-9  # of published taps
MOST_MOMENTS = 12  # beyond, the roots of the factorisation lose digits


def low_pass(wavelet: str) -> np.ndarray:
    """Decomposition low-pass filter (F,) of a wavelet, as `haar`, `db4`, `sym5` or `coif2`.

    Raises InputError on an unknown or biorthogonal wavelet, and where PyWavelets is needed and
    missing.
    """
    name = "db1" if wavelet == "haar" else wavelet
    moments = name[2:] if name.startswith("db") else ""
    if moments.isdigit() and 1 <= int(moments) <= MOST_MOMENTS:
        return _daubechies(int(moments))
    try:
        pywt: Any = import_module("pywt")  # an extra, and without types
    except ImportError as error:
        raise InputError(
            f"the wavelet {wavelet!r} needs PyWavelets: pip install 'reverie[wavelets]'; without "
            f"it there are haar and db1 to db{MOST_MOMENTS}"
        ) from error
    known = wavelet in pywt.wavelist(kind="discrete")
    taps = np.asarray(pywt.Wavelet(wavelet).dec_lo) if known else np.zeros(2)
    overlaps = np.correlate(taps, taps, "full")[len(taps) - 1 :: 2]
    if abs(overlaps[0] - 1) > ROUNDING or (np.abs(overlaps[1:]) > ROUNDING).any():
        raise InputError(
            f"{wavelet!r} is no orthonormal wavelet of PyWavelets, as haar, db4, sym5"
        )
    return taps


def _daubechies(moments: int) -> np.ndarray:
    """Minimum-phase filter (2 p,) with p vanishing moments, sum sqrt(2) (Daubechies 1992).

    The roots y of sum_k C(p - 1 + k, k) y^k, y = (2 - z - 1/z) / 4, give one root z inside the
    unit circle each; p more lie at -1.
    """
    powers = [math.comb(moments - 1 + k, k) for k in range(moments - 1, -1, -1)]
    inside = []
    for y in np.roots(powers):
        pair = np.roots([1, 4 * y - 2, 1])
        inside.append(pair[np.abs(pair).argmin()])
    taps = np.real(np.poly([-1.0] * moments + inside))
    return taps[::-1] * math.sqrt(2) / taps.sum()


def level_matrix(filters: np.ndarray, size: int) -> np.ndarray:
    """One level of the periodic transform of a signal of even length: (size, size), orthogonal.

    The first half of its rows are averages, the second half details, as PyWavelets orders them
    in the mode "periodization". Raises InputError on an odd size.
    """
    if size % 2:
        raise InputError(f"a wavelet level halves its signal, but {size} is odd")
    taps = len(filters)
    details = filters[::-1] * (-1.0) ** (np.arange(taps) + 1)
    matrix = np.zeros((size, size))
    for k in range(size // 2):
        for j in range(taps):
            place = (2 * k + taps // 2 - j) % size
            matrix[k, place] += filters[j]
            matrix[size // 2 + k, place] += details[j]
    return matrix
