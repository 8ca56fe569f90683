"""Paired timings: both sides in turn in one process, so that a drifting machine moves both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pair:
    """Seconds per call of ours and of theirs, and the ratio ours / theirs, pair by pair."""

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"ours {self.ours * 1e3:9.3f} ms   theirs {self.theirs * 1e3:9.3f} ms   "
            f"ratio {self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"
        )


def paired(
    ours: Callable,
    theirs: Callable,
    repeats: int = 7,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Pair:
    """Time both in turn; medians, and the ratio's range over the repeats.

    clock: `time.thread_time` for single-threaded calls, which a busy machine does not disturb.
    """
    for _ in range(warmup):
        ours()
        theirs()
    times = np.array([(_seconds(ours, clock), _seconds(theirs, clock)) for _ in range(repeats)])
    ratio = times[:, 0] / times[:, 1]
    return Pair(*np.median(times, axis=0), np.median(ratio), ratio.min(), ratio.max())


def _seconds(call: Callable, clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start
