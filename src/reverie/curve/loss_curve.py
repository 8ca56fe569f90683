"""The loss curve: what a denoiser's guess costs, in nats, at each noise level.

`rate(u)` is in nats per unit of the information clock u, per sample, summed over dimensions. For
Gaussian noise u = gamma = alpha^2/sigma^2, rate = 1/2 E|x - xhat|^2, and the area under the ideal
curve is the information I(x; x_t) (I-MMSE: Guo, Shamai & Verdu 2005).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from reverie.curve.gap import Z95, Gap, Leak
from reverie.denoisers.exact.low_rank import Seen
from reverie.errors import InputError
from reverie.processes import Process
from reverie.templates import Card, Shown

GAUSS_NODES, GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(6)


@dataclass(frozen=True, eq=False, repr=False)
class LossCurve(Shown):
    """A measured or exact loss curve; `u` strictly increases (towards clean data).

    u, rate: (L,), or (L, J) for J clocks. stderr: like rate, of the mean over samples. covariance:
    (L, L), of the means of the levels' shares of the area (see `weights`). per_sample: (n, L) or
    (n, L, J) rates. t: (L,) process times. dim: coordinates of a point. variance: of the data,
    mean over coordinates, where it was seen. seen: the rows it was measured on, from which a
    sampler may start; they are not written. InputError on bad arrays.
    Source: I-MMSE, dI/dgamma = mmse / 2 (Guo, Shamai & Verdu 2005).

    >>> import numpy as np
    >>> from reverie import LossCurve
    >>> u = np.geomspace(1e-3, 1e4, 65)  # signal-to-noise ratios
    >>> curve = LossCurve(u, 0.5 / (1 + u))  # the least cost of guessing N(0, 1), in nats per unit
    >>> round(curve.area(1e-3, 1.0), 2)  # I(x; x_t) = 1/2 log 2
    0.35
    """

    u: np.ndarray
    rate: np.ndarray
    stderr: np.ndarray | None = None
    process: Process | None = field(default=None, repr=False)
    t: np.ndarray | None = field(default=None, repr=False)
    covariance: np.ndarray | None = field(default=None, repr=False)
    per_sample: np.ndarray | None = field(default=None, repr=False)
    dim: int | None = None
    count: int | None = None
    label: str = ""
    variance: float | None = None
    seen: Seen | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        u, rate = (np.asarray(a, dtype=np.float64) for a in (self.u, self.rate))
        if u.shape != rate.shape or u.ndim not in (1, 2) or len(u) < 2:
            raise InputError(
                f"a curve needs u and rate of one shape (L,) or (L, J) with L > 1, "
                f"not {u.shape} and {rate.shape}"
            )
        for name, values in (("u", u), ("rate", rate)):
            if not np.isfinite(values).all():
                level = int(np.argwhere(~np.isfinite(values))[0, 0])
                raise InputError(f"{name} is not finite at level {level}")
        if (np.diff(u, axis=0) <= 0).any():
            raise InputError("u must increase strictly, from noise to clean data")
        object.__setattr__(self, "u", u)
        object.__setattr__(self, "rate", rate)

    # --- the curve as a function -----------------------------------------------------------

    @property
    def columns(self) -> int:
        return 1 if self.u.ndim == 1 else self.u.shape[1]

    @cached_property
    def is_log(self) -> bool:
        """Whether the curve is read on a logarithmic axis of u (all clocks positive)."""
        return bool((self.u > 0).all())

    @cached_property
    def axis(self) -> np.ndarray:
        """Reading coordinate (L,): mean log u, or u itself where the clock starts at 0."""
        u = self.u.reshape(len(self.u), -1)
        return (np.log(u) if self.is_log else u).mean(1)

    @cached_property
    def _interpolants(self) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
        u, rate = (a.reshape(len(self.u), -1) for a in (self.u, self.rate))
        clock = PchipInterpolator(self.axis, np.log(u) if self.is_log else u)
        return clock, PchipInterpolator(self.axis, rate)

    def at(self, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clock (M, J) and rate (M, J) at positions of `axis`; constant beyond the ends."""
        clock, rate = self._interpolants
        inside = np.clip(axis, self.axis[0], self.axis[-1])
        one = self.columns == 1  # the axis is its clock
        u = np.asarray(axis, dtype=np.float64)[:, None] if one else clock(inside)
        return (np.exp(u) if self.is_log else u), rate(inside)

    def __call__(self, u: np.ndarray | float) -> np.ndarray:
        """Rate (M,) at clock values (M,), for one-clock curves: monotone cubic in the axis."""
        if self.columns > 1:
            raise InputError("a curve with several clocks is read with .at(axis)")
        u = np.atleast_1d(np.asarray(u, dtype=np.float64))
        return self.at(np.log(u) if self.is_log else u)[1][:, 0]

    @property
    def per_fold(self) -> tuple[np.ndarray, np.ndarray]:
        """What a figure shows: the clock (L,), its geometric mean over columns, and nats (L,).

        Nats per e-fold of it, or per unit where the clock starts at 0.
        """
        if self.columns == 1:
            height = self.u * self.rate if self.is_log else self.rate
            return self.u.reshape(-1), height.reshape(-1)
        slope = PchipInterpolator(self.axis, self.u).derivative()(self.axis)
        return np.exp(self.axis) if self.is_log else self.axis, (slope * self.rate).sum(1)

    # --- areas -----------------------------------------------------------------------------

    @property
    def weights(self) -> np.ndarray:
        """Trapezoid weights like `u`: the area is about sum(weights * rate)."""
        axis = self.axis
        edge = np.concatenate([[0.0], np.diff(axis), [0.0]])
        width = 0.5 * (edge[1:] + edge[:-1])
        if self.columns == 1:
            return width * (self.u if self.is_log else 1.0)
        slope = PchipInterpolator(axis, self.u).derivative()(axis)
        return width[:, None] * slope

    def area(self, start: float | None = None, stop: float | None = None) -> float:
        """Nats under the curve between two clock values (default: its ends).

        Of the ideal curve it is the information gained on the way (I-MMSE). Six-point Gauss rule
        on every piece of the monotone cubic interpolant.
        """
        axis = self.axis
        low = axis[0] if start is None else self._place(start)
        high = axis[-1] if stop is None else self._place(stop)
        inner = axis[(axis > min(low, high)) & (axis < max(low, high))]
        knots = np.concatenate([[min(low, high)], inner, [max(low, high)]])
        return float(self.cumulative(knots)[-1]) * (1 if high >= low else -1)

    def cumulative(self, knots: np.ndarray, warp: Callable | None = None) -> np.ndarray:
        """Running area (M,) at increasing positions `knots` of the axis, 0 at the first.

        With `warp(u)` (one clock only) it is the integral of the rate against dW instead of du.
        """
        middle, half = 0.5 * (knots[1:] + knots[:-1]), 0.5 * np.diff(knots)
        nodes = (middle[:, None] + half[:, None] * GAUSS_NODES).ravel()
        u, rate = self.at(nodes)
        if warp is not None:
            step = 1e-5
            speed = (warp(self.at(nodes + step)[0]) - warp(self.at(nodes - step)[0])) / (2 * step)
        elif self.columns == 1:
            speed = u if self.is_log else np.ones_like(u)
        else:
            clock = self._interpolants[0]
            speed = clock(nodes, 1) * (u if self.is_log else 1.0)
        pieces = (rate * speed).sum(1).reshape(-1, len(GAUSS_NODES)) @ GAUSS_WEIGHTS * half
        return np.concatenate([[0.0], np.cumsum(pieces)])

    def _place(self, u: float) -> float:
        if self.columns > 1:
            raise InputError("ends of a curve with several clocks are given by its own ends only")
        if u <= 0 and self.is_log:
            raise InputError(f"clock value {u} is not positive")
        return math.log(u) if self.is_log else u

    def area_stderr(self) -> float | None:
        """Standard error in nats of the area over rows, with their dependence across levels."""
        return None if self.covariance is None else float(math.sqrt(max(self.covariance.sum(), 0)))

    def area_error(self) -> float:
        """About how far in nats the area may be off because the curve is known at few levels only.

        Half the change, at the most, when every other level is left out: a rule of second order
        would err by a third of it, and this one did by less than that on Gaussian spectra.
        """
        last, areas = len(self.u) - 1, [self.area()]
        for first in (0, 1):
            kept = np.unique(np.r_[0, np.arange(first, last, 2), last])
            areas.append(LossCurve(self.u[kept], self.rate[kept]).area())
        return 0.5 * max(abs(areas[0] - area) for area in areas[1:])

    def cross_entropy(self, spectrum: np.ndarray) -> float:
        """-E log p(x) in nats of a density, by I-MMSE against a Gaussian of covariance `spectrum`.

        1/2 sum log(2 pi e lam) + int [rate - 1/2 sum lam / (1 + gamma lam)] dgamma; outside the
        curve's ends both integrands are taken to agree (Kong, Brekelmans & Ver Steeg 2023).
        """
        lam = np.asarray(spectrum, dtype=np.float64)
        if (lam <= 0).any():
            raise InputError("the reference spectrum must be positive")
        ends = np.array([self.u[0], self.u[-1]]).reshape(2, 1)
        reference = 0.5 * np.log1p(ends * lam).sum(1)
        base = 0.5 * np.log(2 * math.pi * math.e * lam).sum()
        return float(base + self.area() - (reference[1] - reference[0]))

    def entropy(self) -> float:
        """Entropy in nats of discrete data: the area from clock 0, the left tail held constant."""
        return self.area() + float(np.sum(self.u[0] * self.rate[0]))

    # --- readings ----------------------------------------------------------------------------

    def monotone(self) -> LossCurve:
        """The closest non-increasing curve: isotonic regression, weighted by 1/stderr^2."""
        rate = self.rate.reshape(len(self.u), -1)
        weight = np.ones_like(rate)
        if self.stderr is not None and self.stderr.any():
            error = self.stderr.reshape(rate.shape)
            weight = 1 / np.maximum(error, 1e-3 * error.max() + 1e-300) ** 2
        fixed = np.stack(
            [
                isotonic_regression(rate[:, j], weights=weight[:, j], increasing=False).x
                for j in range(rate.shape[1])
            ],
            axis=1,
        )
        return replace(self, rate=fixed.reshape(self.rate.shape))

    def majorant(self) -> LossCurve:
        """The least non-increasing curve above this one, clock by clock."""
        falling = np.maximum.accumulate(self.rate[::-1], axis=0)[::-1]
        return replace(self, rate=falling)

    def leak(self, heldout: LossCurve, until: float | None = None) -> Leak:
        """Leak in nats of this training curve against the held-out one, up to clock `until`.

        The `gap` of the two, under the name that it has only there.
        """
        return Leak(**vars(self.gap(heldout, until)))

    def gap(self, other: LossCurve, until: float | None = None) -> Gap:
        """The integral of (other - self) in nats, up to clock `until` (default: the last level).

        With a 95% interval from the per-sample areas; where both curves kept their samples of the
        same rows, of the paired differences. InputError when the levels differ.
        """
        if self.u.shape != other.u.shape or not np.allclose(self.u, other.u, rtol=1e-6):
            raise InputError("two curves are compared at the same levels: measure both with one t")
        keep = np.ones(len(self.u), bool)
        if until is not None:
            keep = self.axis <= self._place(until) + 1e-12
        weights = self.weights[keep]
        stop = None if until is None or self.columns > 1 else until
        nats = other.area(stop=stop) - self.area(stop=stop)
        error = self._difference_stderr(other, keep, weights)
        level = float(np.mean(self.u[keep][-1]))
        ends = (nats - Z95 * error, nats + Z95 * error)
        if self.process is None:
            return Gap(nats, error, *ends, level)
        return Gap(
            nats, error, *ends, level, self.process.clock_label, not self.process.area_exact
        )

    def _difference_stderr(self, other: LossCurve, keep: np.ndarray, weights: np.ndarray) -> float:
        mine, theirs = self.per_sample, other.per_sample
        if mine is not None and theirs is not None and mine.shape == theirs.shape:
            change = ((theirs - mine)[:, keep] * weights).reshape(len(mine), -1).sum(1)
            return float(change.std(ddof=1) / math.sqrt(len(change)))
        if self.covariance is None or other.covariance is None:
            return math.nan
        block = np.ix_(keep, keep)
        return math.sqrt(max(self.covariance[block].sum() + other.covariance[block].sum(), 0.0))

    # --- in and out ---------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: everything but the per-sample rates and the process."""
        data: dict[str, Any] = {"u": self.u.tolist(), "rate": self.rate.tolist()}
        for name in ("stderr", "t", "covariance"):
            values = getattr(self, name)
            if values is not None:
                digits = np.vectorize(lambda v: float(f"{v:.6g}"), otypes=[float])
                data[name] = (digits(values) if name == "covariance" else values).tolist()
        plain = {k: getattr(self, k) for k in ("dim", "count", "label", "variance")}
        return data | plain

    @classmethod
    def from_json(cls, data: dict[str, Any] | str, process: Process | None = None) -> LossCurve:
        """Rebuild a curve from `to_json` (a dict or its text)."""
        values = json.loads(data) if isinstance(data, str) else dict(data)
        arrays: dict[str, Any] = {
            k: np.asarray(values[k], dtype=np.float64)
            for k in ("u", "rate", "stderr", "t", "covariance")
            if values.get(k) is not None
        }
        plain = {k: values.get(k) for k in ("dim", "count", "variance")}
        u, rate = arrays.pop("u"), arrays.pop("rate")
        return cls(u, rate, **arrays, **plain, label=values.get("label", ""), process=process)

    def plot(self, ax: Any = None, *, label: str | None = None, **style: Any) -> Any:
        """Draw nats per e-fold of the clock against it, so that areas on the page are nats."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(figsize=(6, 3.6))[1]
        place, height = self.per_fold
        (line,) = ax.plot(place, height, label=label or self.label or None, **style)
        if self.stderr is not None and self.columns == 1:
            band = Z95 * self.stderr * (self.u if self.is_log else 1.0)
            ax.fill_between(
                place, height - band, height + band, color=line.get_color(), alpha=0.2, lw=0
            )
        if self.is_log:
            ax.set_xscale("log")
        label = "signal-to-noise ratio" if self.process is None else self.process.clock_label
        ax.set_xlabel(f"{label} (information clock u)")
        ax.set_ylabel("nats per e-fold of u" if self.is_log else "nats per unit of u")
        return ax

    def card(self) -> Card:
        """Its area and its height at five levels."""
        error = self.area_stderr()
        rows = "" if self.count is None else f" of {self.count:,} rows"
        spread = "" if error is None else f" +- {error:.2g}"
        picked = np.unique(np.linspace(0, len(self.u) - 1, 5).round().astype(int))
        place, height = self.per_fold
        unit = "nats per e-fold" if self.is_log else "nats per unit"
        return Card(
            f"Loss curve{rows}{self.label and f', {self.label}'}: {self.area():.4g}{spread} nats, "
            f"{len(self.u)} levels.",
            ("clock u", unit),
            [(f"{place[i]:.3g}", f"{height[i]:.4g}") for i in picked],
            self.plot,
        )
