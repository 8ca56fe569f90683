"""The guard before a plan: where is a model worse than a guess that needs no model?

A plan read off a curve is as good as the curve. Two guesses cost nothing to make:

    the mean       1/2 tr C at every level
    the linear     1/2 sum_k lambda_k / (1 + gamma lambda_k), at every level at most that

both exact in the rows' moments (Gaussian noise). Here each row is judged by a guess fitted without
it: the mean leaves one out, in closed form; the linear guess is fitted on the other half of the
rows and its rate on each row is the exact mean over the noise. On other processes the guess is
`reference_of`'s, measured.

A level counts where the model is dearer by more than `MARGIN` and by more than z standard errors,
z such that all levels together raise a false alarm at most once in twenty (2 at one level, 3.2 at
64). A model far above the mean is wrong there; near the noisy end of a beta table the remedy is
`calibrate`, and where a mistake in wrapping draws such a curve it is named (`suspects`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from reverie.calibration.references import reference_of
from reverie.curve import LossCurve, as_points
from reverie.denoisers import Denoiser, evaluating
from reverie.denoisers.exact.low_rank import LowRankLinear, Moments
from reverie.denoisers.rates import level_rates
from reverie.errors import InputError
from reverie.plan.suspects import Suspect, suspects
from reverie.processes import GaussianProcess, Process

MARGIN = 1.05
FALSE_ALARMS = 0.05
LEAST_ROWS = 8
BLOCK = 1024


@dataclass(frozen=True)
class Worse:
    """Where a model is dearer than a guess. levels: indices. ratio: at most, at index `at`."""

    than: str
    levels: tuple[int, ...]
    ratio: float
    at: int
    where: str

    def __str__(self) -> str:
        return (
            f"{self.where} this model is worse than {self.than} (by up to {self.ratio:.3g} times)"
        )


@dataclass(frozen=True, eq=False)
class Guard:
    """What is dangerous about planning on a curve; `ok` where nothing is.

    rates: (L,) of each guess, in nats per unit of clock.

    >>> import torch
    >>> from reverie import Guard, guard, measure
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> wrong = Linear(VP(), torch.full((2,), 9.0), torch.ones(2), torch.eye(2))  # another mean
    >>> found = guard(measure(wrong, rows, levels=16), rows=rows)
    >>> isinstance(found, Guard), found.ok
    (True, False)
    """

    findings: tuple[Worse, ...]
    suspects: tuple[Suspect, ...]
    rates: dict[str, np.ndarray]  # of each guess, like the curve's, summed over clocks

    @property
    def ok(self) -> bool:
        return not self.findings

    def sentences(self) -> list[str]:
        """One for each finding and suspicion, or that there is none."""
        if self.ok:
            names = " nor than ".join(self.rates)
            return [f"the model is nowhere worse than {names}"]
        said = [str(finding) for finding in self.findings]
        return said + [f"this looks like {s.name}: {s.remedy}" for s in self.suspects]

    def __str__(self) -> str:
        return "; ".join(self.sentences())

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and the sentences."""
        return {
            "ok": self.ok,
            "sentences": self.sentences(),
            "findings": [asdict(f) for f in self.findings],
            "suspects": [s._asdict() for s in self.suspects],
            "rates": {name: rate.tolist() for name, rate in self.rates.items()},
        }


@dataclass(frozen=True)
class _Rival:
    """A guess's rates (L,) and their standard errors (L,), summed over clocks."""

    name: str
    rate: np.ndarray
    stderr: np.ndarray


