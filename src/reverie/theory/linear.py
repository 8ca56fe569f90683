"""LinearTheory: what a linear diffusion model learns from N samples of a given spectrum.

The linear denoiser knows data by two moments. Fitted to N samples it overfits the spectrum and
misses directions when N < d; weight decay and early stopping repair part of that. Three kinds of
answer, never mixed: exact for one draw of the data (`kl_of_draw`, `sampled_covariance`), exact in
expectation over draws (`expected_kl`: Wishart), and asymptotic (`train_loss`, `test_loss`, `kl`
and all that searches over them: deterministic equivalents, error O(1/d), no simulation).

Reconstruction of the theory announced in Merger & Goldt 2025 (arXiv 2505.24769); the formulas are
derived here and checked against simulation. What it cannot see: anything beyond second moments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from reverie.curve import LossCurve, level_times
from reverie.errors import InputError
from reverie.plan import Plan
from reverie.processes import VP, GaussianProcess
from reverie.theory import rates, times, wishart
from reverie.theory.equivalents import (
    SampleMeasure,
    compress,
    kl_per_dim,
    kl_through,
    sample_measure,
)
from reverie.theory.gradient_flow import kept_noise
from reverie.theory.phase import MANY, PhaseDiagram, phase_diagram
from reverie.theory.samplers import Scales, sampled_variance, scales_of
from reverie.theory.search import last_crossing, least
from reverie.theory.spectrum import Spectrum, read_law

SAMPLING_STEPS = 1000
PREDICTS = ("clean", "noise")
BEST = ("optimal", "best")
LITTLE = 1e-3  # of a variance
Array = np.ndarray | torch.Tensor


class LinearTheory:
    """The linear denoiser of N samples from a law with a given covariance spectrum.

    source: a spectrum (d,) of variances >= 0, the law's own; or data (n, *shape), an array or a
    tensor, or their `Spectrum`: then the law's spectrum is recovered from theirs (`population`)
    unless debias=False. n: samples fitted, default the rows of the data. ridge: added to every
    variance (weight decay ab_t c on W). time: training time eta tau of gradient flow from zero
    weights (see `gradient_flow`), None for the optimum. process: a Gaussian one with one clock,
    default VP; it turns t into noise levels. mean: "known", or "estimated" from the n samples.
    Directions without variance (constant pixels) cost nothing without a ridge and enter no KL.
    `spectrum` holds the eigenvalues as given (of data: the sample's), `population` those that the
    theory takes for the law's. All losses and KL are in nats, summed over dimensions. Without a
    ridge, nearly dead coordinates of real data break the Gaussian assumption at high u. Raises
    InputError on bad input.
    Source: a reconstruction of Merger & Goldt 2025 (arXiv 2505.24769), checked by simulation.

    >>> import numpy as np
    >>> from reverie.theory import LinearTheory
    >>> theory = LinearTheory(np.ones(16), n=160)
    >>> round(float(theory.expected_kl()), 3), round(float(theory.expected_kl(n=1600)), 3)  # nats
    (0.511, 0.043)
    >>> (theory.test_loss(0.2) - theory.oracle_loss(0.2)).round(3)  # what 160 rows cost there
    array([0.07])
    """

    def __init__(
        self,
        source: Array | list[float] | Spectrum,
        n: int | None = None,
        ridge: float = 0.0,
        time: float | None = None,
        process: GaussianProcess | None = None,
        *,
        mean: str = "known",
        debias: bool = True,
    ) -> None:
        law = read_law(source, debias)
        self.spectrum, self.population, self.constant = law.spectrum, law.population, law.constant
        self._few = self.population
        if len(self._few.values) > MANY:
            self._few = compress(self.population)
        self.process = VP() if process is None else process
        if not self.process.isotropic:
            raise InputError("linear theory needs one noise level for all coordinates")
        self.mean = mean
        self._measured: SampleMeasure | None = None
        self._set(law.count if n is None else n, ridge, time)

    def _set(self, n: int | None, ridge: float, time: float | None) -> None:
        if not ridge >= 0 or not math.isfinite(ridge):
            raise InputError(f"ridge is {ridge}; it must be a finite number >= 0")
        if n is not None and not (float(n).is_integer() and n > 0):
            raise InputError(f"n is {n}; it must be a whole number of samples, at least 1")
        if time is not None and not time > 0:
            raise InputError(f"training time is {time}; it must be positive, or None")
        self.n, self.ridge, self.time = n, float(ridge), time
        self._fit = None if n is None else rates.fit_of(self._few, n, self.mean)

    def at(self, **changes: Any) -> LinearTheory:
        """The same law and process at another n, ridge or time."""
        if changes.get("time") is not None and self._fit is not None:
            _ = self._measure  # solved once, then shared by every training time
        other = object.__new__(LinearTheory)
        other.__dict__.update(self.__dict__)
        other._set(**{"n": self.n, "ridge": self.ridge, "time": self.time} | changes)
        if other.n != self.n:
            other._measured = None
        return other

    @property
    def dim(self) -> int:
        """Dimensions in which the data vary."""
        return round(self.population.dim)

    def _needed(self) -> rates.Fit:
        if self._fit is None:
            raise InputError("how many samples? Build LinearTheory with n=...")
        return self._fit

    @property
    def _measure(self) -> SampleMeasure:
        if self._measured is None:
            fit = self._needed()
            self._measured = sample_measure(float(fit.g), fit.spectrum)
        return self._measured

    # --- losses: asymptotic ------------------------------------------------------------------

    def _rates(self, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fit = self._needed()
        if self.time is None:
            return rates.ridge_rates(fit, self.ridge, gamma, self.constant)
        return rates.stopped_rates(fit, self._measure, gamma, self.time, self.ridge, self.constant)

    def _gamma(self, t: Array | float) -> np.ndarray:
        return self.process.clock(torch.as_tensor(t, dtype=torch.float64)).numpy()

    def _loss(self, t: Array | float, which: str, predicts: str) -> np.ndarray:
        if predicts not in PREDICTS:
            raise InputError(f"predicts={predicts!r}; choose one of {', '.join(PREDICTS)}")
        gamma = self._gamma(t)
        rate = self._rate(gamma, which)
        return rate if predicts == "clean" else 2 * gamma * rate

    def _rate(self, gamma: np.ndarray, which: str) -> np.ndarray:
        if which == "oracle":
            return rates.oracle_rate(self._few, gamma)
        return self._rates(gamma)[0 if which == "train" else 1]

    def train_loss(self, t: Array | float, predicts: str = "clean") -> np.ndarray:
        """Loss (B,) on the n training samples at process times t (B,); asymptotic.

        predicts: "clean" gives the rate 1/2 E|x - xhat|^2, nats per unit of gamma; "noise" gives
        DDPM's E|e - ehat|^2 = 2 gamma rate.
        """
        return self._loss(t, "train", predicts)

    def test_loss(self, t: Array | float, predicts: str = "clean") -> np.ndarray:
        """Loss (B,) on fresh samples at process times t (B,); asymptotic (see `train_loss`)."""
        return self._loss(t, "test", predicts)

    def oracle_loss(self, t: Array | float, predicts: str = "clean") -> np.ndarray:
        """Loss (B,) of the linear denoiser that knows the law; exact (see `train_loss`)."""
        return self._loss(t, "oracle", predicts)

    def _curve(self, u: Array | None, which: str) -> LossCurve:
        if u is None:
            gamma = self._gamma(level_times(self.process, 64))
        else:
            gamma = np.ascontiguousarray(u, dtype=np.float64)
        t = self.process.time(torch.as_tensor(gamma)).numpy()
        rate = self._rate(gamma, which)
        dim = self.dim + self.constant
        return LossCurve(
            gamma, rate, process=self.process, t=t, dim=dim, label=f"linear theory, {which}"
        )

    def train_curve(self, u: Array | None = None) -> LossCurve:
        """Loss curve on the training samples at clock values u (L,), default 64; asymptotic."""
        return self._curve(u, "train")

    def test_curve(self, u: Array | None = None) -> LossCurve:
        """Loss curve on fresh samples at clock values u (L,), default 64; asymptotic."""
        return self._curve(u, "test")

    def oracle_curve(self, u: Array | None = None) -> LossCurve:
        """Loss curve of the linear denoiser that knows the law, at u (L,), default 64; exact."""
        return self._curve(u, "oracle")

    # --- sampling ----------------------------------------------------------------------------

    def sampled_covariance(
        self,
        plan: Plan | Array | Scales,
        sampler: str = "ancestral",
        modes: np.ndarray | None = None,
        start: float | None = None,
    ) -> np.ndarray:
        """Variance (M,) that a sampler gives each mode; exact, in the model's eigenbasis.

        plan: a Plan, process times noisy to clean, or `Scales`. sampler: "ancestral" (DDPM, small
        variance), "ancestral-large" or "ddim". modes: (M,) eigenvalues of the sample covariance,
        default the law's; ridge and time are applied to them. start: variance of the first state.
        """
        scales = plan if isinstance(plan, Scales) else scales_of(plan, self.process)
        modes = self.spectrum if modes is None else np.asarray(modes, dtype=np.float64)
        kept = kept_noise(modes, scales.gamma[:, None], self.time, self.ridge)
        return sampled_variance(scales, (1 - kept) / scales.alpha[:, None], sampler, start)

    def _default_plan(self) -> np.ndarray:
        return level_times(self.process, SAMPLING_STEPS + 1)

    # --- how far the sampled law is from the true one ------------------------------------------

    def kl(self, plan: Plan | Array | Scales | None = None, sampler: str = "ancestral") -> float:
        """KL(true || sampled) in nats, for any N/d, ridge and time; asymptotic.

        Without a plan and a stopping time the sampled covariance is S0 + ridge (infinitely many
        steps); a stopped model without a plan takes 1000 steps of equal log-SNR. Infinite where
        N <= d with neither ridge nor stopping.
        """
        fit = self._needed()
        if plan is None and self.time is None:
            per_dim = kl_per_dim(
                self.ridge, fit.g, fit.spectrum, true=self._few, inflation=fit.inflation
            )
            return float(per_dim) * self.population.dim
        plan = self._default_plan() if plan is None else plan
        variance = self.sampled_covariance(plan, sampler, self._measure.nodes)
        per_dim = kl_through(self._measure, variance, self._few, float(fit.inflation))
        return per_dim * self.population.dim

    def expected_kl(
        self,
        n: int | np.ndarray | None = None,
        mean: str | None = None,
        direction: str = "forward",
    ) -> Any:
        """Expected KL in nats of the fit without ridge or stopping; exact over draws (Wishart).

        n: default the theory's; an array gives an array. mean: "known" or "estimated", default the
        theory's. direction: "forward" KL(true || fitted) or "reverse". Infinite where N <= d + 1.
        """
        if n is None and self.n is None:
            raise InputError("how many samples? Pass n")
        count = self.n if n is None else n
        assert count is not None
        kl = wishart.expected_kl(count, self.dim, mean or self.mean, direction)
        return float(kl) if kl.ndim == 0 else kl

    def kl_of_draw(
        self,
        covariance: Array,
        shift: Array | None = None,
        plan: Plan | Array | Scales | None = None,
        sampler: str = "ancestral",
        true: Array | None = None,
    ) -> float:
        """KL(true || sampled) in nats for one draw; exact.

        covariance: (d, d) of the draw. true: (d, d) of the law, default diag(spectrum). shift:
        (d,) error of the draw's mean. A stopped model or a plan goes through the sampler as in
        `kl`; else the sampled covariance is covariance + ridge.
        """
        sample = np.asarray(covariance, dtype=np.float64)
        law = np.diag(self.spectrum) if true is None else np.asarray(true, dtype=np.float64)
        if sample.shape != law.shape:
            raise InputError(f"the draw's covariance is {sample.shape} and the law's {law.shape}")
        values, basis = np.linalg.eigh(sample)
        values = values.clip(min=0)
        if plan is None and self.time is None:
            model = values + self.ridge
        else:
            plan = self._default_plan() if plan is None else plan
            model = self.sampled_covariance(plan, sampler, values)
        other = None if shift is None else np.asarray(shift, dtype=np.float64)
        zero = None if shift is None else np.zeros(len(values))
        return wishart.gaussian_kl(law, basis * model @ basis.T, zero, other)

    # --- searches ------------------------------------------------------------------------------

    def optimal_ridge(self, objective: str = "kl", t: float | None = None) -> float:
        """Ridge with the least KL, or with the least test loss at time t; asymptotic.

        objective: "kl" or "test" (needs t). The converged fit is meant, whatever `time`. 0 where
        no positive ridge does better than none. Within 1% of the best by simulation from about
        three samples a direction on; with fewer the best over draws is larger.
        """
        fit = self._needed()
        if objective == "kl":

            def cost(ridge: np.ndarray) -> np.ndarray:
                return kl_per_dim(ridge, fit.g, fit.spectrum, self._few, fit.inflation)

        elif objective == "test" and t is not None:
            gamma = self._gamma(t)

            def cost(ridge: np.ndarray) -> np.ndarray:
                return rates.ridge_rates(fit, ridge, gamma, self.constant)[1]

        else:
            raise InputError("objective is kl, or test together with a time t")
        top, low = float(self.spectrum[0]), float(self.population.values.min())
        # a ridge far below the least variance is none; above it every mode may want one
        best = least(cost, min(1e-9 * top, LITTLE * low), 1e2 * top, scan=129)
        with np.errstate(all="ignore"):  # infinite, or not a number, with as many modes as samples
            without = float(cost(np.zeros(1))[0])
        return 0.0 if without <= float(cost(np.array([best]))[0]) else best

    def optimal_time(
        self, plan: Plan | Array | Scales | None = None, sampler: str = "ancestral"
    ) -> float:
        """Training time eta tau at which the KL of the samples is least; asymptotic (see `kl`)."""
        plan = self._default_plan() if plan is None else plan

        def cost(several: np.ndarray) -> np.ndarray:
            return np.array([self.at(time=time).kl(plan, sampler) for time in several])

        slowest = 1 / float(self.population.values.min())
        return least(cost, 1e-2, max(1e3, 10 * slowest), scan=25)

    def critical_n(self, budget: float, ridge: float | str | None = None) -> float:
        """Least N from which on the KL per dimension stays within `budget` nats.

        ridge: default the theory's; 0 uses the exact expectation, a positive one the asymptotic
        KL, "optimal" or "best" the best ridge of every N, none included. Infinite where a fixed
        ridge never gets there. Raises InputError on another word or a negative ridge.
        """
        if not budget > 0:
            raise InputError(f"the budget is {budget} nats per dimension; it must be positive")
        ridge = self.ridge if ridge is None else ridge
        known = ridge in BEST if isinstance(ridge, str) else 0 <= ridge < math.inf
        if not known:
            raise InputError(f'ridge is {ridge!r}; give a number >= 0, or "optimal"')
        return last_crossing(self._cost(ridge), budget)

    def _cost(self, ridge: float | str) -> Callable[[np.ndarray], np.ndarray]:
        """KL per dimension as a function of N (A,) under a way to choose the ridge."""

        def without(n: np.ndarray) -> np.ndarray:
            return np.asarray(self.expected_kl(n)) / self.dim

        def cost(n: np.ndarray) -> np.ndarray:
            out = []
            for count in n:
                there = self.at(n=int(count), time=None)
                best = there.optimal_ridge() if isinstance(ridge, str) else ridge
                out.append(there.at(ridge=best).kl() / self.population.dim)
            # the best ridge is none where that is better: exact, where the others are asymptotic
            return np.minimum(out, without(n)) if isinstance(ridge, str) else np.array(out)

        return without if ridge == 0 else cost

    # --- the law's own critical levels, and everything at once ---------------------------------

    def speciation_time(self) -> times.CriticalTime:
        """Noise level where the leading variance falls to the noise (Biroli et al. 2024)."""
        return times.speciation_time(float(self.spectrum[0]))

    def collapse_time(self, n: int | None = None) -> times.CriticalTime:
        """Noise level where the empirical law of n points collapses onto them (Gaussian data)."""
        count = self.n if n is None else n
        if count is None:
            raise InputError("how many samples? Pass n")
        return times.collapse_time(count, self.population)

    def phase_diagram(self, n: Array, ridge: Array, u: Array) -> PhaseDiagram:
        """Losses and KL over n (A,), ridge (B,) and clock u (L,); asymptotic, known mean."""
        return phase_diagram(self.population, *(np.asarray(a) for a in (n, ridge, u)))
