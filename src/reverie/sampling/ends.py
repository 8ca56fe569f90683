"""Where a schedule should begin and end, and where training should look: read off the data.

    sigma_max   starting from noise alone costs at most `nats`. KL(p_t | N(0, sigma^2)) is at least
                that of the moments, closed form, and at most log E exp(x . x' / sigma^2) over
                pairs of rows, whatever their law (KL <= log(1 + chi^2)); both are kept below
    sigma_min   the resolution of the data. Values on a grid of step q carry a rounding error of
                q / sqrt(12): below it a model learns the grid. Where the model stops improving on
                the linear guess, finer levels bring nothing either. The coarser of the two counts
    P_mean,     mean and deviation of log sigma where the relative loss h = 2 u rate / dim changes,
    P_std       under |dh|: before, all is noise; after, all is known. For isotropic Gaussian data
                of deviation c it is the logistic law around log c, of deviation pi / (2 sqrt 3)

The laws of training levels and of the fallback are our own choices, not from a paper; EDM (Karras
et al. 2022) sets P_mean = -1.2 and P_std = 1.2 by hand for images of deviation .5.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import LossCurve
from reverie.data.rows import row_codes, some_rows
from reverie.denoisers.exact.low_rank import Moments
from reverie.errors import InputError
from reverie.plan.excess import variance_of

NATS = 0.05
PAIRED = 1000  # rows whose pairs bound the cost of a start
KNOWN = 0.01  # share of a mode's variance that is left where all is known
FINE, COARSE = -10.0, 10.0  # decades of sigma, against the data's deviation
LEVELS = 400
WHOLE = 1e-3  # of a quantum: how far a value on a grid may lie off it
Z = 2.0


@dataclass(frozen=True)
class Ends:
    """sigma = noise over signal; P_mean and P_std of log sigma in training; reasons by name."""

    sigma_max: float
    sigma_min: float
    p_mean: float
    p_std: float
    reasons: dict[str, str]

    def sentences(self) -> list[str]:
        """Each value with its reason."""
        values = {
            "sigma_max": self.sigma_max,
            "sigma_min": self.sigma_min,
            "P_mean": self.p_mean,
            "P_std": self.p_std,
        }
        return [f"{k} = {v:.3g}: {self.reasons[k]}" for k, v in values.items()]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def choose_ends(
    source: Tensor | np.ndarray | LossCurve, curve: LossCurve | None = None, *, nats: float = NATS
) -> Ends:
    """Ends of a schedule for data, and the law of its training levels.

    source: rows (n, *shape) as the model sees them, or a curve that knows its dim, for data of
    which no more is known than their variance. curve: of a model on such rows (Gaussian noise of
    one clock). nats: that starting from noise may cost. Raises InputError on fewer than two rows,
    rows that do not vary, or another kind of curve.
    """
    if not nats > 0:
        raise InputError(f"nats is {nats}; it must be positive")
    known = source if isinstance(source, LossCurve) else curve
    if known is not None and not (_one_clock(known) and known.dim):
        raise InputError("ends are chosen for Gaussian noise of one clock and a known dimension")
    if isinstance(source, LossCurve):
        assert source.dim is not None
        spectrum, mean, rows = np.full(source.dim, variance_of(source)), 0.0, None
    else:
        rows = torch.as_tensor(source)
        if len(rows) < 2:
            raise InputError("ends are chosen from at least two rows")
        moments = Moments.fit(rows)
        rest = np.full(moments.dim - len(moments.spectrum), moments.rest)
        spectrum = np.concatenate([moments.spectrum.numpy(), rest])
        mean = float(moments.mean.square().sum())
    if not spectrum.max() > 0:
        raise InputError("the rows do not vary: no noise level tells them apart")
    reasons: dict[str, str] = {}
    top = _noisiest(spectrum, mean, rows, nats, reasons)
    low = min(_cleanest(spectrum, rows, known, reasons), 0.5 * top)
    p_mean, p_std = _training(spectrum, known, low, top, reasons)
    return Ends(top, low, p_mean, p_std, reasons)


def _one_clock(curve: LossCurve) -> bool:
    of_noise = curve.process is None or curve.process.clock_is_snr
    return of_noise and curve.columns == 1 and curve.is_log


def start_cost(sigma: float, spectrum: np.ndarray, mean: float) -> float:
    """KL in nats of N(m, C + sigma^2) from N(0, sigma^2); `mean` is |m|^2."""
    ratio = spectrum / sigma**2
    return 0.5 * float((ratio - np.log1p(ratio)).sum() + mean / sigma**2)


def start_bound(sigma: float, products: np.ndarray) -> float:
    """log E exp(x . x' / sigma^2) over products of different rows: at least the KL in nats."""
    exponent = products / sigma**2
    top = float(exponent.max())
    return top + math.log(float(np.exp(exponent - top).mean()))


def _noisiest(
    spectrum: np.ndarray,
    mean: float,
    rows: Tensor | None,
    nats: float,
    reasons: dict[str, str],
) -> float:
    """By bisection of a cost that falls with sigma."""
    products = None
    if rows is not None:
        few = some_rows(rows.detach().flatten(1).double().cpu(), PAIRED, 0)
        products = (few @ few.T)[~torch.eye(len(few), dtype=torch.bool)].numpy()
    centre = 0.5 * math.log(float(spectrum.max()) + mean)
    low, high = (centre + side * math.log(10) for side in (FINE, COARSE))
    for _ in range(50):
        middle = 0.5 * (low + high)
        dear = start_cost(math.exp(middle), spectrum, mean) > nats
        if products is not None and not dear:
            dear = start_bound(math.exp(middle), products) > nats
        low, high = (middle, high) if dear else (low, middle)
    sigma = math.exp(high)
    told = "" if rows is not None else ", were the data Gaussian"
    reasons["sigma_max"] = f"starting from noise alone costs at most {nats:g} nats there{told}"
    return sigma


def quantum(rows: Tensor) -> float | None:
    """The smallest step of the grids on which the coordinates of rows (n, *shape) lie.

    None where a coordinate that varies lies on none: nearly every value is another one, or gaps
    are no multiples of the smallest.
    """
    found = []
    for column in rows.detach().flatten(1).double().cpu().numpy().T:
        values = np.unique(column)
        if len(values) < 2:
            continue
        gaps = np.diff(values)
        # float32 values of one step differ in the last digits
        gaps = gaps[gaps > 1e-5 * (values[-1] - values[0])]
        steps = gaps / gaps.min()
        if (
            2 * len(gaps) > len(column)
            or np.abs(steps - np.round(steps)).max() > len(gaps) * WHOLE
        ):
            return None
        found.append(float(gaps.min()))
    return min(found) if found else None


def _cleanest(
    spectrum: np.ndarray,
    rows: Tensor | None,
    curve: LossCurve | None,
    reasons: dict[str, str],
) -> float:
    options: dict[str, float] = {}
    repeated = ""
    if rows is not None:
        step = quantum(rows)
        if step is not None:
            grid = f"the values lie on a grid of step {step:.3g}, which rounds by a sqrt(12)th"
            options[grid] = step / math.sqrt(12)
        codes = row_codes(rows.detach().flatten(1).cpu().numpy())[0]
        share = 1 - len(np.unique(codes)) / len(codes)
        if share > 0:
            repeated = (
                f"; {share:.1%} of the rows repeat another, so that nats have no lower bound"
            )
    if curve is not None:
        linear = _linear_rate(spectrum, curve.u)
        error = 0.0 if curve.stderr is None else curve.stderr
        better = np.flatnonzero(curve.rate + Z * error < linear)
        if len(better) and better[-1] < len(curve.u) - 1:
            options["finer levels bring the model nothing over the linear guess"] = float(
                curve.u[better[-1]] ** -0.5
            )
    if not options:
        alive = spectrum[spectrum > 1e-6 * spectrum.max()]
        why = f"every mode is known to {KNOWN:.0%} there, and the data show no coarser resolution"
        options[why] = math.sqrt(KNOWN * float(alive.min()))
    why = max(options, key=lambda reason: options[reason])
    reasons["sigma_min"] = why + repeated
    return options[why]


def _linear_rate(spectrum: np.ndarray, u: np.ndarray) -> np.ndarray:
    values, counts = np.unique(spectrum, return_counts=True)
    return 0.5 * (values / (1 + u[:, None] * values)) @ counts


def _training(
    spectrum: np.ndarray,
    curve: LossCurve | None,
    low: float,
    high: float,
    reasons: dict[str, str],
) -> tuple[float, float]:
    if curve is None:
        u = np.geomspace(high**-2, low**-2, LEVELS)
        rate, source = _linear_rate(spectrum, u), "of the linear guess"
    else:
        inside = (curve.u >= high**-2) & (curve.u <= low**-2)
        if inside.sum() < 3:
            inside[:] = True
        # never above the linear guess: a broken noisy end is nothing to train on
        u = curve.u[inside]
        rate, source = np.minimum(curve.rate[inside], _linear_rate(spectrum, u)), "of this model"
    place = -0.5 * np.log(u)
    weight = np.abs(np.diff(u * rate))
    middle = 0.5 * (place[1:] + place[:-1])
    total = weight.sum()
    mean = float(weight @ middle / total)
    spread = math.sqrt(max(float(weight @ (middle - mean) ** 2 / total), 1e-4))
    told = f"of log sigma where the relative loss {source} changes"
    reasons["P_mean"], reasons["P_std"] = f"mean {told}", f"deviation {told}"
    return mean, spread
