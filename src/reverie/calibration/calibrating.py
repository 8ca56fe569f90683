"""`calibrate`: read the weights of a `Calibrated` model off rows, and what they are worth.

Two sets of rows, so that the same rows never fit a guess and judge it:

    linear_rows    fit the reference (mean and covariance). The model's own training rows will do.
    rows           fit the weights: rows that neither part was trained on.

Without `linear_rows` half of the rows, drawn at random, become them. What calibration is worth is
told by folds: the weights of each fold of rows are read off the other folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.calibration.calibrated import Calibrated
from reverie.calibration.mixing import Guess, Mixing
from reverie.calibration.mixing_rules import PER, mixing_of
from reverie.calibration.references import Reference, reference_of
from reverie.calibration.result import CURVES, Calibration, curve_of
from reverie.curve import as_points, level_times
from reverie.denoisers.base import Denoiser, evaluating
from reverie.denoisers.exact.low_rank import MODES
from reverie.denoisers.networks.conditions import condition_rows
from reverie.errors import InputError

LEAST_ROWS = 4
FOLDS = 5


@torch.no_grad()
def calibrate(
    denoiser: Denoiser,
    rows: Tensor | np.ndarray,
    *,
    per: str = "mode",
    levels: int | Sequence[float] | np.ndarray = 64,
    condition: Any = None,
    linear_rows: Tensor | np.ndarray | None = None,
    reference: Reference | None = None,
    modes: int = MODES,
    folds: int = FOLDS,
    batch_size: int = 1024,
    generator: torch.Generator | None = None,
) -> Calibrated:
    """Mix a model with the best guess that a few moments allow, by weights read off rows.

    rows: (n, *shape) that the model was not trained on. per: "mode", one weight for each leading
    mode of the covariance where the noise is Gaussian, or "level", one for all. levels: as in
    `measure`. condition: (n, ...), one for each of `rows`. linear_rows: for the reference alone,
    default a random half of the rows; or `reference` itself. modes: at most, see `Moments.fit`.
    folds: for the error of the drop. Each row is noised at each level with one antithetic pair.
    The mixture's curve lies at or below the model's and the reference's at every level on the rows
    of the fit. Raises InputError on fewer than four rows, or values that are not finite.

    >>> import torch
    >>> from reverie import calibrate
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> wrong = Linear(VP(), torch.full((2,), 9.0), torch.ones(2), torch.eye(2))  # another mean
    >>> better = calibrate(wrong, rows, levels=16, generator=torch.Generator().manual_seed(0))
    >>> better.calibration.drop > 1  # nats
    True
    """
    process = denoiser.process
    if per not in PER:
        raise InputError(f"per={per!r}: choose one of {', '.join(PER)}")
    data = process.space.check(as_points(denoiser, rows))
    if len(data) < LEAST_ROWS:
        raise InputError(f"calibration needs at least {LEAST_ROWS} rows, not {len(data)}")
    condition = condition_rows(condition, len(data), data)
    noise = _own(generator, data)
    order = torch.randperm(len(data), generator=noise, device=data.device)
    data, given = data[order], _chosen(condition, order)
    base = None if linear_rows is None else process.space.check(as_points(denoiser, linear_rows))
    if base is None and reference is None:
        half = len(data) // 2
        base, data, given = data[:half], data[half:], _chosen(given, slice(half, None))
    known = reference if reference is not None else reference_of(process, base, modes)
    mixing = mixing_of(process, known, per)
    fit = _Fit(denoiser, known, mixing, level_times(process, levels), batch_size, folds)
    with evaluating(denoiser):
        found = fit(data, given, noise, 0 if base is None else len(base))
    return Calibrated(denoiser, known, fit.times, found.weights, per, found)


class _Fit:
    """Level by level: profiles of all rows, the weights, and the rates of the four curves."""

    def __init__(
        self,
        denoiser: Denoiser,
        reference: Reference,
        mixing: Mixing,
        times: np.ndarray,
        batch: int,
        folds: int,
    ) -> None:
        if folds < 2:
            raise InputError(f"folds is {folds}; rows are held out of at least two")
        self.denoiser, self.reference, self.mixing = denoiser, reference, mixing
        self.times, self.batch, self.folds = times, batch, folds

    def __call__(
        self, data: Tensor, condition: Any, noise: torch.Generator, base: int
    ) -> Calibration:
        ends = np.zeros(self.mixing.groups), np.ones(self.mixing.groups)
        fold = np.arange(len(data)) % min(self.folds, len(data))
        weights, errors = [], []
        curves: dict[str, list[np.ndarray]] = {name: [] for name in CURVES}
        clocks = self.denoiser.process.clock(torch.as_tensor(self.times)).numpy()
        for time, clock in zip(self.times, clocks.reshape(len(self.times), -1), strict=True):
            profile = self._profile(data, condition, float(time), noise)
            found = self.mixing.solve(profile, clock)
            weights.append(found.value)
            errors.append(found.stderr)
            curves["reference"].append(self.mixing.rates(profile, ends[0]))
            curves["before"].append(self.mixing.rates(profile, ends[1]))
            curves["after"].append(self.mixing.rates(profile, found.value))
            out = np.empty_like(curves["after"][-1])
            whole = np.isfinite(profile).all()  # else one fold may not know of another's infinity
            for k in range(fold.max() + 1):
                others = self.mixing.solve(profile[fold != k], clock).value * whole
                out[fold == k] = self.mixing.rates(profile[fold == k], others)
            curves["held_out"].append(out)
        stacked = {name: np.stack(values, 1) for name, values in curves.items()}
        return self._result(data, stacked, np.stack(weights), np.stack(errors), base)

    def _profile(
        self, data: Tensor, condition: Any, time: float, noise: torch.Generator
    ) -> np.ndarray:
        t, parts = torch.tensor(time, dtype=torch.float64), []
        for start in range(0, len(data), self.batch):
            rows = data[start : start + self.batch]
            extra = _chosen(condition, slice(start, start + self.batch))
            parts.append(self.mixing.profile(self.reference, self._told(extra), rows, t, noise))
        return np.concatenate(parts)

    def _told(self, condition: Any) -> Guess:
        """The model told the condition of each row of an antithetic pair."""
        if isinstance(condition, Tensor) and condition.ndim > 0:
            condition = torch.cat([condition, condition])
        return lambda state, t: self.denoiser(state, t, condition)

    def _result(
        self,
        data: Tensor,
        rates: dict[str, np.ndarray],
        weights: np.ndarray,
        errors: np.ndarray,
        base: int,
    ) -> Calibration:
        process = self.denoiser.process
        clock = process.clock(torch.as_tensor(self.times)).numpy()
        dim = data[0].numel()
        warnings = []
        lost = ~np.isfinite(rates["before"]).reshape(len(data), -1).all(1)
        if lost.any():
            # a guess that is not finite is charged as the largest finite number would be
            rates["before"] = np.nan_to_num(rates["before"], nan=BIG, posinf=BIG)
            warnings.append("the model's guess is not finite at some levels, where it has no say")
        curves = {
            name: curve_of(values, clock, self.times, process, dim, name)
            for name, values in rates.items()
        }
        share = curves["before"].weights.reshape(-1)
        gain = (rates["before"] - rates["held_out"]).reshape(len(data), -1) @ share
        drop = curves["before"].area() - curves["held_out"].area()
        error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else np.nan
        return Calibration(
            clock, weights, errors, **curves, drop=drop, drop_stderr=error,
            kind=self.reference.kind, rows=len(data), reference_rows=base,
            warnings=tuple(warnings),
        )  # fmt: skip


BIG = 1e30


def _own(generator: torch.Generator | None, data: Tensor) -> torch.Generator:
    """A generator that can be rewound, where none is given."""
    if generator is not None:
        return generator
    seed = int(torch.randint(2**31, ()))
    return torch.Generator(data.device).manual_seed(seed)


def _chosen(condition: Any, index: Any) -> Any:
    """The conditions of some rows; a model's own kind of condition passes as it is."""
    if isinstance(condition, Tensor) and condition.ndim > 0:
        return condition[index]
    return condition
