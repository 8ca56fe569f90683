"""Handing a plan to a scheduler of diffusers: set by its own API, then verified.

    with plan.to_diffusers(pipe.scheduler):                   # any pipeline
        images = pipe(batch_size=16).images                   # DDPMPipeline, DiTPipeline, ...
    pipe("a cat", **plan.to_diffusers(pipe.scheduler).call)   # those that take timesteps= or
                                                              # sigmas=: Stable Diffusion, ...

A pipeline sets the timesteps anew in every call; inside the `with` block the scheduler answers
with the plan, whatever number of steps it is asked for. K steps are K + 1 model evaluations: the
scheduler's step to sigma = 0 is the last denoise.

Noise levels are s = sigma / alpha = gamma^(-1/2). What each scheduler is given:

    DDPM, DPMSolverMultistep, DPMSolverSinglestep, LCM, TCD, CMStochasticIterative: whole training
        levels, the distinct ones nearest in log gamma; `rounding` says how far that moved the plan
    EulerDiscrete: s with a 0 at the end; HeunDiscrete: fractional timesteps
    FlowMatchEulerDiscrete, FlowMatchLCM, UniPC with use_flow_sigmas: s / (1 + s), with the
        scheduler's `shift` undone beforehand
    EDMEuler (whose list is a ramp, not sigmas), EDMDPMSolverMultistep, UniPC, DPM with
        use_flow_sigmas: no usable list, so their arrays are written; these need the `with` block

The others are refused: DDIM and PNDM step by a fixed stride and would be silently wrong on any
other grid; KDPM2 and DPMSolverSDE interpolate levels of their own; DEIS has no step to sigma = 0.
EulerAncestral and LMS take no list, but read their arrays in every step: `force` writes those.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from reverie.diffusers.loading import is_flow
from reverie.diffusers.orders import TOLERANCE, Order, order_for
from reverie.errors import InputError
from reverie.formerly import Formerly
from reverie.processes import Process, Tabulated


@dataclass(frozen=True, eq=False)
class Handover:
    """A plan that a scheduler holds; a `with` block keeps it through the pipeline's own calls.

    spreads: (K + 1,) noise levels s = sigma / alpha that are held, noisiest first. rounding: the
    most by which whole timesteps moved log gamma (0 where levels are continuous).

    >>> from diffusers import DDPMScheduler
    >>> import numpy as np
    >>> from reverie.diffusers import Handover, hand_over
    >>> with hand_over(DDPMScheduler(), np.array([0.01, 1.0, 100.0])) as held:
    ...     print(isinstance(held, Handover), held.steps, held.timesteps)
    True 3 [674, 258, 26]
    """

    scheduler: Any
    spreads: np.ndarray
    _order: Order = field(repr=False)

    levels = Formerly("spreads")

    @property
    def steps(self) -> int:
        """Model evaluations of a first-order sampler: what to pass as num_inference_steps."""
        return len(self.spreads)

    @property
    def rounding(self) -> float:
        return self._order.rounding

    @property
    def timesteps(self) -> list[Any] | None:
        """For `pipe(timesteps=...)`, or None where the scheduler takes sigmas."""
        return self._order.arguments.get("timesteps")

    @property
    def sigmas(self) -> np.ndarray | None:
        """For `pipe(sigmas=...)`, or None where the scheduler takes timesteps."""
        return self._order.arguments.get("sigmas")

    @property
    def call(self) -> dict[str, Any]:
        """Keyword for the pipeline's call; InputError where only the `with` block can do it."""
        if not self._order.arguments:
            raise InputError(
                f"{type(self.scheduler).__name__} takes no list of levels: call the pipeline "
                "inside `with plan.to_diffusers(pipe.scheduler):`"
            )
        return dict(self._order.arguments)

    def apply(self, device: Any = None) -> None:
        """Set the levels again, as after another use of the scheduler."""
        _set(self.scheduler, self._order, device)

    def __enter__(self) -> Handover:
        if "set_timesteps" in vars(self.scheduler):
            raise InputError("this scheduler keeps a plan already: leave its `with` block first")
        self.apply()

        def pinned(
            num_inference_steps: int | None = None,
            device: Any = None,
            timesteps: Any = None,
            sigmas: Any = None,
            **others: Any,
        ) -> None:
            del self.scheduler.set_timesteps  # the class's own, for the length of this call
            try:
                self.apply(device)
            finally:
                self.scheduler.set_timesteps = pinned

        self.scheduler.set_timesteps = pinned
        return self

    def __exit__(self, *_: object) -> None:
        del self.scheduler.set_timesteps