@torch.no_grad()
def guard(
    curve: LossCurve,
    reference: LossCurve | Denoiser | None = None,
    rows: Tensor | np.ndarray | None = None,
    *,
    predicts: str | None = None,
    generator: torch.Generator | None = None,
) -> Guard:
    """Compare a model's curve with the guesses that need no model.

    curve: measured with `measure` on `rows`. reference: a curve at the same levels or a denoiser
    to measure on the rows; by default what the rows' own moments allow. rows: (n, *shape), held
    out, the curve's own. predicts: what the model predicts (see `as_denoiser`), which narrows what
    may be wrong with it. Raises InputError without rows where they are needed, on fewer than 8, on
    curves without a process, or at other levels.

    >>> import torch
    >>> from reverie import guard, measure
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> denoiser = Linear.fit(VP(), rows[:50])
    >>> found = guard(measure(denoiser, rows[50:], levels=16), rows=rows[50:])
    >>> found.ok, len(found.sentences())
    (True, 1)
    """
    if isinstance(reference, LossCurve):
        rivals = [_of_curve(curve, reference)]
        return _judge(curve, rivals, [])
    process = curve.process
    if process is None or curve.t is None:
        raise InputError("the guard needs a curve that knows its process: measure one")
    if rows is None:
        raise InputError("the guard needs rows, those of the curve, or a reference curve")
    points = _points(process, reference, rows)
    if isinstance(reference, Denoiser):
        found = [_measured(curve, "the reference", points, lambda _: reference, generator)]
        return _judge(curve, found, [])
    noise = process.gaussian
    if noise is None:
        make: Callable[[Tensor], Denoiser] = lambda rest: reference_of(process, rest)  # noqa: E731
        name = f"the guess of their {reference_of(process, points).kind}"
        return _judge(curve, [_measured(curve, name, points, make, generator)], [])
    rivals = [_mean(curve, noise, points), _linear(curve, noise, points, generator)]
    return _judge(curve, rivals, suspects(curve, Moments.fit(points), predicts))


def _points(process: Process, reference: Any, rows: Tensor | np.ndarray) -> Tensor:
    given = torch.as_tensor(rows)
    points = process.space.as_points(given)
    if isinstance(reference, Denoiser):
        points = as_points(reference, given)
    points = process.space.check(points)
    if len(points) < LEAST_ROWS:
        raise InputError(f"the guard needs at least {LEAST_ROWS} rows, not {len(points)}")
    return points


# --- the guesses ---------------------------------------------------------------------------------


def _mean(curve: LossCurve, process: GaussianProcess, rows: Tensor) -> _Rival:
    """Each row guessed by the mean of the others: n / (n - 1) times its distance from the mean."""
    n = len(rows)
    far = (rows - rows.mean(0)).double() * (n / (n - 1))
    rates = process.pool(0.5 * process.to_modes(far).square()).reshape(n, 1, -1)
    spread = rates.expand(n, len(curve.u), rates.shape[2])
    return _of_rows("guessing the mean", spread.cpu().numpy(), curve)


def _linear(
    curve: LossCurve,
    process: GaussianProcess,
    rows: Tensor,
    generator: torch.Generator | None,
) -> _Rival:
    name = "the linear guess"
    if not process.isotropic:

        def make(rest: Tensor) -> Denoiser:
            return LowRankLinear(process, Moments.fit(rest))

        return _measured(curve, name, rows, make, generator)
    assert curve.t is not None
    halves = _halves(rows, generator)
    parts = [
        _exact(process, Moments.fit(rest), own, curve.t) for own, rest in (halves, halves[::-1])
    ]
    return _of_rows(name, np.concatenate(parts)[:, :, None], curve)


def _exact(
    process: GaussianProcess, moments: Moments, rows: Tensor, times: np.ndarray
) -> np.ndarray:
    """Rates (n, L) of the linear guess on each row, exact over the noise."""
    time = torch.as_tensor(times, dtype=torch.float64)
    alpha, sigma = (v.double() for v in process.scales(time, time[:, None]))
    far = rows.flatten(1).double() - moments.mean.flatten()
    inside = (far @ moments.basis).square()
    variance = torch.cat([moments.spectrum, torch.tensor([moments.rest], dtype=torch.float64)])
    left = moments.dim - len(moments.spectrum)
    count = torch.cat([torch.ones(inside.shape[1]), torch.tensor([float(left)])]).double()
    rest = (far.square().sum(1) - inside.sum(1)).clamp(min=0) * (left > 0)
    gain = alpha * variance / (alpha.square() * variance + sigma.square())
    missed = torch.cat([inside, rest[:, None]], 1) @ (1 - gain * alpha).square().T
    noise = (count * gain.square() * sigma.square()).sum(1)
    return (0.5 * (missed + noise)).numpy()


