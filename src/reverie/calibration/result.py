"""What a calibration brought, level by level, in nats and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.processes import Process

CURVES = ("before", "reference", "after", "held_out")
PLAIN = ("drop", "drop_stderr", "kind", "rows", "reference_rows")


@dataclass(frozen=True, eq=False)
class Calibration:
    """What calibration did, level by level and in nats per sample.

    levels: (L,) or (L, J) clock values. weights, stderr: (L, G), one a level, or one a mode (of
    which the last may be all the rest). before, reference, after: curves of the model, of the
    reference and of the mixture on the rows of the fit, with the same noise: `after` lies at or
    below both at every level. held_out: the mixture's, each row judged with the weights of the
    other folds. drop: the area that the model loses by held_out, with its standard error over
    rows. rows, reference_rows: how many fitted the weights, and the reference.

    >>> import torch
    >>> from reverie import calibrate
    >>> from reverie.calibration import Calibration
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> model = Linear(VP(), torch.zeros(2), torch.ones(2), torch.eye(2))
    >>> noise = torch.Generator().manual_seed(0)
    >>> found = calibrate(model, rows, levels=8, generator=noise).calibration
    >>> isinstance(found, Calibration), found.after.area() <= found.before.area()
    (True, True)
    """

    levels: np.ndarray
    weights: np.ndarray
    stderr: np.ndarray
    before: LossCurve
    reference: LossCurve
    after: LossCurve
    held_out: LossCurve
    drop: float
    drop_stderr: float
    kind: str
    rows: int
    reference_rows: int
    warnings: tuple[str, ...] = field(default=())

    @property
    def mean_weight(self) -> np.ndarray:
        """The weight (L,) of the model by level: the mean over its modes, each counted once."""
        return self.weights.mean(1)

    def __str__(self) -> str:
        head = (
            f"calibrated on {self.rows} rows: the area falls from {self.before.area():.4g} to "
            f"{self.held_out.area():.4g} nats, by {self.drop:.3g} +- {self.drop_stderr:.2g} on "
            f"rows held out"
        )
        return "; ".join([head, *self._where(), *self.warnings])

    def _where(self) -> list[str]:
        """Where the model is not heard, and where it is left alone, in words."""
        weight = self.mean_weight
        if self.weights.min() > 0.99:
            return ["the model is left alone at every level"]
        said = []
        silent = np.flatnonzero(np.cumprod(weight < 0.01))
        if len(silent):
            said.append(f"{self._noisier(silent[-1])} only the reference ({self.kind}) is used")
        alone = np.flatnonzero(np.cumprod((weight > 0.99)[::-1]))
        if len(alone):
            said.append(f"{self._cleaner(len(weight) - 1 - alone[-1])} the model's own")
        return said

    def _noisier(self, level: int) -> str:
        return _place(self.before, level, "above", "below")

    def _cleaner(self, level: int) -> str:
        return _place(self.before, level, "below", "above")

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; the curves without their covariance."""
        arrays = {k: getattr(self, k).tolist() for k in ("levels", "weights", "stderr")}
        arrays["stderr"] = [[_finite(v) for v in row] for row in arrays["stderr"]]
        curves = {k: getattr(self, k).to_json() for k in CURVES}
        for curve in curves.values():
            curve.pop("covariance", None)
        plain = {k: getattr(self, k) for k in PLAIN} | {"warnings": list(self.warnings)}
        plain["drop_stderr"] = _finite(self.drop_stderr)
        return arrays | {"curves": curves} | plain

    @classmethod
    def from_json(cls, data: dict[str, Any], process: Process | None = None) -> Calibration:
        """What `to_json` wrote; InputError where something is missing."""
        try:
            curves = {k: LossCurve.from_json(data["curves"][k], process) for k in CURVES}
            arrays = {
                k: np.asarray(data[k], dtype=np.float64) for k in ("levels", "weights", "stderr")
            }
            plain = {k: data[k] for k in PLAIN}
            plain["drop_stderr"] = np.nan if data["drop_stderr"] is None else data["drop_stderr"]
            return cls(**arrays, **curves, **plain, warnings=tuple(data["warnings"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"the calibration is damaged ({error}): calibrate again") from error


def curve_of(
    rates: np.ndarray, clock: np.ndarray, times: np.ndarray, process: Process, dim: int, name: str
) -> LossCurve:
    """A curve of rates (n, L, J) with its standard errors over rows."""
    n, shape = len(rates), clock.shape
    mean = rates.mean(0).reshape(shape)
    if n < 2:
        return LossCurve(clock, mean, None, process, times, dim=dim, count=n, label=name)
    error = (rates.std(0, ddof=1) / np.sqrt(n)).reshape(shape)
    curve = LossCurve(clock, mean, error, process, times, dim=dim, count=n, label=name)
    shares = (rates * curve.weights.reshape(1, len(clock), -1)).sum(2)
    covariance = np.atleast_2d(np.cov(shares, rowvar=False)) / n
    return LossCurve(clock, mean, error, process, times, covariance, None, dim, n, name)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _place(curve: LossCurve, level: int, noisy: str, clean: str) -> str:
    """'above sigma = 2.4' of Gaussian noise, 'below u = .1' of a clock."""
    if curve.process is not None and curve.process.clock_is_snr and curve.columns == 1:
        return f"{noisy} sigma = {curve.u[level] ** -0.5:.3g}"
    return f"{clean} u = {float(np.mean(curve.u[level])):.3g}"