def hand_over(
    scheduler: Any, gamma: np.ndarray, *, force: bool = False, process: Process | None = None
) -> Handover:
    """Make `scheduler` hold the signal-to-noise ratios `gamma` (K + 1,), increasing.

    force: write the arrays of schedulers that take no list, or whose settings would distort one.
    process: of the model. Levels are held as sigma / alpha: the scheduler must be the model's own,
    or made from its config, or the model is told the timesteps of another table. Raises InputError
    on schedulers that cannot hold the levels, levels beyond the scheduler's own, a table that is
    not the process's, and when what it holds afterwards differs by more than 1e-3.

    >>> from diffusers import DPMSolverMultistepScheduler
    >>> import numpy as np
    >>> from reverie.diffusers import hand_over
    >>> held = hand_over(DPMSolverMultistepScheduler(), np.geomspace(0.01, 1000, 11))
    >>> held.steps, held.spreads[[0, -1]].round(1)
    (11, array([10.,  0.]))
    """
    levels = np.asarray(gamma, dtype=np.float64) ** -0.5
    if not hasattr(scheduler, "set_timesteps") or not hasattr(scheduler, "config"):
        name = type(scheduler).__name__
        raise InputError(f"to_diffusers takes a scheduler of diffusers, not {name}")
    if isinstance(scheduler, type):
        raise InputError(f"to_diffusers takes a scheduler, not the class {scheduler.__name__}")
    if "set_timesteps" in vars(scheduler):
        raise InputError("this scheduler keeps a plan already: leave its `with` block first")
    order = order_for(scheduler, levels, force)
    _same_table(scheduler, process)
    _set(scheduler, order, None)
    _verify(scheduler, order)
    held = order.sigmas / (1 - order.sigmas) if is_flow(scheduler) else order.sigmas
    return Handover(scheduler, held, order)


def _same_table(scheduler: Any, process: Process | None) -> None:
    """InputError where the model was trained on another table of noise levels."""
    own = getattr(process, "signal", None)
    given = getattr(scheduler, "alphas_cumprod", None)
    if own is None or given is None or is_flow(scheduler):
        return
    theirs = Tabulated(given).signal
    if len(theirs) != len(own):
        raise InputError(
            f"the model was trained on {len(own)} noise levels, but {type(scheduler).__name__} "
            f"has {len(theirs)}: make it by from_config(pipe.scheduler.config)"
        )
    both = (own > 0) & (theirs > 0) & (own < 1) & (theirs < 1)
    off = (own[both].logit() - theirs[both].logit()).abs()
    # rounding of 1 - signal in float32, at the clean end
    slack = TOLERANCE + 1e-6 / (1 - own[both]) + 1e-6 / own[both].sqrt()
    if (off > slack).any():
        worst = int(both.nonzero()[(off - slack).argmax()])
        raise InputError(
            f"{type(scheduler).__name__} has another table of noise levels than the model's: at "
            f"timestep {worst} its alphas_cumprod is {float(theirs[worst]):.4g}, the model's "
            f"{float(own[worst]):.4g}: make it by from_config(pipe.scheduler.config)"
        )


# --- setting and verifying -----------------------------------------------------------------------


def _set(scheduler: Any, order: Order, device: Any) -> None:
    if order.arguments:
        try:
            scheduler.set_timesteps(device=device, **order.arguments)
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{type(scheduler).__name__} refuses the plan: {error}") from error
        return
    settings = {"mu": 1.0} if getattr(scheduler.config, "use_dynamic_shifting", False) else {}
    scheduler.set_timesteps(len(order.sigmas), device=device, **settings)  # resets its memory
    scheduler.sigmas = torch.tensor([*order.sigmas, order.last], dtype=torch.float32)
    scheduler.timesteps = torch.tensor(order.timesteps, dtype=torch.float32, device=device)


def _verify(scheduler: Any, order: Order) -> None:
    """Compare what the scheduler holds with what was asked; InputError names the distortion."""
    name = type(scheduler).__name__
    told = _once(scheduler.timesteps, order.twice)
    if told.shape != order.timesteps.shape:
        raise InputError(
            f"{name} holds {len(told)} timesteps where the plan has {len(order.timesteps)} levels"
        )
    # UniPC cuts the fraction off every time it tells, in its own calls too
    cut = not torch.is_floating_point(scheduler.timesteps) and bool((order.timesteps % 1).any())
    if not np.allclose(told, order.timesteps, rtol=0, atol=1.0 if cut else 5 * TOLERANCE):
        worst = int(np.abs(told - order.timesteps).argmax())
        raise InputError(
            f"{name} distorts the plan: at level {worst} it tells the model time "
            f"{told[worst]:.6g} where {order.timesteps[worst]:.6g} was asked"
        )
    if hasattr(scheduler, "previous_timestep") or not hasattr(scheduler, "sigmas"):
        return  # its levels are read off the timesteps
    held = _once(scheduler.sigmas, order.twice)
    off = np.abs(held[:-1] / order.sigmas - 1) if len(held) == len(told) + 1 else np.ones(1)
    if off.max() > TOLERANCE or abs(held[-1] - order.last) > TOLERANCE * order.sigmas[-1]:
        worst = int(off.argmax())
        raise InputError(
            f"{name} distorts the plan: at level {worst} it holds sigma {held[worst]:.6g} where "
            f"{order.sigmas[worst]:.6g} was asked, and it ends at {held[-1]:.3g}"
        )


def _once(values: Any, twice: bool) -> np.ndarray:
    """A held list as an array; of values held twice, one each."""
    held = torch.as_tensor(values).detach().cpu().double().numpy()
    return np.concatenate([held[:1], held[1::2]]) if twice else held