def _halves(rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    device = "cpu" if generator is None else generator.device
    order = torch.randperm(len(rows), generator=generator, device=device).to(rows.device)
    half = len(rows) // 2
    return rows[order[:half]], rows[order[half:]]


def _measured(
    curve: LossCurve,
    name: str,
    rows: Tensor,
    make: Callable[[Tensor], Denoiser],
    generator: torch.Generator | None,
) -> _Rival:
    """A guess fitted on one half of the rows and measured on the other, both ways."""
    assert curve.t is not None
    halves, parts = _halves(rows, generator), []
    for own, rest in (halves, halves[::-1]):
        denoiser = make(rest)
        with evaluating(denoiser):
            for start in range(0, len(own), BLOCK):
                block = own[start : start + BLOCK]
                parts.append(level_rates(denoiser, block, curve.t, None, generator))
    rates = np.concatenate(parts)
    return _of_rows(name, rates.reshape(len(rates), len(curve.u), -1), curve)


def _of_rows(name: str, rates: np.ndarray, curve: LossCurve) -> _Rival:
    """From rates (n, L, J)."""
    total = (rates * _shares(curve)).sum(2)
    return _Rival(name, total.mean(0), total.std(0, ddof=1) / np.sqrt(len(total)))


def _of_curve(curve: LossCurve, other: LossCurve) -> _Rival:
    if other.u.shape != curve.u.shape or not np.allclose(other.u, curve.u, rtol=1e-6):
        raise InputError("two curves are compared at the same levels: measure both with one t")
    return _Rival(other.label or "the reference", *_total(other))


def _shares(curve: LossCurve) -> np.ndarray:
    """Weights (L, J) that sum the rates of several clocks: nats per e-fold."""
    clock = curve.u.reshape(len(curve.u), -1)
    return clock if curve.columns > 1 else np.ones_like(clock)


def _total(curve: LossCurve) -> tuple[np.ndarray, np.ndarray]:
    """Rate and standard error (L,), summed over clocks; errors as if the clocks moved together."""
    shares, shape = _shares(curve), (len(curve.u), -1)
    error = np.zeros(curve.u.shape) if curve.stderr is None else curve.stderr
    return (curve.rate.reshape(shape) * shares).sum(1), (error.reshape(shape) * shares).sum(1)


# --- the judgement -------------------------------------------------------------------------------


def _judge(curve: LossCurve, rivals: list[_Rival], named: list[Suspect]) -> Guard:
    rate, error = _total(curve)
    z = float(norm.isf(FALSE_ALARMS / (2 * len(rate))))
    findings = []
    for rival in rivals:
        noise = z * np.sqrt(error**2 + rival.stderr**2)
        worse = np.flatnonzero((rate - rival.rate > noise) & (rate > MARGIN * rival.rate))
        if len(worse):
            ratio = rate[worse] / np.maximum(rival.rate[worse], 1e-300)
            top = int(worse[np.argmax(ratio)])
            places = tuple(worse.tolist())
            findings.append(
                Worse(rival.name, places, float(ratio.max()), top, _where(curve, worse))
            )
    blamed = tuple(named) if findings and findings[0].than == rivals[0].name else ()
    return Guard(tuple(findings), blamed, {r.name: r.rate for r in rivals})


def _where(curve: LossCurve, levels: np.ndarray) -> str:
    """'above sigma = 2.4', 'at every level', or the range that holds the levels."""
    first, last, end = int(levels[0]), int(levels[-1]), len(curve.u) - 1
    if len(levels) == end + 1:
        return "at every level"
    sigma = curve.process is not None and curve.process.clock_is_snr and curve.columns == 1

    def place(level: int) -> str:
        u = float(np.exp(np.log(curve.u[level]).mean()) if curve.is_log else curve.u[level].mean())
        return f"{u**-0.5:.3g}" if sigma else f"{u:.3g}"

    name, noisy, clean = ("sigma", "above", "below") if sigma else ("u", "below", "above")
    gaps = len(levels) < last - first + 1
    mostly = "mostly " if gaps else ""
    if first == 0 and last < end:
        return f"{mostly}{noisy} {name} = {place(last)}"
    if last == end and first > 0:
        return f"{mostly}{clean} {name} = {place(first)}"
    if first == last:
        return f"at {name} = {place(first)}"
    return f"{mostly}between {name} = {place(first)} and {place(last)}"
