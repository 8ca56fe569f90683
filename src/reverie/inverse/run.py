"""`reconstruct`: draw points that explain an observation, by any of the methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, evaluating
from reverie.errors import InputError
from reverie.inverse.dps import dps
from reverie.inverse.guided import MMPS, TMPD, Guided, PiGDM, gaussian_process
from reverie.inverse.measurements import Measurement
from reverie.inverse.repaint import repaint
from reverie.inverse.task import Task
from reverie.inverse.twisted import Particles, twisted_smc
from reverie.plan import Plan
from reverie.sampling import sample
from reverie.sampling.scales import plan_times


@dataclass(frozen=True)
class Reconstruction:
    """Draws (n, *shape) of x given y (n, *observed), and readings of them.

    InputError on a level outside (0, 1).

    >>> import torch
    >>> from reverie.inverse import Inpainting, Reconstruction
    >>> draws, seen = torch.tensor([[1.0, 0.2], [1.0, 0.4]]), torch.tensor([True, False])
    >>> found = Reconstruction(draws, torch.tensor([[1.1], [1.1]]), Inpainting(seen, noise=0.1))
    >>> found.mean(), found.misfit().round(decimals=3)
    (tensor([1.0000, 0.3000]), tensor([1., 1.]))
    """

    draws: Tensor
    y: Tensor
    measurement: Measurement
    particles: Particles | None = None  # of twisted-smc: weights, sample sizes, evidence

    def mean(self) -> Tensor:
        """Mean of the draws, (*shape)."""
        return self.draws.mean(0)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Central interval of each coordinate over the draws: low and high, (*shape)."""
        if not 0 < level < 1:
            raise InputError(f"level is {level}; it lies between 0 and 1")
        ends = torch.tensor([0.5 - 0.5 * level, 0.5 + 0.5 * level]).to(self.draws)
        low, high = self.draws.quantile(ends, dim=0)
        return low, high

    def misfit(self) -> Tensor:
        """Mean square of (y - A(x)) / noise of each draw, (n,).

        Draws of the exact posterior have mean 1 over observations; above it they do not explain y
        within its noise, and below they fit the noise.
        """
        gap = (self.y - self.measurement(self.draws)) / self.measurement.noise.to(self.draws)
        return gap.square().flatten(1).mean(1)


Drawn = tuple[Tensor, Particles | None]


@dataclass(frozen=True)
class Method:
    """How to draw, and the names of the settings that the method takes."""

    run: Callable[..., Drawn]
    takes: tuple[str, ...] = ()


def _guided(make: type[Guided], *takes: str) -> Method:
    def run(task: Task, sampler: str = "ancestral", **settings: Any) -> Drawn:
        guided = make(task.denoiser, task.measurement, **settings)
        drawn = sample(
            guided, len(task.y), task.times, sampler, init=task.start(), condition=task.y,
            generator=task.generator,
        )  # fmt: skip
        return drawn, None

    return Method(run, ("sampler", *takes))


def _plain(draw: Callable[..., Tensor], *takes: str) -> Method:
    return Method(lambda task, **settings: (draw(task, **settings), None), takes)


def _twisted(task: Task, particles: int | None = None, **settings: Any) -> Drawn:
    found = twisted_smc(task, particles or max(256, len(task.y)), **settings)
    return found.draw(len(task.y), task.generator), found


METHODS: dict[str, Method] = {
    "mmps": _guided(MMPS, "iterations"),
    "pigdm": _guided(PiGDM, "data_std"),
    "tmpd": _guided(TMPD),
    "dps": _plain(dps, "guidance_scale"),
    "repaint": _plain(repaint, "resamplings"),
    "twisted-smc": Method(_twisted, ("particles", "data_std", "resample_below")),
}


@torch.no_grad()
def reconstruct(
    denoiser: Denoiser,
    measurement: Measurement,
    y: Tensor,
    n: int,
    *,
    method: str = "mmps",
    plan: Plan | Tensor | None = None,
    steps: int = 100,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    **settings: Any,
) -> Reconstruction:
    """Draw `n` points x given y = A(x) + noise e, with an unconditional denoiser as the prior.

    y: one observation, (*observed), or one for each draw, (n, *observed). plan: a Plan or process
    times; by default `steps` equal steps of process time. method and its settings:

        mmps         iterations (3), sampler: exact for Gaussian data, the one to start with
        pigdm        data_std (1), sampler: takes coordinates given x_t to be independent
        tmpd         sampler: takes observed numbers given x_t to be independent
        dps          guidance_scale (1): a baseline, biased for Gaussian data too
        repaint      resamplings (10): masks only, takes y to be exact
        twisted-smc  particles (256 or n), data_std, resample_below (.5): exact in the limit of
                     many particles; `.particles` has the evidence and the effective sample size

    Raises InputError on a process that is not Gaussian, on a y of the wrong shape or not finite,
    on points of another shape than the denoiser's, and on a method or setting that does not exist.

    >>> import torch
    >>> from reverie.denoisers import Linear
    >>> from reverie.inverse import Inpainting, reconstruct
    >>> from reverie.processes import VP
    >>> prior = Linear(VP(shape=(2,)), torch.zeros(2), torch.ones(2), torch.eye(2))
    >>> seen = Inpainting(torch.tensor([True, False]), noise=0.1)
    >>> noise = torch.Generator().manual_seed(0)
    >>> found = reconstruct(prior, seen, torch.tensor([1.0]), n=200, steps=20, generator=noise)
    >>> found.draws.shape, found.mean()[:1].round(decimals=1)  # seen; the other is free
    (torch.Size([200, 2]), tensor([1.]))
    """
    gaussian_process(denoiser.process)
    if method not in METHODS:
        raise InputError(f"no method is called {method!r}; choose one of {', '.join(METHODS)}")
    _check_settings(method, settings)
    if n < 1 or steps < 1:
        raise InputError(f"n is {n} and steps is {steps}; both must be at least 1")
    given = measurement.check(y, n).to(device=device, dtype=dtype)
    if plan is None:
        low, high = denoiser.process.t_range  # type: ignore[attr-defined]
        plan = torch.linspace(high, low, steps + 1, dtype=torch.float64)
    task = Task(denoiser, measurement, given, plan_times(plan), generator).check()
    with evaluating(denoiser):
        draws, particles = METHODS[method].run(task, **settings)
    return Reconstruction(draws, given, measurement, particles)


def _check_settings(method: str, settings: dict[str, Any]) -> None:
    for name in settings:
        if name not in METHODS[method].takes:
            takers = [key for key, other in METHODS.items() if name in other.takes]
            belongs = f"it belongs to {', '.join(takers)}" if takers else "no method does"
            raise InputError(f"{method} takes no {name}; {belongs}")
