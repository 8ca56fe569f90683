"""Whether the processes of one fit were given the same settings and rows, and can part a batch."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from reverie.data import Dataset
from reverie.errors import InputError
from reverie.runs.config import FitConfig
from reverie.runs.ranks import Ranks
from reverie.runs.runtime import Runtime


def check_parts(config: FitConfig, count: int) -> None:
    """Raise InputError where a batch is not that many processes times that many parts."""
    if config.batch_size % (count * config.accumulate):
        parts = f" and {config.accumulate} parts each" if config.accumulate > 1 else ""
        raise InputError(
            f"batch_size {config.batch_size} does not divide over {count} processes{parts}: "
            f"choose a multiple of {count * config.accumulate}"
        )


def check_alike(
    ranks: Ranks, config: FitConfig, splits: tuple[Dataset, Dataset], runtime: Runtime
) -> None:
    """Raise InputError in every process where their number, settings or rows do not fit."""
    if ranks.count == 1:
        return
    ranks.same("settings", json.dumps(config.to_json(), sort_keys=True))
    ranks.agreed(lambda: _check_count(config, ranks.count, runtime))
    ranks.same("rows", " ".join(f"{part.sha256()} {_digest(part.conditions)}" for part in splits))


def _check_count(config: FitConfig, count: int, runtime: Runtime) -> None:
    if runtime.devices not in (1, count):
        raise InputError(
            f"a launcher started {count} processes, and devices is {runtime.devices}: "
            "leave devices out"
        )
    check_parts(config, count)


def _digest(conditions: np.ndarray | None) -> str:
    """A checksum of what rows are told."""
    if conditions is None:
        return ""
    return hashlib.sha256(np.ascontiguousarray(conditions).tobytes()).hexdigest()
